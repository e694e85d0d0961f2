"""An NTAG 424 DNA set up for SUN, and the clone that only replays what it once recorded."""

from __future__ import annotations

from typing import Final

from taprail_hwsim.cards import card_crypto, ntag424_files
from taprail_hwsim.cards.ntag424_chip import Ntag424Chip
from taprail_hwsim.cards.ntag424_files import FREE, NEVER, Rights, Sdm, Settings
from taprail_hwsim.cards.type4 import NDEF_FILE, Type4Card, uri_ndef_file

DEFAULT_BASE_URL = "https://tap.example/t"
META_READ, FILE_READ = 1, 2
"""Which keys our own cards use for SDM; any others would do."""
_MIRROR_UID_AND_COUNTER: Final = 0xC1  # SDMOptions, in ASCII (NT4H2421Gx table 69)


class Ntag424(Ntag424Chip):
    """A genuine SUN card.

    `sdm_meta_read_key` is common to all cards of an issuer (it must be known before the UID is);
    `sdm_file_read_key` is this card's own. Both have 16 bytes, `uid` 7. A `plain` card mirrors UID
    and counter as they are (clause 9.3.3: SDMMetaRead access "free"). All other keys are those of
    delivery, zeros.
    """

    def __init__(
        self,
        uid: bytes,
        sdm_meta_read_key: bytes,
        sdm_file_read_key: bytes,
        base_url: str = DEFAULT_BASE_URL,
        counter: int = 0,
        *,
        wtx_per_apdu: int = 0,
        plain: bool = False,
    ) -> None:
        super().__init__(uid, counter, wtx_per_apdu=wtx_per_apdu)
        for number, key in ((META_READ, sdm_meta_read_key), (FILE_READ, sdm_file_read_key)):
            if len(key) != card_crypto.KEY_BYTES:
                raise ValueError("an AES-128 key has 16 bytes")
            self._keys[number] = key
        file = self._files[NDEF_FILE]
        content, sdm = _sun_layout(base_url, plain=plain)
        file.content[:] = content
        file.settings = Settings(ntag424_files.PLAIN, Rights(FREE, 0, 0, 0), sdm)

    @classmethod
    def personalised(
        cls,
        uid: bytes,
        master_key: bytes,
        *,
        sdm_meta_read_key: bytes,
        base_url: str = DEFAULT_BASE_URL,
        counter: int = 0,
        plain: bool = False,
    ) -> Ntag424:
        """A card with its file-read key diversified by `card_crypto.file_read_key`."""
        own_key = card_crypto.file_read_key(master_key, uid)
        return cls(uid, sdm_meta_read_key, own_key, base_url, counter, plain=plain)

    def sun_proof(self, counter: int) -> tuple[str, str]:
        """(picc, mac) in upper-case hex, 32 and 16 digits, for a counter value; changes nothing."""
        return (
            ntag424_files.encrypted_picc(self._keys[META_READ], self._uid, counter),
            ntag424_files.mac_text(self._keys[FILE_READ], self._uid, counter),
        )

    def sun_url(self, counter: int) -> str:
        """The URL that this card mirrors at a counter value; changes nothing."""
        file = self.file_at(counter)
        return "https://" + file[7 : 6 + file[4]].decode()

    def read_sun_url(self) -> str:
        """A tap without radio: advance the counter, give the URL. RuntimeError at its end."""
        if not self.advance():
            raise RuntimeError("the SDM read counter is used up")
        return self.sun_url(self._counter)


def _sun_layout(base_url: str, *, plain: bool) -> tuple[bytes, Sdm]:
    """Our NDEF file with room for the mirror, and where that is."""
    if plain:
        url = f"{base_url}?uid={'0' * 14}&ctr={'0' * 6}&mac={'0' * 16}"
    else:
        url = f"{base_url}?picc={'0' * 32}&mac={'0' * 16}"
    file = uri_ndef_file(url.encode())
    base = 7 + len(base_url) - len("https://")
    options, meta = _MIRROR_UID_AND_COUNTER, FREE if plain else META_READ
    if plain:
        uid_at = base + len("?uid=")
        counter_at = uid_at + 14 + len("&ctr=")
        mac_at = counter_at + 6 + len("&mac=")
        return file, Sdm(options, meta, FILE_READ, NEVER, uid_at, counter_at, None, mac_at, mac_at)
    picc_at = base + len("?picc=")
    mac_at = picc_at + 32 + len("&mac=")
    return file, Sdm(options, meta, FILE_READ, NEVER, None, None, picc_at, mac_at, mac_at)


class ReplayedCard(Type4Card):
    """A clone: shows for ever the URL that was once read from a genuine card with this UID."""

    kind = "replayed"

    def __init__(self, url_bytes: bytes, uid: bytes) -> None:
        super().__init__(uid)
        self._file = uri_ndef_file(url_bytes)

    def ndef_file(self) -> bytes | None:
        return self._file

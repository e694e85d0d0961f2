"""An NTAG 424 DNA set up for SUN, and the clone that only replays what it once recorded.

Answers for the SDM read counter and the mirrored URL (NT4H2421Gx rev. 3.0 clause 9.3). The native
commands that need a key (authentication, key change) are not modelled: a terminal never sends them.
"""

from __future__ import annotations

import hashlib

from taprail_hwsim.cards import card_crypto
from taprail_hwsim.cards.type4 import READ_BINARY, Type4Card, uri_ndef_file

DEFAULT_BASE_URL = "https://tap.example/t"


class Ntag424(Type4Card):
    """A genuine SUN card. `counter` is the last SDM read counter that was given out.

    `sdm_meta_read_key` is common to all cards of an issuer (it must be known before the UID is);
    `sdm_file_read_key` is this card's own. Both have 16 bytes, `uid` 7. A `plain` card mirrors UID
    and counter as they are (clause 9.3.3: SDMMetaRead access "free").
    """

    kind = "ntag424"

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
        if len(uid) != card_crypto.UID_BYTES:
            raise ValueError("an NTAG 424 DNA has a 7-byte UID")
        if not 0 <= counter <= card_crypto.COUNTER_MAX:
            raise ValueError("the SDM read counter has 24 bits")
        super().__init__(uid, wtx_per_apdu=wtx_per_apdu)
        self._meta_read_key = sdm_meta_read_key
        self._file_read_key = sdm_file_read_key
        self._base_url = base_url
        self._plain = plain
        self._counter = counter
        self._open_read: bytes | None = None  # the file as the current run of reads sees it
        uri_ndef_file(self.sun_url(counter).encode())  # refuses keys and URLs that cannot work

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

    @property
    def counter(self) -> int:
        return self._counter

    def sun_proof(self, counter: int) -> tuple[str, str]:
        """(picc, mac) in upper-case hex, 32 and 16 digits, for a counter value; changes nothing.

        The chip draws 5 random padding bytes per read. Here they follow from UID and counter, so
        that the same read gives the same bytes in every run.
        """
        seed = self._uid + counter.to_bytes(4, "little")
        padding = hashlib.blake2s(seed, digest_size=card_crypto.PADDING_BYTES).digest()
        picc = card_crypto.encrypted_picc_data(self._meta_read_key, self._uid, counter, padding)
        mac = card_crypto.sdm_mac(self._file_read_key, self._uid, counter)
        return picc.hex().upper(), mac.hex().upper()  # clause 9.3.3: EncodeASCII uses capitals

    def sun_url(self, counter: int) -> str:
        """The URL that this card mirrors at a counter value; changes nothing."""
        picc, mac = self.sun_proof(counter)
        if self._plain:
            return f"{self._base_url}?uid={self._uid.hex().upper()}&ctr={counter:06X}&mac={mac}"
        return f"{self._base_url}?picc={picc}&mac={mac}"

    def read_sun_url(self) -> str:
        """A tap without radio: advance the counter, give the URL. RuntimeError at its end."""
        if not self._advance():
            raise RuntimeError("the SDM read counter is used up")
        return self.sun_url(self._counter)

    def apdu(self, command: bytes) -> tuple[str, bytes]:
        # Clause 9.3.1: only an unbroken run of reads shares one counter value.
        if len(command) < 2 or command[1] != READ_BINARY:
            self._open_read = None
        return super().apdu(command)

    def ndef_file(self) -> bytes | None:
        if self._open_read is None:
            if not self._advance():
                return None
            self._open_read = uri_ndef_file(self.sun_url(self._counter).encode())
        return self._open_read

    def forget_session(self) -> None:
        super().forget_session()
        self._open_read = None

    def _advance(self) -> bool:
        if self._counter >= card_crypto.COUNTER_MAX:
            return False
        self._counter += 1
        return True


class ReplayedCard(Type4Card):
    """A clone: shows for ever the URL that was once read from a genuine card with this UID."""

    kind = "replayed"

    def __init__(self, url_bytes: bytes, uid: bytes) -> None:
        super().__init__(uid)
        self._file = uri_ndef_file(url_bytes)

    def ndef_file(self) -> bytes | None:
        return self._file

"""The three files of an NTAG 424 DNA: who may touch them, and what SDM writes into a read.

Answers for file settings as bytes (NT4H2421Gx rev. 3.0 clauses 10.7.1 and 10.7.2, tables 69 and 73)
and for the mirror of clause 9.3. Keys, sessions and commands are the card's matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from taprail_hwsim.cards import card_crypto

STANDARD_FILE: Final = 0x00  # file type
# CommMode of table 11, in the two lowest bits of FileOption.
PLAIN, MACED, FULL = 0b00, 0b01, 0b11
_SDM_ENABLED: Final = 0x40
_UID_MIRROR, _COUNTER_MIRROR = 0x80, 0x40
_COUNTER_LIMIT, _ENCRYPTED_DATA = 0x20, 0x10
_ASCII: Final = 0x01

FREE, NEVER = 0xE, 0xF  # access conditions beside the key numbers (clause 8.2.3.3, table 6)

_PICC_DIGITS: Final = 2 * card_crypto.BLOCK_BYTES
_MAC_DIGITS: Final = 16
_UID_DIGITS: Final = 2 * card_crypto.UID_BYTES
_COUNTER_DIGITS: Final = 6


class SettingsError(ValueError):
    """File settings that the card refuses as PARAMETER_ERROR."""


@dataclass(frozen=True)
class Rights:
    """Who may do what: key numbers, or `FREE`, or `NEVER`."""

    read: int
    write: int
    read_write: int
    change: int

    @classmethod
    def parse(cls, raw: bytes) -> Rights:
        # Table 5: sent least significant byte first; RW and Change are in the low byte.
        low, high = raw
        return cls(high >> 4, high & 0x0F, low >> 4, low & 0x0F)

    def encode(self) -> bytes:
        return bytes([self.read_write << 4 | self.change, self.read << 4 | self.write])


@dataclass(frozen=True)
class Sdm:
    """Secure Dynamic Messaging of a file; offsets are None for what is not mirrored."""

    options: int
    meta_read: int
    file_read: int
    counter_read: int
    uid_at: int | None = None
    counter_at: int | None = None
    picc_at: int | None = None
    mac_input_at: int | None = None
    mac_at: int | None = None


@dataclass(frozen=True)
class Settings:
    """What GetFileSettings tells and ChangeFileSettings sets."""

    mode: int
    rights: Rights
    sdm: Sdm | None = None

    @classmethod
    def parse(cls, raw: bytes, size: int, *, may_mirror: bool) -> Settings:
        """Read ChangeFileSettings' data; SettingsError when this file could not be like that."""
        if len(raw) < 3:
            raise SettingsError("too short")
        option, rights, rest = raw[0], Rights.parse(raw[1:3]), raw[3:]
        mode = PLAIN if option & 0b11 == 0b10 else option & 0b11
        if option & ~(_SDM_ENABLED | 0b11):
            raise SettingsError("reserved bits")
        if not option & _SDM_ENABLED:
            if rest:
                raise SettingsError("too long")
            return cls(mode, rights)
        if not may_mirror:
            raise SettingsError("only the NDEF file mirrors")
        return cls(mode, rights, _parse_sdm(rest, size))

    def encode(self) -> bytes:
        option = self.mode | (_SDM_ENABLED if self.sdm else 0)
        return bytes([option]) + self.rights.encode() + (_encode_sdm(self.sdm) if self.sdm else b"")


def _parse_sdm(raw: bytes, size: int) -> Sdm:
    if len(raw) < 3:
        raise SettingsError("too short")
    options, low, high = raw[:3]
    if options & (_COUNTER_LIMIT | _ENCRYPTED_DATA) or not options & _ASCII:
        raise SettingsError("not modelled")
    sdm = Sdm(options, meta_read=high >> 4, file_read=high & 0x0F, counter_read=low & 0x0F)
    names = list(_offsets(sdm))
    values = raw[3:]
    if len(values) != 3 * len(names):
        raise SettingsError("offsets that do not fit the options")
    places = {
        name: int.from_bytes(values[3 * at : 3 * at + 3], "little") for at, name in enumerate(names)
    }
    sdm = replace(sdm, **places)
    _check_places(sdm, size)
    return sdm


def _offsets(sdm: Sdm) -> Iterator[str]:
    """Which offsets are there, in their order (table 69)."""
    if sdm.meta_read == FREE:
        if sdm.options & _UID_MIRROR:
            yield "uid_at"
        if sdm.options & _COUNTER_MIRROR:
            yield "counter_at"
    elif sdm.meta_read != NEVER:
        yield "picc_at"
    if sdm.file_read != NEVER:
        yield "mac_input_at"
        yield "mac_at"


def _check_places(sdm: Sdm, size: int) -> None:
    digits = {
        "uid_at": _UID_DIGITS,
        "counter_at": _COUNTER_DIGITS,
        "picc_at": _PICC_DIGITS,
        "mac_at": _MAC_DIGITS,
    }
    taken: set[int] = set()
    for name, length in digits.items():
        at = getattr(sdm, name)
        if at is None:
            continue
        places = set(range(at, at + length))
        if at + length > size or places & taken:
            raise SettingsError("mirrors that overlap or leave the file")
        taken |= places
    if sdm.mac_at is not None and (sdm.mac_input_at is None or sdm.mac_input_at > sdm.mac_at):
        raise SettingsError("a MAC before its input")


def _encode_sdm(sdm: Sdm) -> bytes:
    head = bytes([sdm.options, 0xF0 | sdm.counter_read, sdm.meta_read << 4 | sdm.file_read])
    return head + b"".join(getattr(sdm, name).to_bytes(3, "little") for name in _offsets(sdm))


def mirrored(content: bytes, sdm: Sdm, keys: Sequence[bytes], uid: bytes, counter: int) -> bytes:
    """The file as a read of somebody who is not authenticated sees it (clause 9.3)."""
    file = bytearray(content)

    def put(at: int | None, text: str) -> None:
        if at is not None:
            file[at : at + len(text)] = text.encode()  # clause 9.3.3: EncodeASCII uses capitals

    put(sdm.uid_at, uid.hex().upper())
    put(sdm.counter_at, f"{counter:06X}")
    if sdm.picc_at is not None:
        put(sdm.picc_at, encrypted_picc(keys[sdm.meta_read], uid, counter))
    if sdm.mac_at is not None and sdm.mac_input_at is not None:
        covered = bytes(file[sdm.mac_input_at : sdm.mac_at])
        put(sdm.mac_at, mac_text(keys[sdm.file_read], uid, counter, covered))
    return bytes(file)


def encrypted_picc(meta_read_key: bytes, uid: bytes, counter: int) -> str:
    """The mirrored PICCData, 32 digits.

    The chip draws 5 random padding bytes per read. Here they follow from UID and counter, so that
    the same read gives the same bytes in every run.
    """
    seed = uid + counter.to_bytes(4, "little")
    padding = hashlib.blake2s(seed, digest_size=card_crypto.PADDING_BYTES).digest()
    return card_crypto.encrypted_picc_data(meta_read_key, uid, counter, padding).hex().upper()


def mac_text(file_read_key: bytes, uid: bytes, counter: int, covered: bytes = b"") -> str:
    """The mirrored SDMMAC, 16 digits."""
    return card_crypto.sdm_mac(file_read_key, uid, counter, covered).hex().upper()

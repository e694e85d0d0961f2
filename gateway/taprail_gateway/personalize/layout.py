"""How a personalised card is laid out: its NDEF file, and what the chip mirrors where.

Sources: NFC Forum NDEF 1.0 section 3 and URI Record Type Definition 1.0 section 3; NXP NT4H2421Gx
rev. 3.0 sections 9.3.3 (mirrors) and 10.7.1 (ChangeFileSettings); NXP AN12196 section 5.9.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from taprail_common.errors import InputError

META_READ_KEY: Final = 1
FILE_READ_KEY: Final = 2
"""Key numbers: which encrypts UID and counter, and which makes the MAC. Part of a personalised card
for life."""

FILE_BYTES: Final = 256  # section 8.2.3.4
_HTTPS: Final = "https://"
_HEAD: Final = 7
"""Bytes before the address: file length (2), record header (4), prefix code (1)."""
# The URL is written in one frame, whose data has at most 248 bytes, and read by terminals in one
# exchange of 128 (see `card_session.READ_BYTES` of the terminal).
MAX_URL: Final = 120
_URL: Final = re.compile(r"https://[A-Za-z0-9.-]+(?::[0-9]+)?(?:/[A-Za-z0-9._~/-]*)?")

_UID_DIGITS, _COUNTER_DIGITS, _PICC_DIGITS, _MAC_DIGITS = 14, 6, 32, 16
# SDMOptions: mirror the UID, mirror the counter, in ASCII. Access conditions: E free, F never.
_SDM_OPTIONS: Final = 0xC1
_FREE, _NEVER = 0xE, 0xF
_SDM_PLAIN_MODE: Final = 0x40
# Read by anyone, written and changed by key 0 alone; lowest byte first: RW|Change, Read|Write.
_RIGHTS: Final = bytes([0x00, _FREE << 4])


class Mirror(StrEnum):
    """How a card shows UID and counter."""

    ENCRYPTED = "encrypted"
    PLAIN = "plain"
    """Readable by every phone: whoever reads the card can tell it again. It proves as much."""


@dataclass(frozen=True, slots=True)
class Layout:
    """An NDEF file with room for the mirror, and the settings that fill it."""

    file: bytes
    """Length, record and URL, without the rest of the 256 bytes."""
    settings: bytes
    """What ChangeFileSettings carries."""
    mirrored: tuple[range, ...]
    """What the chip writes itself."""

    @classmethod
    def of(cls, url: str, mirror: Mirror) -> Self:
        """For this base URL; raises InputError when it will not do."""
        if len(url) > MAX_URL or _URL.fullmatch(url) is None:
            raise InputError(
                "url", f"must be https://host/path without a query, at most {MAX_URL} characters"
            )
        fields = {"picc": _PICC_DIGITS}
        if mirror is Mirror.PLAIN:
            fields = {"uid": _UID_DIGITS, "ctr": _COUNTER_DIGITS}
        text, places = _filled(url.removeprefix(_HTTPS), {**fields, "mac": _MAC_DIGITS})
        return cls(_file(text), _settings(places, mirror), tuple(places.values()))

    def matches(self, content: bytes) -> bool:
        """Whether a card that was read shows this file, whatever it mirrored."""
        head = bytearray(content[: len(self.file)])
        for place in self.mirrored:
            head[place.start : place.stop] = self.file[place.start : place.stop]
        return bytes(head) == self.file

    def told_settings(self) -> bytes:
        """What GetFileSettings answers once they are set (table 73)."""
        size = FILE_BYTES.to_bytes(3, "little")
        return b"\x00" + self.settings[:3] + size + self.settings[3:]


def _filled(address: str, fields: dict[str, int]) -> tuple[str, dict[str, range]]:
    """The address with zeros where the chip will write, and where in the file that is."""
    places: dict[str, range] = {}
    for name, digits in fields.items():
        address += f"{'&' if places else '?'}{name}="
        start = _HEAD + len(address)
        places[name] = range(start, start + digits)
        address += "0" * digits
    return address, places


def _file(text: str) -> bytes:
    payload = b"\x04" + text.encode("ascii")  # URI RTD table 3: https://
    record = bytes([0xD1, 0x01, len(payload)]) + b"U" + payload
    return len(record).to_bytes(2, "big") + record


def _settings(places: dict[str, range], mirror: Mirror) -> bytes:
    meta_read = _FREE if mirror is Mirror.PLAIN else META_READ_KEY
    access = bytes([0xF0 | _NEVER, meta_read << 4 | FILE_READ_KEY])
    # The MAC covers nothing but UID and counter, which its session key comes from: its input ends
    # where it begins.
    starts = [place.start for place in places.values()]
    starts.insert(-1, starts[-1])
    offsets = b"".join(start.to_bytes(3, "little") for start in starts)
    return bytes([_SDM_PLAIN_MODE]) + _RIGHTS + bytes([_SDM_OPTIONS]) + access + offsets

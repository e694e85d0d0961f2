"""NTAG213 and NTAG215: type 2 tags of which a payment can use the UID only.

Answers for GET_VERSION, READ and FAST_READ over a blank, write-locked memory (NXP NTAG213/215/216
rev. 3.2, clauses 8.5 and 10). Passwords, counters and signatures get a NAK.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from taprail_hwsim.cards.base import CardAnswer

ATQA: Final = 0x0044  # clause 9.4
SAK: Final = 0x00
CASCADE_TAG: Final = 0x88  # ISO/IEC 14443-3 clause 6.5.4
PAGE_BYTES: Final = 4
READ_PAGES: Final = 4

GET_VERSION: Final = 0x60
READ: Final = 0x30
FAST_READ: Final = 0x3A
HLTA: Final = b"\x50\x00"
NAK_INVALID_ARGUMENT: Final = b"\x00"  # clause 9.3: 4 bits, 0h

# GET_VERSION storage size byte (table 28), number of pages and capability container size byte.
_MODELS: Final = {"ntag213": (0x0F, 45, 0x12), "ntag215": (0x11, 135, 0x3E)}
# An empty NDEF message and a terminator TLV (NFC Forum type 2 tag, clause 2.3).
_EMPTY_NDEF: Final = bytes.fromhex("0300FE00")


class _State(Enum):
    IDLE = auto()
    ACTIVE = auto()
    HALTED = auto()


class Ntag21x:
    """A blank NTAG213 or NTAG215 with a 7-byte UID; `model` is "ntag213" or "ntag215"."""

    def __init__(self, uid: bytes, model: str = "ntag213") -> None:
        if len(uid) != 7:
            raise ValueError("an NTAG21x has a 7-byte UID")
        if model not in _MODELS:
            raise ValueError(f"no such model: {model}; known are {', '.join(_MODELS)}")
        self.kind = model
        self._uid = uid
        self._size_code, pages, cc_size = _MODELS[model]
        self._memory = _blank_memory(uid, pages, cc_size)
        self._state = _State.IDLE

    @property
    def uid(self) -> bytes:
        return self._uid

    @property
    def atqa(self) -> int:
        return ATQA

    @property
    def sak(self) -> int:
        return SAK

    @property
    def ats(self) -> bytes | None:
        return None

    def power_lost(self) -> None:
        self._state = _State.IDLE

    def activate(self) -> bool:
        if self._state is _State.HALTED:  # wakes by WUPA only
            return False
        self._state = _State.ACTIVE
        return True

    def receive(self, frame: bytes) -> CardAnswer | None:
        if self._state is not _State.ACTIVE:
            return None
        if frame == HLTA:
            self._state = _State.HALTED
            return None
        answer = self._command(frame)
        if answer is None:
            self._state = _State.IDLE  # after a NAK the tag must be selected again (clause 8.4)
            return CardAnswer(NAK_INVALID_ARGUMENT, apdu="refused", short=True)
        return answer

    def _command(self, frame: bytes) -> CardAnswer | None:
        match list(frame):
            case [code] if code == GET_VERSION:
                return CardAnswer(self._version(), apdu="GET_VERSION")
            case [code, page] if code == READ:
                data = self._read(page)
                return None if data is None else CardAnswer(data, apdu="READ")
            case [code, first, last] if code == FAST_READ:
                data = self._fast_read(first, last)
                return None if data is None else CardAnswer(data, apdu="FAST_READ")
        return None

    def _version(self) -> bytes:
        # Table 28: header, NXP, NTAG, 50 pF, major 1, minor 0, size, ISO/IEC 14443-3.
        return bytes([0x00, 0x04, 0x04, 0x02, 0x01, 0x00, self._size_code, 0x03])

    def _read(self, page: int) -> bytes | None:
        start = page * PAGE_BYTES
        if start >= len(self._memory):
            return None
        around = self._memory + self._memory[: READ_PAGES * PAGE_BYTES]  # clause 10.2: rolls over
        return around[start : start + READ_PAGES * PAGE_BYTES]

    def _fast_read(self, first: int, last: int) -> bytes | None:
        if first > last or (last + 1) * PAGE_BYTES > len(self._memory):
            return None
        return self._memory[first * PAGE_BYTES : (last + 1) * PAGE_BYTES]


def _blank_memory(uid: bytes, pages: int, cc_size: int) -> bytes:
    # Clause 8.5: UID with its two check bytes, internal byte 48h, static lock bytes, then the CC.
    check_0 = CASCADE_TAG ^ uid[0] ^ uid[1] ^ uid[2]
    check_1 = uid[3] ^ uid[4] ^ uid[5] ^ uid[6]
    head = uid[:3] + bytes([check_0]) + uid[3:] + bytes([check_1, 0x48, 0xFF, 0xFF])
    head += bytes([0xE1, 0x10, cc_size, 0x0F])  # 0Fh: no write access
    return (head + _EMPTY_NDEF).ljust(pages * PAGE_BYTES, b"\x00")

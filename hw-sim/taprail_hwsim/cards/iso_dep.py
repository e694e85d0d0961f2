"""The card's side of ISO-DEP, the half-duplex block protocol of ISO/IEC 14443-4:2018.

Answers for RATS, block numbers, chaining both ways, repeats, S(WTX) and S(DESELECT). Knows nothing
of what is inside an APDU: a subclass supplies `apdu()`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum, auto
from typing import Final

from taprail_hwsim.cards.base import CardAnswer

# ISO/IEC 14443-4 clause 5.1, table 1: FSDI/FSCI -> frame size in bytes, PCB and CRC included.
FRAME_SIZES_BYTES: Final = (16, 24, 32, 40, 48, 64, 96, 128, 256)
BLOCK_OVERHEAD_BYTES: Final = 3  # PCB + CRC_A; no CID or NAD here (TC(1) of our ATS says so)
MAX_COMMAND_BYTES: Final = 261  # short APDU: 4 header + Lc + 255 + Le (ISO/IEC 7816-4 clause 5.2)

RATS: Final = 0xE0  # clause 5.1
HLTA: Final = b"\x50\x00"  # ISO/IEC 14443-3 clause 6.4.3

# PCB codings of clause 7.1.1.1, figures 13 to 15. The masks also refuse CID and NAD.
I_MASK: Final = 0xEE  # all but chaining and block number
I_CODE: Final = 0x02
R_MASK: Final = 0xEE  # all but ACK/NAK and block number
R_CODE: Final = 0xA2
S_WTX: Final = 0xF2
S_DESELECT: Final = 0xC2
CHAINING: Final = 0x10  # in an I-block
NAK: Final = 0x10  # in an R-block
BLOCK_NUMBER: Final = 0x01


class _State(Enum):
    """States of ISO/IEC 14443-3 figure 7, with PROTOCOL of part 4."""

    IDLE = auto()
    ACTIVE = auto()
    PROTOCOL = auto()
    HALTED = auto()


class IsoDepCard(ABC):
    """Base of all type 4 cards. `wtx_per_apdu` makes it ask for more time before every answer."""

    kind = "iso-dep"

    def __init__(
        self, uid: bytes, *, atqa: int, sak: int, ats: bytes, wtx_per_apdu: int = 0
    ) -> None:
        if len(uid) not in (4, 7, 10):
            raise ValueError("a UID has 4, 7 or 10 bytes (ISO/IEC 14443-3 clause 6.5.4)")
        self._uid, self._atqa, self._sak, self._ats = uid, atqa, sak, ats
        self._wtx_per_apdu = wtx_per_apdu
        self._state = _State.IDLE
        self._reset_blocks(FRAME_SIZES_BYTES[0])

    @property
    def uid(self) -> bytes:
        return self._uid

    @property
    def atqa(self) -> int:
        return self._atqa

    @property
    def sak(self) -> int:
        return self._sak

    @property
    def ats(self) -> bytes | None:
        return self._ats

    @abstractmethod
    def apdu(self, command: bytes) -> tuple[str, bytes] | None:
        """Run one command APDU; its name, and the response APDU with status word. None: this card
        never answers."""

    @abstractmethod
    def forget_session(self) -> None:
        """Power went: drop selected files and everything else that lives in RAM."""

    def power_lost(self) -> None:
        self._state = _State.IDLE
        self._reset_blocks(FRAME_SIZES_BYTES[0])
        self.forget_session()

    def activate(self) -> bool:
        # A card in PROTOCOL does not know REQA and a halted one wakes by WUPA only.
        if self._state in (_State.PROTOCOL, _State.HALTED):
            return False
        self._state = _State.ACTIVE
        return True

    def receive(self, frame: bytes) -> CardAnswer | None:
        if not frame:
            return None
        if self._state is _State.PROTOCOL:
            return self._block(frame)
        if self._state is _State.ACTIVE:
            return self._first_frame(frame)
        return None

    def _first_frame(self, frame: bytes) -> CardAnswer | None:
        if frame == HLTA:
            self._state = _State.HALTED
            return None
        fsdi = frame[1] >> 4 if len(frame) == 2 and frame[0] == RATS else None
        if fsdi is None:
            self._state = _State.IDLE  # an unknown frame sends an active card back to IDLE
            return None
        # RFU values of FSDI count as the largest one (clause 5.1).
        self._reset_blocks(FRAME_SIZES_BYTES[min(fsdi, len(FRAME_SIZES_BYTES) - 1)])
        self._state = _State.PROTOCOL
        return CardAnswer(self._ats)

    def _reset_blocks(self, reader_frame_bytes: int) -> None:
        self._chunk_bytes = reader_frame_bytes - BLOCK_OVERHEAD_BYTES
        self._number = 1  # rule C of clause 7.5.4.2
        self._command = b""  # chained parts so far
        self._response = b""  # what is not yet sent
        self._repeat: bytes | None = None  # the last block, for a repeat
        self._wtx_left = 0
        self._waiting: str | None = None  # name of the command whose answer waits for S(WTX)

    def _block(self, frame: bytes) -> CardAnswer | None:
        pcb = frame[0]
        # S(WTX) before S(DESELECT): the bits of C2h are all set in F2h too.
        if pcb == S_WTX:
            return self._time_granted(frame)
        if pcb == S_DESELECT:
            self._state = _State.HALTED
            return CardAnswer(bytes([S_DESELECT]))
        if pcb & I_MASK == I_CODE:
            return self._i_block(pcb, frame[1:])
        if pcb & R_MASK == R_CODE:
            return self._r_block(pcb)
        return None

    def _i_block(self, pcb: int, information: bytes) -> CardAnswer | None:
        if len(self._command) + len(information) > MAX_COMMAND_BYTES:
            self._command = b""
            return None
        self._number ^= 1  # rule D
        self._command += information
        if pcb & CHAINING:
            return self._send(bytes([R_CODE | self._number]))  # rule 10
        answer, self._command = self.apdu(self._command), b""
        if answer is None:
            return None
        name, self._response = answer
        self._wtx_left = self._wtx_per_apdu
        if self._wtx_left:
            self._waiting = name
            return self._ask_for_time()
        return self._next_part(name)

    def _ask_for_time(self) -> CardAnswer:
        self._wtx_left -= 1
        return self._send(bytes([S_WTX, 0x01]))  # WTXM = 1: one more frame waiting time

    def _time_granted(self, frame: bytes) -> CardAnswer | None:
        if self._waiting is None or len(frame) != 2:
            return None
        if self._wtx_left:
            return self._ask_for_time()
        name, self._waiting = self._waiting, None
        return self._next_part(name)

    def _r_block(self, pcb: int) -> CardAnswer | None:
        if pcb & BLOCK_NUMBER == self._number:  # rule 11: the reader missed our last block
            return None if self._repeat is None else CardAnswer(self._repeat)
        if pcb & NAK:  # rule 12, and the presence check of clause 7.5.6.2 (method 1)
            return CardAnswer(bytes([R_CODE | self._number]))
        if not self._response:
            return None
        self._number ^= 1  # rules E and 13: our chaining goes on
        return self._next_part(None)

    def _next_part(self, name: str | None) -> CardAnswer:
        part, self._response = (
            self._response[: self._chunk_bytes],
            self._response[self._chunk_bytes :],
        )
        more = CHAINING if self._response else 0
        return self._send(bytes([I_CODE | more | self._number]) + part, name)

    def _send(self, block: bytes, name: str | None = None) -> CardAnswer:
        self._repeat = block
        return CardAnswer(block, apdu=name)

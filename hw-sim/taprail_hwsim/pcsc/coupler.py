"""What a contactless PC/SC reader does with the card before its antenna: it activates it, makes an
ATR of what it says, and carries APDUs in the blocks of ISO/IEC 14443-4 from the reader's side.

Pure but for the wait that a card asks for. Answers for repeats and for giving up; who asks for all
this, and over which line, is not its matter.
Sources: ISO/IEC 14443-4:2018 clauses 5 and 7; PC/SC part 3 rev. 2.01.09, section 3.1.3.2.3 (ATR of
contactless cards) and section 3.2.2.1 (pseudo APDUs).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from taprail_hwsim.cards.base import CardAnswer
from taprail_hwsim.pn532.rf_field import RfField

_SAK_ISO_DEP: Final = 0x20
_RATS_FSD_256: Final = b"\xe0\x80"
_FRAME_BYTES: Final = (16, 24, 32, 40, 48, 64, 96, 128, 256)
_DEFAULT_FSCI, _DEFAULT_FWI = 2, 4
_FWT_UNIT_S: Final = 4096 / 13.56e6
_OVERHEAD_BYTES: Final = 3  # PCB and CRC

_I_BLOCK, _CHAINING, _NUMBER = 0x02, 0x10, 0x01
_R_ACK, _R_NAK = 0xA2, 0xB2
_S_WTX: Final = 0xF2
_WTX_MULTIPLIER: Final = 0x3F

_TRIES: Final = 3
"""One frame is asked for that often (clause 7.5.5.2 lets a reader choose)."""

# Part 3, section 3.1.3.2.3.2: the ATR of a storage card; standard 3 and name 0003 is "Ultralight".
_STORAGE_CARD: Final = bytes.fromhex("804F0CA000000306030003") + bytes(4)
_GET_UID: Final = bytes.fromhex("FFCA000000")  # part 3, section 3.2.2.1.3
_PSEUDO_CLASS: Final = 0xFF
_OK: Final = b"\x90\x00"
_NOT_SUPPORTED: Final = b"\x6a\x81"


class Coupler:
    """Talks to the card of one field. `wait_s(duration)` is how it lets a card have its time;
    False from it means that nobody waits any more. `patience_s` bounds all waits of one APDU, and
    `rf_delay_s` is the air time of one exchange with the card."""

    def __init__(
        self,
        field: RfField,
        wait_s: Callable[[float], bool],
        *,
        patience_s: float = 1.0,
        rf_delay_s: float = 0.0,
    ) -> None:
        self._field = field
        self._wait_s = wait_s
        self._patience_s = patience_s
        self._rf_delay_s = rf_delay_s
        self._uid = b""
        self._iso_dep = False
        self._number = 0
        self._chunk_bytes = 0
        self._frame_wait_s = 0.0

    def power_down(self) -> None:
        """Switch the field off."""
        self._field.switch(on=False)

    def power_up(self) -> bytes | None:
        """Switch the field off and on and activate what is there; its ATR, or None."""
        self._field.switch(on=False)
        self._field.switch(on=True)
        card = self._field.activate(b"")
        if card is None or not self._airs():
            return None
        self._uid, self._iso_dep = card.uid, bool(card.sak & _SAK_ISO_DEP)
        if not self._iso_dep:
            return _atr(_STORAGE_CARD)
        # Disturbances begin with the dialogue, as they do before the simulated chip.
        heard = self._field.exchange(_RATS_FSD_256)
        return None if heard is None or not self._airs() else self._select(heard[0].frame)

    def transmit(self, apdu: bytes) -> bytes | None:
        """The answer to an APDU; None when the reader has given the card up."""
        if apdu == _GET_UID:
            return self._uid + _OK
        if apdu[:1] == bytes([_PSEUDO_CLASS]) or not self._iso_dep:
            return _NOT_SUPPORTED
        self._field.answered()  # a card that is torn away before its first APDU leaves now
        block = self._send_command(apdu)
        waited_s = 0.0
        response = b""
        while block is not None:
            pcb = block[0]
            if pcb == _S_WTX and len(block) == 2:
                wait_s = self._frame_wait_s * (block[1] & _WTX_MULTIPLIER)
                waited_s += wait_s
                if waited_s > self._patience_s or not self._wait_s(wait_s):
                    return None
                block = self._exchange(block)
            elif pcb & ~(_CHAINING | _NUMBER) == _I_BLOCK:
                response += block[1:]
                self._number ^= 1
                if not pcb & _CHAINING:
                    return response
                block = self._exchange(bytes([_R_ACK | self._number]))
            else:
                return None
        return None

    def _select(self, ats: bytes) -> bytes | None:
        """Take what the answer to select says (clause 5.2); the ATR."""
        if not ats or ats[0] != len(ats):
            return None
        format_byte = ats[1] if len(ats) > 1 else _DEFAULT_FSCI
        at = 2 + bool(format_byte & 0x10)
        has_tb = bool(format_byte & 0x20)
        fwi = ats[at] >> 4 if has_tb and len(ats) > at else _DEFAULT_FWI
        history_at = at + has_tb + bool(format_byte & 0x40)
        self._number = 0
        fsci = min(format_byte & 0x0F, len(_FRAME_BYTES) - 1)
        self._chunk_bytes = _FRAME_BYTES[fsci] - _OVERHEAD_BYTES
        self._frame_wait_s = _FWT_UNIT_S * 2**fwi
        return _atr(ats[history_at:][:15])

    def _send_command(self, apdu: bytes) -> bytes | None:
        """Send an APDU in as many blocks as the card's frame size asks for; the first answer."""
        size = self._chunk_bytes
        parts = [apdu[at : at + size] for at in range(0, len(apdu), size)]
        for part in parts[:-1]:
            block = self._exchange(bytes([_I_BLOCK | _CHAINING | self._number]) + part)
            if block != bytes([_R_ACK | self._number]):
                return None
            self._number ^= 1
        return self._exchange(bytes([_I_BLOCK | self._number]) + parts[-1])

    def _exchange(self, frame: bytes) -> bytes | None:
        """One frame each way; asked for again when it was silent or damaged."""
        answer = self._once(frame)
        for _ in range(_TRIES - 1):
            if answer is not None:
                break
            answer = self._once(bytes([_R_NAK | self._number]))
        return answer

    def _once(self, frame: bytes) -> bytes | None:
        heard: tuple[CardAnswer, bool] | None = self._field.exchange(frame)
        if heard is None or not self._airs():
            return None
        self._field.answered()
        answer, garbled = heard
        return None if garbled or answer.short or not answer.frame else answer.frame

    def _airs(self) -> bool:
        """Let an exchange have its time; False when the card has left meanwhile."""
        return self._rf_delay_s == 0 or self._wait_s(self._rf_delay_s)


def _atr(history: bytes) -> bytes:
    """Section 3.1.3.2.3.1: TS, T0, TD1 80h, TD2 01h, historical bytes and the check byte TCK."""
    body = bytes([0x80 | len(history), 0x80, 0x01]) + history
    check = 0
    for byte in body:
        check ^= byte
    return b"\x3b" + body + bytes([check])

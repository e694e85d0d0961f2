"""Frames between host and PN532 (UM0701-02 rev. 02, clause 6.2.1): bytes in, frames out, and back.

Pure. What cannot be a frame is skipped, as the chip does: it answers nothing to a broken checksum
and leaves the repeat to the host (clause 6.2.2).
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

START: Final = b"\x00\xff"  # clause 6.2.1.1, start of packet code
ACK_FRAME: Final = bytes.fromhex("0000FF00FF00")  # clause 6.2.1.3
# Clause 6.2.1.5: the error frame holds the one byte 7Fh.
SYNTAX_ERROR: Final = b"\x7f"
HOST_TO_CHIP: Final = 0xD4  # frame identifier TFI
CHIP_TO_HOST: Final = 0xD5

NORMAL_MAX_BYTES: Final = 255  # TFI included; above it the extended form of clause 6.2.1.2 is used
EXTENDED_MAX_BYTES: Final = 265
_EXTENDED_MARK: Final = (0xFF, 0xFF)


class Control(Enum):
    """Frames without content."""

    ACK = auto()
    NACK = auto()


_CONTROLS: Final = {(0x00, 0xFF): Control.ACK, (0xFF, 0x00): Control.NACK}


def encode(payload: bytes) -> bytes:
    """Payload with its TFI (1 to 265 bytes) as a normal or, above 255 bytes, an extended frame."""
    if not 1 <= len(payload) <= EXTENDED_MAX_BYTES:
        raise ValueError(f"a frame carries 1 to {EXTENDED_MAX_BYTES} bytes")
    if len(payload) <= NORMAL_MAX_BYTES:
        head = bytes([len(payload), -len(payload) & 0xFF])
    else:
        length = len(payload).to_bytes(2, "big")
        head = bytes(_EXTENDED_MARK) + length + bytes([-sum(length) & 0xFF])
    return b"\x00" + START + head + payload + bytes([-sum(payload) & 0xFF, 0x00])


class FrameDecoder:
    """Finds frames in a stream of any bytes, cut anywhere. Holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def reset(self) -> None:
        self._buffer.clear()

    def feed(self, data: bytes) -> list[Control | bytes]:
        """Frames completed by `data`: a control, or a payload with its TFI."""
        self._buffer += data
        found: list[Control | bytes] = []
        while self._seek_start():
            outcome = self._parse()
            if outcome is None:
                break
            used_bytes, frame = outcome
            del self._buffer[:used_bytes]
            if frame is not None:
                found.append(frame)
        return found

    def _seek_start(self) -> bool:
        at = self._buffer.find(START)
        if at < 0:
            at = len(self._buffer) - self._buffer.endswith(START[:1])
            del self._buffer[:at]
            return False
        del self._buffer[:at]
        return True

    def _parse(self) -> tuple[int, Control | bytes | None] | None:
        """(bytes used, frame) at the buffer's start; no frame: skip; None: it needs more bytes."""
        buffer = self._buffer
        if len(buffer) < 4:
            return None
        code = (buffer[2], buffer[3])
        if code in _CONTROLS:
            return 4, _CONTROLS[code]
        if code != _EXTENDED_MARK:
            return self._parse_body(4, buffer[2], sum(code))
        if len(buffer) < 7:
            return None
        length = buffer[4] << 8 | buffer[5]
        return self._parse_body(7, length, sum(buffer[4:7]))

    def _parse_body(
        self, head_bytes: int, length: int, checksum: int
    ) -> tuple[int, Control | bytes | None] | None:
        if checksum & 0xFF or not 1 <= length <= EXTENDED_MAX_BYTES:
            return 1, None  # not a frame: look for the next start inside it
        end = head_bytes + length + 1
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[head_bytes:end])
        if sum(body) & 0xFF:
            return 1, None
        return end, body[:-1]

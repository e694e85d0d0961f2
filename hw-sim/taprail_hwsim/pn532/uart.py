"""The PN532's high-speed UART: line speed, noise when the two ends disagree, and waking up.

Pure: the host's line speed comes in with every call. Knows bytes, not frames.
"""

from __future__ import annotations

import random
from typing import Final

# UM0701-02 clause 7.2.8 (SetSerialBaudRate), table of BR values.
BAUD_RATES: Final = (9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600, 1288000)
RESET_BAUD: Final = 115200
BITS_PER_BYTE: Final = 10  # start, 8 data, stop
# UM0701-02 clause 7.2.11: out of power down by the fifth rising edge on the serial line, which is
# what the long preamble is for. After a reset the chip is in low-battery mode and needs the same
# (AN10609_3 clause 3).
WAKE_EDGES: Final = 5
_NOISE_STRETCH_MAX: Final = 8


class HostUart:
    """One direction-less serial port of the chip. `seed` decides what the noise looks like."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self.reset()

    def reset(self) -> None:
        """Power-on: 115200 baud and asleep until the line moves."""
        self.baud = RESET_BAUD
        self._next_baud: int | None = None
        self.sleep(wake_by_host=True)

    def sleep(self, *, wake_by_host: bool) -> None:
        self._asleep = True
        self._wake_by_host = wake_by_host
        self._edges_seen = 0

    @property
    def asleep(self) -> bool:
        return self._asleep

    def schedule_baud(self, baud: int) -> None:
        """Take a new speed as soon as the host has acknowledged the answer (clause 7.2.8)."""
        self._next_baud = baud

    def commit_baud(self) -> None:
        if self._next_baud is not None:
            self.baud, self._next_baud = self._next_baud, None

    def received(self, data: bytes, line_baud: int | None) -> bytes:
        """What the chip makes of bytes that the host sent at `line_baud` (None: an odd speed)."""
        if self._next_baud is not None and line_baud == self._next_baud:
            # The host has moved on. Its ACK came before that, or a close() flushed it off the line.
            self.commit_baud()
        if line_baud != self.baud:
            data = self._noise(len(data), line_baud or self.baud, self.baud)
        return self._woken(data) if self._asleep else data

    def transmitted(self, data: bytes, line_baud: int | None) -> bytes:
        """What the host makes of bytes that the chip sends at its own speed."""
        if line_baud == self.baud:
            return data
        return self._noise(len(data), self.baud, line_baud or self.baud)

    def byte_time_s(self, count: int) -> float:
        return count * BITS_PER_BYTE / self.baud

    def _noise(self, count: int, sent_baud: int, read_baud: int) -> bytes:
        stretch = min(read_baud / sent_baud, _NOISE_STRETCH_MAX)
        return self._random.randbytes(max(1, round(count * stretch))) if count else b""

    def _woken(self, data: bytes) -> bytes:
        for position, byte in enumerate(data):
            self._edges_seen += _rising_edges(byte)
            if self._wake_by_host and self._edges_seen >= WAKE_EDGES:
                self._asleep = False
                return data[position + 1 :]
        return b""


def _rising_edges(byte: int) -> int:
    """0-to-1 steps of one byte on the line: start bit 0, data low bit first, stop bit 1."""
    bits = 1 << 9 | byte << 1
    return (bits & ~(bits << 1) & 0x3FE).bit_count()

"""CRC_A of ISO/IEC 14443-3 annex B: reflected polynomial 8408h, preset 6363h, low byte first."""

from __future__ import annotations

CRC_BYTES = 2


def crc_a(data: bytes) -> bytes:
    """The two CRC bytes that follow `data` on the air."""
    crc = 0x6363
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x8408 if crc & 1 else 0)
    return crc.to_bytes(CRC_BYTES, "little")

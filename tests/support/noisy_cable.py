"""A null modem whose cable is bad: bits flip, bytes are lost, doubled and made up, and what is sent
comes in pieces of any size. All of it from one seed."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

from taprail_hwsim.null_modem import NullModem

_PIECE_BYTES = 256


class NoisyModem(NullModem):
    """Clear `noisy` for a good cable."""

    def __init__(self, near: Path, far: Path, seed: int) -> None:
        super().__init__(near, far)
        self.noisy = threading.Event()
        self.noisy.set()
        self._rng = random.Random(seed)

    def _carry(self, source: int, target: int, gate: threading.Event | None) -> None:
        while self._wait_for([source], []):
            if gate is not None:
                gate.wait()
            data = self._mangled(os.read(source, _PIECE_BYTES))
            while data and self._wait_for([], [target]):
                piece = data[: self._rng.randint(1, len(data))]
                data = data[os.write(target, piece) :]

    def _mangled(self, data: bytes) -> bytes:
        rng = self._rng
        if not data or not self.noisy.is_set() or rng.random() < 0.6:
            return data
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
            case 1:
                return data[:at] + data[at + rng.randint(1, 8) :]
            case 2:
                return data[:at] + rng.randbytes(rng.randint(1, 40)) + data[at:]
        return data[:at] + data[at:] + data[at:]

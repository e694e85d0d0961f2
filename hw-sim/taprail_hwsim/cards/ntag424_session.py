"""The card's side of EV2 secure messaging: how it is authenticated to, and what it then takes.

Written from NT4H2421Gx rev. 3.0 clauses 9.1.3 to 9.1.10, on pycryptodome: the product's own, which
talks to it, is written apart with another library.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from typing import Any, Final

from Crypto.Cipher import AES

from taprail_hwsim.cards.card_crypto import BLOCK_BYTES, cmac

MAC_BYTES: Final = 8
TI_BYTES: Final = 4
_TO_CARD, _FROM_CARD = b"\xa5\x5a", b"\x5a\xa5"  # labels of IV and session vectors
_TAIL: Final = bytes.fromhex("00010080")  # counter 1, length 128 (clause 9.1.7)
_CAPABILITIES: Final = bytes(12)  # PDcap2 and PCDcap2

# Clause 9.1.6 (failed authentication counters), with the values as delivered.
SEQUENCE_LIMIT: Final = 50
TOTAL_LIMIT: Final = 1000
TOTAL_DECREASE: Final = 10
LONGEST_DELAY_ANSWERS: Final = 10
"""How often the modelled card asks to wait. The real one counts time, which is not modelled."""


class IntegrityError(ValueError):
    """A MAC, a padding or a length that does not hold; ends the session."""


class Session:
    """What both sides share after an authentication."""

    def __init__(
        self, key: bytes, number: int, rnd_a: bytes, rnd_b: bytes, ti: bytes, counter: int = 0
    ) -> None:
        mixed = bytes(a ^ b for a, b in zip(rnd_a[2:8], rnd_b[:6], strict=True))
        context = rnd_a[:2] + mixed + rnd_b[6:] + rnd_a[8:]
        self._enc = cmac(key, _TO_CARD + _TAIL + context)
        self._mac = cmac(key, _FROM_CARD + _TAIL + context)
        self.number = number
        self.ti = ti
        self.counter = counter

    def check_mac(self, ins: int, payload: bytes) -> bytes:
        """A command's data without its MAC; IntegrityError when that does not hold."""
        body, mac = payload[:-MAC_BYTES], payload[-MAC_BYTES:]
        if len(payload) < MAC_BYTES or mac != self._tag(ins, body):
            raise IntegrityError
        return body

    def decrypt(self, data: bytes) -> bytes:
        """A command's encrypted data without its padding."""
        if not data or len(data) % BLOCK_BYTES:
            raise IntegrityError
        iv = self._iv(_TO_CARD)
        plain = bytes(AES.new(self._enc, AES.MODE_CBC, iv).decrypt(data))
        bare = plain.rstrip(b"\x00")
        if not bare.endswith(b"\x80"):
            raise IntegrityError
        return bare[:-1]

    def answer_plain(self, data: bytes) -> bytes:
        self.counter += 1
        return data

    def answer_maced(self, data: bytes) -> bytes:
        self.counter += 1
        return data + self._tag(0x00, data)

    def answer_full(self, data: bytes) -> bytes:
        self.counter += 1
        if data:
            data = padded(data)
            data = bytes(AES.new(self._enc, AES.MODE_CBC, self._iv(_FROM_CARD)).encrypt(data))
        return data + self._tag(0x00, data)

    def _tag(self, code: int, data: bytes) -> bytes:
        message = bytes([code]) + self.counter.to_bytes(2, "little") + self.ti + data
        return cmac(self._mac, message)[1::2]

    def _iv(self, label: bytes) -> bytes:
        block = label + self.ti + self.counter.to_bytes(2, "little") + bytes(8)
        return bytes(AES.new(self._enc, AES.MODE_ECB).encrypt(block))


@dataclass
class Challenge:
    """An authentication between its two commands; `ti` and `counter` go on in a non-first one."""

    number: int
    rnd_b: bytes
    inside: Session | None

    def command(self, key: bytes) -> bytes:
        return bytes(_cbc(key).encrypt(self.rnd_b))

    def finish(
        self, key: bytes, payload: bytes, chance: random.Random
    ) -> tuple[bytes, Session] | None:
        """The card's proof and the session; None when the other side has another key."""
        plain = _cbc(key).decrypt(payload)
        rnd_a, echoed = plain[:BLOCK_BYTES], plain[BLOCK_BYTES:]
        if echoed != _rotated(self.rnd_b):
            return None
        proof = _rotated(rnd_a)
        if self.inside is not None:
            old = self.inside
            session = Session(key, self.number, rnd_a, self.rnd_b, old.ti, old.counter)
            return bytes(_cbc(key).encrypt(proof)), session
        ti = chance.randbytes(TI_BYTES)
        session = Session(key, self.number, rnd_a, self.rnd_b, ti)
        return bytes(_cbc(key).encrypt(ti + proof + _CAPABILITIES)), session


@dataclass
class Failures:
    """One key's failed authentications."""

    in_a_row: int = 0
    total: int = 0
    delays_left: int = 0

    @property
    def is_blocked(self) -> bool:
        return self.total >= TOTAL_LIMIT

    def must_wait(self) -> bool:
        """Whether this try is answered by a delay, which it then counts for."""
        if self.delays_left == 0:
            return False
        self.delays_left -= 1
        return True

    def failed(self) -> None:
        self.in_a_row += 1
        self.total += 1
        if self.in_a_row >= SEQUENCE_LIMIT:
            self.delays_left = min(self.in_a_row - SEQUENCE_LIMIT + 1, LONGEST_DELAY_ANSWERS)

    def succeeded(self) -> None:
        self.in_a_row = 0
        self.total = max(0, self.total - TOTAL_DECREASE)


def crc32_nk(key: bytes) -> bytes:
    """CRC-32 over a new key without its final inversion, lowest byte first (clause 10.6.1)."""
    return (zlib.crc32(key) ^ 0xFFFFFFFF).to_bytes(4, "little")


def padded(data: bytes) -> bytes:
    """ISO/IEC 9797-1 padding method 2."""
    return data + b"\x80" + bytes(-(len(data) + 1) % BLOCK_BYTES)


def _cbc(key: bytes) -> Any:
    return AES.new(key, AES.MODE_CBC, bytes(BLOCK_BYTES))


def _rotated(block: bytes) -> bytes:
    return block[1:] + block[:1]

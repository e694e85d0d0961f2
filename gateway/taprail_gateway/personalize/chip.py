"""What an NTAG 424 DNA is told natively, and what its answers are worth.

Answers for one authenticated session: command frames in the three communication modes, the checks
of the answers, and the status words. What is done in which order is `session`'s.
Sources: NXP NT4H2421Gx rev. 3.0 sections 9.1 (AES secure messaging) and 10 (commands); NXP AN12196
sections 5.6 (AuthenticateEV2First) and 5.16 (ChangeKey), whose vectors the tests replay. The
simulator's cards do their side with another library, so a mistake here cannot hide there.
"""

from __future__ import annotations

import hmac
import zlib
from collections.abc import Callable, Generator
from typing import Final, TypeVar

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from taprail_common.errors import OperatorError

T = TypeVar("T")
Conversation = Generator[bytes, bytes, T]
"""Yields command APDUs, is sent the response APDUs with their status words."""
Randomness = Callable[[int], bytes]

KEY_BYTES: Final = 16
MAC_BYTES: Final = 8
UID_BYTES: Final = 7

# Command codes, section 10.2 table 22.
AUTHENTICATE_FIRST: Final = 0x71
CHANGE_KEY: Final = 0xC4
GET_KEY_VERSION: Final = 0x64
GET_CARD_UID: Final = 0x51
CHANGE_FILE_SETTINGS: Final = 0x5F
GET_FILE_SETTINGS: Final = 0xF5
WRITE_DATA: Final = 0x8D
_MORE_DATA: Final = 0xAF

# Status words, table 23.
DONE: Final = b"\x91\x00"
INTEGRITY: Final = b"\x91\x1e"
_MORE: Final = b"\x91\xaf"
_WAIT: Final = b"\x91\xad"
_AUTHENTICATION: Final = b"\x91\xae"
_MEANINGS: Final = {
    b"\x91\x1c": "it does not know the command",
    INTEGRITY: "what arrived was not what was sent",
    b"\x91\x40": "it has no such key",
    b"\x91\x7e": "wrong length",
    b"\x91\x9d": "it does not permit this",
    b"\x91\x9e": "it does not take these values",
    _WAIT: "it wants a pause after too many wrong keys",
    _AUTHENTICATION: "it does not accept the key",
    b"\x91\xbe": "outside of the file",
    b"\x91\xee": "its memory failed",
}

_MAX_WAITS: Final = 100
"""A card that was tried with wrong keys 50 times in a row answers "not yet" until its time is up
(section 9.1.6); each such answer takes its time by itself."""

# The parts of what section 9.1.7 calls SV: labels, counter 1 and length 128.
_SV_ENC: Final = bytes.fromhex("A55A00010080")
_SV_MAC: Final = bytes.fromhex("5AA500010080")
_IV_COMMAND, _IV_ANSWER = b"\xa5\x5a", b"\x5a\xa5"
_BLOCK: Final = 16


class CardError(OperatorError):
    """The card did not do what it was asked; it can be put down and tried again."""

    code = "card_refused"


def native(ins: int, data: bytes = b"") -> bytes:
    """A native command in its ISO 7816-4 frame (section 8.4)."""
    body = bytes([len(data)]) + data if data else b""
    return bytes([0x90, ins, 0, 0]) + body + b"\x00"


def refusal(what: str, answer: bytes) -> CardError:
    """The error for an answer that is not the one hoped for."""
    status = answer[-2:]
    meaning = _MEANINGS.get(status, "it gives no reason that is known here")
    return CardError(f"{what}: the card says {status.hex().upper() or 'nothing'}, {meaning}")


class Session:
    """One authenticated session, seen from the reader."""

    def __init__(self, enc_key: bytes, mac_key: bytes, transaction: bytes, counter: int = 0):
        self._enc_key = enc_key
        self._mac_key = mac_key
        self._transaction = transaction
        self._counter = counter

    def __repr__(self) -> str:
        return f"Session(counter={self._counter})"

    def plain(self, ins: int, data: bytes) -> bytes:
        """A command that needs no MAC; it is counted all the same."""
        return native(ins, data)

    def maced(self, ins: int, header: bytes = b"") -> bytes:
        """A command in CommMode.MAC."""
        return native(ins, header + self._mac(ins, header))

    def full(self, ins: int, header: bytes, data: bytes) -> bytes:
        """A command in CommMode.Full: its data encrypted, all of it under the MAC."""
        sealed = _encrypt(self._enc_key, self._iv(_IV_COMMAND), _padded(data))
        return native(ins, header + sealed + self._mac(ins, header + sealed))

    def accepted_plain(self, what: str, answer: bytes) -> None:
        """Note that a plain command was done; raises CardError."""
        if answer != DONE:
            raise refusal(what, answer)
        self._counter += 1

    def opened(self, what: str, answer: bytes) -> bytes:
        """The data of an answer under a MAC; raises CardError."""
        if not answer.endswith(DONE):
            raise refusal(what, answer)
        self._counter += 1
        data, mac = answer[: -MAC_BYTES - 2], answer[-MAC_BYTES - 2 : -2]
        if len(mac) != MAC_BYTES or not hmac.compare_digest(mac, self._mac(0x00, data)):
            raise CardError(f"{what}: the answer is not by the card that was authenticated")
        return data

    def decrypted(self, what: str, answer: bytes) -> bytes:
        """The data of an answer in CommMode.Full; raises CardError."""
        sealed = self.opened(what, answer)
        if not sealed or len(sealed) % _BLOCK:
            raise CardError(f"{what}: an answer of the wrong length")
        plain = _decrypt(self._enc_key, self._iv(_IV_ANSWER), sealed)
        return plain.rstrip(b"\x00").removesuffix(b"\x80")

    def _mac(self, code: int, data: bytes) -> bytes:
        counter = self._counter.to_bytes(2, "little")
        return cmac(self._mac_key, bytes([code]) + counter + self._transaction + data)[1::2]

    def _iv(self, label: bytes) -> bytes:
        block = label + self._transaction + self._counter.to_bytes(2, "little") + bytes(8)
        return _encrypt(self._enc_key, bytes(_BLOCK), block)


def authenticate(number: int, key: bytes, randomness: Randomness) -> Conversation[Session | None]:
    """AuthenticateEV2First: a session, or None when the card has another key there."""
    what = f"authenticating by key {number}"
    challenge = yield from _challenge(number, what)
    rnd_b = _decrypt(key, bytes(_BLOCK), challenge)
    rnd_a = randomness(_BLOCK)
    reply = _encrypt(key, bytes(_BLOCK), rnd_a + _rotated(rnd_b))
    answer = yield native(_MORE_DATA, reply)
    if answer == _AUTHENTICATION:
        return None
    if not answer.endswith(DONE) or len(answer) != 2 * _BLOCK + 2:
        raise refusal(what, answer)
    plain = _decrypt(key, bytes(_BLOCK), answer[:-2])
    transaction, proof = plain[:4], plain[4 : 4 + _BLOCK]
    if not hmac.compare_digest(proof, _rotated(rnd_a)):
        raise CardError(f"{what}: the card does not know the key itself")
    return session_of(key, rnd_a, rnd_b, transaction)


def session_of(key: bytes, rnd_a: bytes, rnd_b: bytes, transaction: bytes) -> Session:
    """The session that follows from both sides' random numbers (section 9.1.7)."""
    mixed = bytes(a ^ b for a, b in zip(rnd_a[2:8], rnd_b[:6], strict=True))
    context = rnd_a[:2] + mixed + rnd_b[6:] + rnd_a[8:]
    return Session(cmac(key, _SV_ENC + context), cmac(key, _SV_MAC + context), transaction)


def _challenge(number: int, what: str) -> Conversation[bytes]:
    answer = b""
    for _ in range(_MAX_WAITS):
        answer = yield native(AUTHENTICATE_FIRST, bytes([number, 0]))
        if answer != _WAIT:
            break
    if not answer.endswith(_MORE) or len(answer) != _BLOCK + 2:
        raise refusal(what, answer)
    return answer[:-2]


def new_key_data(number: int, new_key: bytes, version: int, old_key: bytes) -> bytes:
    """What ChangeKey carries (section 10.6.1), authenticated by key 0. The CRC tells the card
    whether we know its old key, so a wrong guess changes nothing."""
    if number == 0:
        return new_key + bytes([version])
    changed = bytes(a ^ b for a, b in zip(new_key, old_key, strict=True))
    # CRC-32 without its final inversion, lowest byte first (AN12196 section 5.16.1).
    crc = (zlib.crc32(new_key) ^ 0xFFFFFFFF).to_bytes(4, "little")
    return changed + bytes([version]) + crc


def cmac(key: bytes, message: bytes) -> bytes:
    """AES-CMAC, NIST SP 800-38B."""
    mac = CMAC(algorithms.AES(key))
    mac.update(message)
    return mac.finalize()


def _padded(data: bytes) -> bytes:
    """ISO/IEC 9797-1 padding method 2 (section 9.1.4)."""
    return data + b"\x80" + bytes(-(len(data) + 1) % _BLOCK)


def _rotated(block: bytes) -> bytes:
    return block[1:] + block[:1]


def _encrypt(key: bytes, iv: bytes, data: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def _decrypt(key: bytes, iv: bytes, data: bytes) -> bytes:
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    return decryptor.update(data) + decryptor.finalize()

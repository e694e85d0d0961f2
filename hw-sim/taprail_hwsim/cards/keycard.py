"""A Keycard with its Cash applet: it tells its public key to anybody and signs what it is given.

Written from the applet's own source (status-im/status-keycard 3.1, CashApplet.java, Crypto.java)
and https://keycard.tech/docs/sdk/cash. It signs by eth_keys' plain Python, which the product does
not use. There is no PIN and no display: whoever holds the card to a reader makes it sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from eth_keys.backends.native.main import NativeECCBackend
from eth_keys.datatypes import PrivateKey

from taprail_hwsim.cards.iso_dep import IsoDepCard
from taprail_hwsim.cards.type4 import (
    BY_NAME,
    NDEF_APPLICATION,
    NOT_FOUND,
    OK,
    SELECT,
    UNKNOWN_INS,
    WRONG_LENGTH,
    WRONG_P1_P2,
    Command,
)

CASH_APPLICATION: Final = bytes.fromhex("A00000080400010301")
SIGN: Final = 0xC0
DIGEST_BYTES: Final = 32
APPLICATION_VERSION: Final = bytes.fromhex("0301")
UNKNOWN_ERROR: Final = 0x6F00  # ISO 7816-4 table 6: what the applet answers to anything unforeseen

# KeycardApplet.java: tags of its answers.
INFO_TEMPLATE: Final = 0xA4
SIGNATURE_TEMPLATE: Final = 0xA0
PUBLIC_KEY: Final = 0x80
INTEGER: Final = 0x02
PUBLIC_DATA: Final = 0x82

ATQA: Final = 0x0048
SAK: Final = 0x20
# FSCI 8 (256 bytes), FWI 8 (77 ms), no NAD and no CID (ISO/IEC 14443-4 clause 5.2).
ATS: Final = bytes.fromhex("067880810080")

ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""n of secp256k1 (SEC 2 version 2.0 section 2.4.1)."""

_CURVE: Final = NativeECCBackend()


@dataclass(frozen=True)
class Quirks:
    """What a card may do otherwise: old applets, broken ones, and ones that mean ill."""

    high_s: bool = False
    """The higher of both possible s, as applets before `fixS` give it every other time."""
    padded: bool = False
    """Integers of 33 bytes always: `fixS` keeps the length of what it has made smaller."""
    select_status: int = OK
    sign_status: int = OK
    cut_bytes: int = 0
    """So many bytes are missing at the end of a signature's answer."""
    extra: bytes = b""
    """Comes after a signature's answer, inside its template."""
    mute: frozenset[str] = frozenset()
    """Commands that are never answered: SELECT, SIGN."""
    signs_other: bool = False
    """Signs another digest than it is given."""
    other_key: bytes | None = None
    """A public key that it shows, although it signs with its own."""


PLAIN: Final = Quirks()


class KeycardCash(IsoDepCard):
    """One card with one key (32 bytes). `digests` are all that it was ever made to sign."""

    kind = "keycard"

    def __init__(
        self, uid: bytes, secret: bytes, quirks: Quirks = PLAIN, *, wtx_per_apdu: int = 0
    ) -> None:
        super().__init__(uid, atqa=ATQA, sak=SAK, ats=ATS, wtx_per_apdu=wtx_per_apdu)
        self._key = PrivateKey(secret, backend=_CURVE)
        self.quirks = quirks
        self.digests: list[bytes] = []
        self._selected: bytes | None = None

    @property
    def public_key(self) -> bytes:
        """The point, uncompressed: 04 and both coordinates (SEC 1 section 2.3.3)."""
        return b"\x04" + bytes(self._key.public_key.to_bytes())

    @property
    def address(self) -> str:
        """The account that this card pays from, lower case."""
        return str(self._key.public_key.to_address())

    def forget_session(self) -> None:
        self._selected = None

    def apdu(self, command: bytes) -> tuple[str, bytes] | None:
        parsed = Command.parse(command)
        if parsed is None:
            return "malformed", _status(WRONG_LENGTH)
        name = {SELECT: "SELECT", SIGN: "SIGN"}.get(parsed.ins, f"INS {parsed.ins:02X}")
        if name in self.quirks.mute:
            return None
        if parsed.ins == SELECT and parsed.p1 == BY_NAME:
            return name, self._select(parsed.data)
        if self._selected != CASH_APPLICATION:
            return name, _status(WRONG_P1_P2 if self._selected else UNKNOWN_INS)
        return name, self._sign(parsed.data) if parsed.ins == SIGN else _status(UNKNOWN_INS)

    def _select(self, application: bytes) -> bytes:
        if application not in (CASH_APPLICATION, NDEF_APPLICATION):
            # A selected applet gets this command itself, and knows no such instruction.
            return _status(UNKNOWN_INS if self._selected else NOT_FOUND)
        self._selected = application
        if application == NDEF_APPLICATION:
            return _status(OK)
        if self.quirks.select_status != OK:
            return _status(self.quirks.select_status)
        info = _tlv(PUBLIC_KEY, self.quirks.other_key or self.public_key)
        info += _tlv(INTEGER, APPLICATION_VERSION) + _tlv(PUBLIC_DATA, b"")
        return _tlv(INFO_TEMPLATE, info) + _status(OK)

    def _sign(self, digest: bytes) -> bytes:
        if len(digest) != DIGEST_BYTES:
            return _status(UNKNOWN_ERROR)
        if self.quirks.sign_status != OK:
            return _status(self.quirks.sign_status)
        self.digests.append(digest)
        if self.quirks.signs_other:
            digest = digest[::-1]
        signature = _CURVE.ecdsa_sign(digest, self._key)
        s = ORDER - signature.s if self.quirks.high_s else signature.s
        der = _der(signature.r, s, padded=self.quirks.padded)
        body = _tlv(PUBLIC_KEY, self.public_key) + der + self.quirks.extra
        # The applet writes the long form of the length whatever it is (BER, ISO 7816-4 5.2.2.2).
        answer = bytes([SIGNATURE_TEMPLATE, 0x81, len(body)]) + body
        return answer[: len(answer) - self.quirks.cut_bytes] + _status(OK)


def _der(r: int, s: int, *, padded: bool) -> bytes:
    """SEQUENCE of two INTEGERs (RFC 3279 section 2.2.3)."""
    parts = b"".join(_integer(number, padded=padded) for number in (r, s))
    return b"\x30" + bytes([len(parts)]) + parts


def _integer(number: int, *, padded: bool) -> bytes:
    size = 33 if padded else number.bit_length() // 8 + 1
    return _tlv(0x02, number.to_bytes(size, "big"))


def _tlv(tag: int, value: bytes) -> bytes:
    return bytes([tag, len(value)]) + value


def _status(word: int) -> bytes:
    return word.to_bytes(2, "big")

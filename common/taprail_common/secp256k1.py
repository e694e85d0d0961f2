"""What a signing card answers: its public key, and ECDSA signatures over secp256k1 as DER.

Answers for reading them strictly and bounded, for the one form that a token takes (the lower s),
and for checking a signature against a key. Which of two points made it (the recovery id) is found
by the gateway, which has the library for it. The one that checks here takes 7 MB, and is loaded
when the first signing card comes: most terminals never see one.
Sources: RFC 3279 section 2.2.3 (Ecdsa-Sig-Value), ITU-T X.690 sections 8.1.3 and 8.3 (lengths and
integers), SEC 1 version 2.0 sections 2.3.3 and 4.1, SEC 2 version 2.0 section 2.4.1, EIP-2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from taprail_common.errors import InputError, SignatureError
from taprail_common.hashing import keccak256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

ORDER: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
"""n, the number of points that the generator makes."""
PUBLIC_KEY_BYTES: Final = 65
COMPACT_BYTES: Final = 64
"""r and s, 32 bytes each."""

_UNCOMPRESSED: Final = 0x04
_SEQUENCE, _INTEGER = 0x30, 0x02
_NUMBER_BYTES: Final = 32
_INTEGER_BYTES: Final = _NUMBER_BYTES + 1  # a zero goes before a number whose top bit is set
_SHORTEST_DER: Final = 8  # two integers of one byte each
MAX_DER_BYTES: Final = 2 + 2 * (2 + _INTEGER_BYTES)


@dataclass(frozen=True, slots=True)
class CardSignature:
    """r and s of an ECDSA signature; s is the lower of the two that are equally true."""

    r: int
    s: int

    def __post_init__(self) -> None:
        if not (0 < self.r < ORDER and 0 < self.s <= ORDER // 2):
            raise InputError("signature", "its numbers are out of range")

    @classmethod
    def from_der(cls, der: bytes) -> Self:
        """Read a card's DER and normalise s; raises InputError for anything else.

        A zero too many before an integer is let pass, as Keycards keep one when they have made s
        smaller; it can change nothing, since only the numbers are used on.
        """
        if not _SHORTEST_DER <= len(der) <= MAX_DER_BYTES:
            raise InputError("signature", "has not the length of a DER signature")
        if der[0] != _SEQUENCE or der[1] != len(der) - 2:
            raise InputError("signature", "is not one DER sequence")
        r, rest = _integer(der[2:])
        s, rest = _integer(rest)
        if rest:
            raise InputError("signature", "has bytes after its two integers")
        return cls(r, min(s, ORDER - s))

    @classmethod
    def from_compact(cls, compact: bytes) -> Self:
        """Read r and s of 32 bytes each; InputError when they are no signature with the lower s."""
        if len(compact) != COMPACT_BYTES:
            raise InputError("signature", f"must be {COMPACT_BYTES} bytes")
        return cls(
            int.from_bytes(compact[:_NUMBER_BYTES], "big"),
            int.from_bytes(compact[_NUMBER_BYTES:], "big"),
        )

    def compact(self) -> bytes:
        """r and s of 32 bytes each."""
        return self.r.to_bytes(_NUMBER_BYTES, "big") + self.s.to_bytes(_NUMBER_BYTES, "big")


def _integer(data: bytes) -> tuple[int, bytes]:
    """The non-negative INTEGER at the beginning, and what follows it."""
    length = data[1] if len(data) > 1 and data[0] == _INTEGER else 0
    content = data[2 : 2 + length]
    if not 1 <= length <= _INTEGER_BYTES or len(content) != length:
        raise InputError("signature", "does not hold two integers of at most 33 bytes")
    if content[0] & 0x80:
        raise InputError("signature", "holds a negative integer")
    return int.from_bytes(content, "big"), data[2 + length :]


@dataclass(frozen=True, slots=True)
class CardKey:
    """A card's public key: 04 and both coordinates of a point on the curve."""

    point: bytes

    def __post_init__(self) -> None:
        if len(self.point) != PUBLIC_KEY_BYTES or self.point[0] != _UNCOMPRESSED:
            raise InputError("publicKey", "is not an uncompressed point of 65 bytes")
        self._loaded()

    def __repr__(self) -> str:
        return "CardKey(…)"

    @property
    def address(self) -> str:
        """The account of this key: lower-case 0x and the last 20 bytes of keccak(x ‖ y)."""
        return "0x" + keccak256(self.point[1:])[-20:].hex()

    def check(self, digest: bytes, signature: CardSignature) -> None:
        """Raise SignatureError unless this key signed these 32 bytes."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec, utils
        from cryptography.hazmat.primitives.hashes import SHA256

        prehashed = ec.ECDSA(utils.Prehashed(SHA256()))  # any hash of 32 bytes; this names none
        der = utils.encode_dss_signature(signature.r, signature.s)
        try:
            self._loaded().verify(der, digest, prehashed)
        except InvalidSignature:
            raise SignatureError("the signature is not by the card's own key") from None

    def _loaded(self) -> ec.EllipticCurvePublicKey:
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), self.point)
        except ValueError:
            raise InputError("publicKey", "is not a point of secp256k1") from None

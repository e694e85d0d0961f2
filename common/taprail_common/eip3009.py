"""EIP-3009 `transferWithAuthorization` and its EIP-712 digest, packed by hand.

Both ends compute the digest: whoever signs it, and whoever checks it. Every field is a 32-byte
word, so packing by hand is a join, ten times faster than a general encoder; the tests compare it
with eth_account on published and random cases.
Sources: EIP-712 "Definition of hashStruct", EIP-3009 "Specification".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from taprail_common.errors import InputError
from taprail_common.hashing import keccak256

DOMAIN_TYPEHASH: Final = keccak256(
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
TRANSFER_TYPEHASH: Final = keccak256(
    b"TransferWithAuthorization(address from,address to,uint256 value,"
    b"uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)


@dataclass(frozen=True, slots=True)
class TransferAuthorization:
    """What the payer signs: exactly this transfer, once, within these bounds.

    Addresses are 0x and 40 hex digits in any case, `nonce` is 32 bytes, times are Unix seconds and
    both bounds are strict: the token accepts only validAfter < block time < validBefore.
    """

    payer: str
    payee: str
    amount_units: int
    valid_after_s: int
    valid_before_s: int
    nonce: bytes

    def words(self) -> bytes:
        """The six fields as 32-byte words, as both the struct hash and the call data want them."""
        return b"".join(
            (
                address_word(self.payer),
                address_word(self.payee),
                uint_word(self.amount_units),
                uint_word(self.valid_after_s),
                uint_word(self.valid_before_s),
                self.nonce,
            )
        )

    def digest(self, domain_separator: bytes) -> bytes:
        """The 32 bytes that the payer's key signs under the token's domain."""
        struct_hash = keccak256(TRANSFER_TYPEHASH + self.words())
        return keccak256(b"\x19\x01" + domain_separator + struct_hash)


@dataclass(frozen=True, slots=True)
class TokenDomain:
    """What a token's signatures are for: this contract, on this chain, under this name."""

    name: str
    version: str
    chain_id: int
    address: str

    @property
    def separator(self) -> bytes:
        """EIP-712's domain separator."""
        return domain_separator(self.name, self.version, self.chain_id, self.address)


def domain_separator(name: str, version: str, chain_id: int, token: str) -> bytes:
    """EIP-712 domain separator of a token; must equal its `DOMAIN_SEPARATOR()`."""
    return keccak256(
        DOMAIN_TYPEHASH
        + keccak256(name.encode())
        + keccak256(version.encode())
        + uint_word(chain_id)
        + address_word(token)
    )


def address_word(address: str) -> bytes:
    """An address as a 32-byte word; raises InputError when it is none."""
    try:
        raw = bytes.fromhex(address.removeprefix("0x"))
    except ValueError:
        raw = b""
    if len(raw) != 20:
        raise InputError("address", f"{address[:50]!r} is not 0x and 40 hex digits")
    return raw.rjust(32, b"\0")


def uint_word(value: int) -> bytes:
    """An unsigned integer as a 32-byte word, big-endian."""
    return value.to_bytes(32, "big")

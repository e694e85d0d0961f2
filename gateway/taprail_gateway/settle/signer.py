"""Signatures of secp256k1: a payer's authorization and a lane's transaction. Pure, no I/O.

RLP and coincurve by hand sign ten times as many transactions per second as a general wallet
library; the tests compare every byte with eth_account. Keys come in as arguments and stay there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self, TypeAlias

import rlp
from coincurve import PrivateKey

from taprail_common.eip3009 import TransferAuthorization
from taprail_common.hashing import keccak256
from taprail_gateway.settle.fees import Fees

_DYNAMIC_FEE_TYPE: Final = b"\x02"  # EIP-1559: TransactionType 2
_FIELDS: Final = 12  # EIP-1559: nine of the call and its fees, three of the signature
RlpItem: TypeAlias = "int | bytes | Sequence[RlpItem]"
_LOWEST_V: Final = 27  # Ethereum yellow paper, appendix F; tokens accept 27 or 28 only


class Signature(NamedTuple):
    """An ECDSA signature; `parity` (0 or 1) is that of the point's y. s is the lower of the two."""

    parity: int
    r: int
    s: int

    @classmethod
    def from_bytes(cls, signature: bytes) -> Self:
        """Read r, s and v, as a signature is kept: 65 bytes."""
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
        return cls(signature[64] - _LOWEST_V, r, s)

    @property
    def v(self) -> int:
        """27 or 28, as `ecrecover` wants it."""
        return _LOWEST_V + self.parity


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """A transaction ready to be stored, then sent: its hash (0x hex) and its bytes."""

    tx_hash: str
    raw: bytes


def sign_digest(key: PrivateKey, digest: bytes) -> Signature:
    """Sign 32 bytes: deterministic (RFC 6979), with the lower of both possible s (EIP-2)."""
    compact = key.sign_recoverable(digest, hasher=None)
    return Signature(
        parity=compact[64],
        r=int.from_bytes(compact[:32], "big"),
        s=int.from_bytes(compact[32:64], "big"),
    )


def sign_authorization(
    key: PrivateKey, authorization: TransferAuthorization, domain_separator: bytes
) -> Signature:
    """The payer's signature under exactly this transfer of exactly this token."""
    return sign_digest(key, authorization.digest(domain_separator))


def sign_transaction(
    key: PrivateKey, *, chain_id: int, nonce: int, fees: Fees, gas: int, to: str, data: bytes
) -> SignedTransaction:
    """A signed EIP-1559 transaction that calls a contract and carries no coin."""
    fields: list[RlpItem] = [
        chain_id,
        nonce,
        fees.priority_fee_wei,
        fees.max_fee_wei,
        gas,
        bytes.fromhex(to.removeprefix("0x")),
        0,  # value
        data,
        [],  # access list
    ]
    signature = sign_digest(key, keccak256(_DYNAMIC_FEE_TYPE + rlp_encode(fields)))
    raw = _DYNAMIC_FEE_TYPE + rlp_encode([*fields, *signature])
    return SignedTransaction(tx_hash="0x" + keccak256(raw).hex(), raw=raw)


NOOP_GAS: Final = 21_000
"""What a transfer of nothing takes (yellow paper, appendix G: G_transaction)."""


def with_other_fees(key: PrivateKey, raw: bytes, fees: Fees) -> SignedTransaction:
    """The same call under the same nonce for another price; ValueError for bytes not ours."""
    chain_id, nonce, gas, to, data = _read(raw)
    return sign_transaction(
        key, chain_id=chain_id, nonce=nonce, fees=fees, gas=gas, to=to, data=data
    )


def noop_instead(key: PrivateKey, raw: bytes, fees: Fees, lane: str) -> SignedTransaction:
    """A transfer of nothing from a lane to itself, under the nonce of the transaction given."""
    chain_id, nonce, _gas, _to, _data = _read(raw)
    return sign_transaction(
        key, chain_id=chain_id, nonce=nonce, fees=fees, gas=NOOP_GAS, to=lane, data=b""
    )


def _read(raw: bytes) -> tuple[int, int, int, str, bytes]:
    """Chain id, nonce, gas, contract and data of a transaction that `sign_transaction` has made."""
    fields = rlp.decode(raw[1:]) if raw[:1] == _DYNAMIC_FEE_TYPE else []
    if len(fields) != _FIELDS:
        raise ValueError("not a transaction of this gateway")
    chain_id, nonce, _tip, _max_fee, gas, to, _value, data = fields[:8]
    numbers = [int.from_bytes(item, "big") for item in (chain_id, nonce, gas)]
    return numbers[0], numbers[1], numbers[2], "0x" + to.hex(), data


def rlp_encode(item: RlpItem) -> bytes:
    """Recursive length prefix (yellow paper, appendix B): bytes, unsigned integers and lists."""
    if isinstance(item, int):
        return rlp_encode(item.to_bytes((item.bit_length() + 7) // 8, "big"))
    if isinstance(item, bytes):
        alone = len(item) == 1 and item[0] < 0x80
        return item if alone else _rlp_prefix(len(item), 0x80) + item
    body = b"".join(rlp_encode(part) for part in item)
    return _rlp_prefix(len(body), 0xC0) + body


def _rlp_prefix(length: int, offset: int) -> bytes:
    if length <= 55:
        return bytes([offset + length])
    digits = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([offset + 55 + len(digits)]) + digits

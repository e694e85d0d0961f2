"""Reads signed bytes by libraries that the gateway does not use for it: rlp, eth_abi, eth_keys.

What the model believes of a transaction or an authorization comes from here alone, so that a
mistake in the gateway's own packing or signing is seen and not repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

import rlp
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException

_TYPE_2: Final = 0x02  # EIP-2718 number of EIP-1559's transactions
_FIELDS: Final = 12
_REMEMBERED: Final = 20_000


def selector(signature: str) -> bytes:
    """The first four bytes of a call."""
    return keccak(text=signature)[:4]


def topic(signature: str) -> str:
    """The first topic of an event."""
    return "0x" + keccak(text=signature).hex()


TRANSFER_WITH_AUTHORIZATION: Final = selector(
    "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)"
)
AGGREGATE3: Final = selector("aggregate3((address,bool,bytes)[])")
AUTHORIZATION_TYPES: Final = (
    *("address", "address", "uint256", "uint256", "uint256", "bytes32"),
    *("uint8", "bytes32", "bytes32"),
)
_TYPEHASH: Final = keccak(
    text="TransferWithAuthorization(address from,address to,uint256 value,"
    "uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)


class NoTransactionError(ValueError):
    """These bytes are no signed transaction."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """An EIP-1559 transaction as its bytes say; addresses and hash in lower-case 0x hex."""

    tx_hash: str
    sender: str
    chain_id: int
    nonce: int
    priority_fee_wei: int
    max_fee_wei: int
    gas: int
    to: str
    value_wei: int
    data: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Authorization:
    """A signed EIP-3009 transfer as it stands in a call."""

    payer: str
    payee: str
    amount_units: int
    valid_after_s: int
    valid_before_s: int
    nonce: str
    v: int
    r: bytes
    s: bytes


@lru_cache(_REMEMBERED)
def transaction(raw: bytes) -> Transaction:
    """Decode a raw transaction; NoTransactionError when it is none."""
    try:
        if raw[0] != _TYPE_2:
            raise NoTransactionError(f"type {raw[0]}")
        fields = cast("list[Any]", rlp.decode(raw[1:]))
        if len(fields) != _FIELDS:
            raise NoTransactionError(f"{len(fields)} fields")
        chain_id, nonce, priority_fee_wei, max_fee_wei, gas = (
            int.from_bytes(field, "big") for field in fields[:5]
        )
        parity, r, s = (int.from_bytes(field, "big") for field in fields[9:])
        signed = keccak(bytes([_TYPE_2]) + rlp.encode(fields[:9]))
        sender = _signer(signed, parity, r, s)
    except (RLPException, ValidationError, IndexError, TypeError) as exc:
        raise NoTransactionError(str(exc)) from exc
    return Transaction(
        tx_hash="0x" + keccak(raw).hex(),
        sender=sender or "",
        chain_id=chain_id,
        nonce=nonce,
        priority_fee_wei=priority_fee_wei,
        max_fee_wei=max_fee_wei,
        gas=gas,
        to="0x" + fields[5].hex(),
        value_wei=int.from_bytes(fields[6], "big"),
        data=fields[7],
        raw=raw,
    )


def calls(data: bytes) -> list[tuple[str, bool, bytes]]:
    """The (contract, may fail, call data) of an `aggregate3`."""
    (rows,) = decode(["(address,bool,bytes)[]"], data[4:])
    return [(to.lower(), may_fail, inner) for to, may_fail, inner in rows]


def authorization(data: bytes) -> Authorization | None:
    """The authorization that a call carries out, if it is one."""
    if data[:4] != TRANSFER_WITH_AUTHORIZATION:
        return None
    try:
        fields = decode(AUTHORIZATION_TYPES, data[4:])
    except DecodingError:
        return None
    payer, payee, amount, after, before, nonce, v, r, s = fields
    return Authorization(
        payer.lower(), payee.lower(), amount, after, before, "0x" + nonce.hex(), v, r, s
    )


@lru_cache(_REMEMBERED)
def authorizations(data: bytes) -> tuple[Authorization, ...]:
    """All authorizations in a transaction's data, through Multicall3 or not."""
    return tuple(_authorizations(data))


def _authorizations(data: bytes) -> Iterator[Authorization]:
    inner = [call for _, _, call in calls(data)] if data[:4] == AGGREGATE3 else [data]
    for call in inner:
        found = authorization(call)
        if found is not None:
            yield found


@lru_cache(_REMEMBERED)
def is_signed_by_payer(it: Authorization, domain_separator: bytes) -> bool:
    """Whether the token would accept the signature (EIP-712, EIP-3009)."""
    struct = encode(
        ["bytes32", "address", "address", "uint256", "uint256", "uint256", "bytes32"],
        [
            *(_TYPEHASH, it.payer, it.payee, it.amount_units),
            *(it.valid_after_s, it.valid_before_s, bytes.fromhex(it.nonce[2:])),
        ],
    )
    digest = keccak(b"\x19\x01" + domain_separator + keccak(struct))
    return _signer(digest, it.v - 27, int.from_bytes(it.r, "big"), int.from_bytes(it.s, "big")) == (
        it.payer
    )


def _signer(digest: bytes, parity: int, r: int, s: int) -> str | None:
    try:
        key = Signature(vrs=(parity, r, s)).recover_public_key_from_msg_hash(digest)
    except (BadSignature, ValidationError):
        return None
    return str(key.to_address())

"""A node's JSON as typed facts: checked when read, so that a broken answer is an error here.

A node may be old, overloaded, or lie. Whatever does not have exactly the form that the Ethereum
JSON-RPC specification (execution-apis) gives it raises ChainError and never becomes a fact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from taprail_gateway.settle.errors import ChainError

_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,64}", re.ASCII)
_HASH: Final = re.compile(r"0x[0-9a-fA-F]{64}", re.ASCII)
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
_DATA: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Block:
    """A block's header, as far as settlement needs it."""

    number: int
    block_hash: str
    time_s: int
    base_fee_wei: int
    gas_limit: int
    parent_hash: str = ""
    """Of the block before it; empty where the node leaves it out."""


@dataclass(frozen=True, slots=True)
class Log:
    """One event of a contract; address and hashes in lower case."""

    address: str
    topics: tuple[str, ...]
    data: str
    block_number: int
    block_hash: str
    tx_hash: str
    index: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a mined transaction."""

    tx_hash: str
    block_number: int
    block_hash: str
    succeeded: bool
    logs: tuple[Log, ...]


def quantity(value: object) -> int:
    """A number in 0x hex."""
    return int(_matching(_QUANTITY, value, "a number"), 16)


def hash_text(value: object) -> str:
    """A 32-byte hash."""
    return _matching(_HASH, value, "a hash")


def data_bytes(value: object) -> bytes:
    """Bytes in 0x hex."""
    return bytes.fromhex(_matching(_DATA, value, "data")[2:])


def block(value: object) -> Block:
    """A block with the base fee that EIP-1559 brought, without which no fee can be chosen."""
    fields = _object(value, "a block")
    return Block(
        number=quantity(fields.get("number")),
        block_hash=hash_text(fields.get("hash")),
        time_s=quantity(fields.get("timestamp")),
        base_fee_wei=quantity(fields.get("baseFeePerGas")),
        gas_limit=quantity(fields.get("gasLimit")),
        parent_hash=hash_text(fields["parentHash"]) if "parentHash" in fields else "",
    )


def receipt(value: object, tx_hash: str) -> Receipt | None:
    """The receipt of exactly this transaction; None when the node knows of none."""
    if value is None:
        return None
    fields = _object(value, "a receipt")
    if hash_text(fields.get("transactionHash")) != tx_hash:
        raise ChainError("the node gave the receipt of another transaction")
    found = Receipt(
        tx_hash=tx_hash,
        block_number=quantity(fields.get("blockNumber")),
        block_hash=hash_text(fields.get("blockHash")),
        succeeded=quantity(fields.get("status")) == 1,
        logs=logs(fields.get("logs")),
    )
    _check(found)
    return found


def _check(found: Receipt) -> None:
    """What does not fit together was made up, or put together from two branches."""
    if found.logs and not found.succeeded:
        raise ChainError("the node gave logs of a transaction that it says has failed")
    here = (found.tx_hash, found.block_number, found.block_hash)
    if any((log.tx_hash, log.block_number, log.block_hash) != here for log in found.logs):
        raise ChainError("the node gave a receipt with the logs of another transaction or block")


def logs(value: object) -> tuple[Log, ...]:
    """A list of logs, in the order given."""
    return tuple(_log(item) for item in _list(value, "a list of logs"))


def _log(value: object) -> Log:
    fields = _object(value, "a log")
    if fields.get("removed") is True:
        raise ChainError("the node gave a log of a block that is gone")
    topics = _list(fields.get("topics"), "a list of topics")
    return Log(
        address=_matching(_ADDRESS, fields.get("address"), "an address"),
        topics=tuple(hash_text(topic) for topic in topics),
        data=_matching(_DATA, fields.get("data"), "data"),
        block_number=quantity(fields.get("blockNumber")),
        block_hash=hash_text(fields.get("blockHash")),
        tx_hash=hash_text(fields.get("transactionHash")),
        index=quantity(fields.get("logIndex")),
    )


def _matching(pattern: re.Pattern[str], value: object, what: str) -> str:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise ChainError(f"the node gave something else than {what}")
    return value.lower()


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ChainError(f"the node gave something else than {what}")
    return value


def _list(value: object, what: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise ChainError(f"the node gave something else than {what}")
    return value

"""What a ledger is for: one chain, one token, one gateway key, noted in it for good.

A ledger that is opened with another token would take one currency's balances for another's, and
terminals that are paired with a key trust no other, unless that one has named it as its successor.
So a mismatch is refused at start.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import Connection, insert, update

from taprail_common.errors import OperatorError
from taprail_gateway import verdict_keys
from taprail_gateway.ledger import queries, schema

_WORDS: Final = {
    "chain_id": "chain id",
    "token": "token",
    "currency": "currency",
    "decimals": "number of decimals",
    "gateway_key": "gateway key",
}


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """`token` is its address, `currency` its symbol, `gateway_key` the public key's fingerprint."""

    chain_id: int
    token: str
    currency: str
    decimals: int
    gateway_key: str


def claim(connection: Connection, facts: LedgerFacts) -> None:
    """Note the facts in a new ledger; raise OperatorError when an old one says otherwise."""
    stored = queries.facts(connection)
    for name, value in asdict(facts).items():
        text = str(value)
        before = stored.get(name, text)
        if name == "gateway_key" and verdict_keys.has_followed(connection, before, text):
            _change(connection, name, text)
        elif before != text:
            raise OperatorError(
                f"this ledger belongs to {_WORDS[name]} {stored[name]}, not {text}",
                fix="use its own configuration and keys, or another database",
            )
        if name not in stored:
            connection.execute(insert(schema.meta).values(key=name, value=text))


def _change(connection: Connection, name: str, text: str) -> None:
    meta = schema.meta
    connection.execute(update(meta).where(meta.c.key == name).values(value=text))


def known(connection: Connection) -> LedgerFacts | None:
    """The facts of a ledger; None before it was first claimed."""
    stored = queries.facts(connection)
    if not _WORDS.keys() <= stored.keys():
        return None
    return LedgerFacts(
        int(stored["chain_id"]),
        stored["token"],
        stored["currency"],
        int(stored["decimals"]),
        stored["gateway_key"],
    )

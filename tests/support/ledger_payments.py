"""Payments taken through their states by the ledger's own steps, without a chain."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection, select

from taprail_gateway.ledger import schema, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.transitions import Attempt, Confirmed
from tests.support.ledger_fixtures import DAY, LANE, NOW_MS, Registry, lease_of

AMOUNT_UNITS = 30
BLOCK = 7
BLOCK_HASH = "0x" + "cc" * 32
VALID_BEFORE_S = 600

_numbers = itertools.count(1)


def accepted(
    ledger: Ledger,
    registry: Registry,
    count: int = 1,
    *,
    priority: int = 5,
    amount: int = AMOUNT_UNITS,
) -> list[str]:
    """Pending payments of the first card, with their holds and their spend."""
    requests = [f"request_{next(_numbers)}" for _ in range(count)]
    rows = [
        {**registry.payment(each, amount_units=amount), "priority": priority} for each in requests
    ]
    card = registry.cards[0]

    def work(connection: Connection) -> None:
        for _ in rows:
            assert transitions.reserve_spend(connection, card.uuid, DAY, amount, 10**12)
            assert transitions.hold(connection, card.account, amount)
        transitions.accept(connection, rows, NOW_MS)

    ledger.write_now(work)
    return [str(row["id"]) for row in rows]


def bound(ledger: Ledger, payment_ids: Sequence[str]) -> int:
    """Bind payments to the lane's next nonce; the transaction's row."""

    def work(connection: Connection) -> int:
        lanes = schema.lanes.c
        nonce = connection.execute(select(lanes.next_nonce).where(lanes.address == LANE))
        return transitions.bind(
            connection,
            lease_of(connection),
            nonce=nonce.scalar_one(),
            payment_ids=payment_ids,
            attempt=Attempt(f"0x{next(_numbers):064x}", b"signed", 100_000, 2 * 10**9, 10**9),
            valid_before_s=VALID_BEFORE_S,
            at_ms=NOW_MS,
        )

    return ledger.write_now(work)


def confirm(
    connection: Connection, registry: Registry, payment_ids: Sequence[str], at_ms: int = NOW_MS
) -> None:
    """Complete payments, as the confirm loop does."""
    places = [Confirmed(each, "0x" + "aa" * 32, BLOCK, BLOCK_HASH) for each in payment_ids]
    balances = {registry.cards[0].account: 10**9}
    transitions.complete(connection, places, balances, BLOCK, at_ms)


def completed(
    ledger: Ledger, registry: Registry, count: int = 1, *, amount: int = AMOUNT_UNITS
) -> list[str]:
    """Payments that have gone all the way."""
    ids = accepted(ledger, registry, count, amount=amount)
    bound(ledger, ids)
    ledger.write_now(partial(confirm, registry=registry, payment_ids=ids))
    return ids

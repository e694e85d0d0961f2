"""What the confirm loop asks of the ledger, lane by lane.

Each query goes through an index of what is open and has a bound, so that a pass costs what there is
to do in it, neither what is in flight nor what has been.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, exists, func, or_, select

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger.queries import BoundPayment, OpenTransaction, columns_of, shaped
from taprail_gateway.ledger.schema import (
    attempts,
    bindings,
    chain_transactions,
    payment_is_open,
    payment_is_refused,
    payments,
    transaction_is_open,
)

_p = payments.c
_t = chain_transactions.c
_a = attempts.c


@dataclass(frozen=True, slots=True)
class Version:
    """A signed version of a transaction, without its bytes."""

    tx_hash: str
    chain_transaction_id: int
    kind: str


def open_transactions_between(
    connection: Connection, lane: str, first_nonce: int, end_nonce: int, limit: int
) -> list[OpenTransaction]:
    """A lane's transactions that are not final, with nonces in [first, end), in their order."""
    statement = (
        select(*columns_of(OpenTransaction, chain_transactions))
        .where(_t.lane == lane, transaction_is_open, _t.nonce >= first_nonce, _t.nonce < end_nonce)
        .order_by(_t.nonce)
        .limit(limit)
    )
    return shaped(connection, OpenTransaction, statement)


def is_any_open(connection: Connection, lanes: Collection[str]) -> bool:
    """Whether a transaction of these lanes waits for its block."""
    wanted = select(_t.id).where(_t.lane.in_(lanes), transaction_is_open).limit(1)
    return connection.execute(wanted).first() is not None


def unsettled(
    connection: Connection, chain_transaction_ids: Sequence[int]
) -> dict[int, list[BoundPayment]]:
    """The payments in these transactions whose money is still held; an entry for each of them."""
    statement = select(*columns_of(BoundPayment, payments)).where(
        _p.chain_transaction_id.in_(chain_transaction_ids), payment_is_open
    )
    found: dict[int, list[BoundPayment]] = {each: [] for each in chain_transaction_ids}
    for payment in shaped(connection, BoundPayment, statement):
        found[payment.chain_transaction_id or 0].append(payment)
    return found


def versions(
    connection: Connection, chain_transaction_ids: Sequence[int]
) -> dict[int, list[Version]]:
    """Every version ever signed of these transactions; an entry for each of them."""
    statement = select(*columns_of(Version, attempts)).where(
        _a.chain_transaction_id.in_(chain_transaction_ids)
    )
    found: dict[int, list[Version]] = {each: [] for each in chain_transaction_ids}
    for version in shaped(connection, Version, statement):
        found[version.chain_transaction_id].append(version)
    return found


def times_left_out(connection: Connection, payment_ids: Sequence[str]) -> dict[str, int]:
    """How many transactions each payment was in that became final without it; absent: none.

    One that had to be replaced by a no-op does not count: it never had its chance.
    """
    b = bindings.c
    was_replaced = exists().where(_a.chain_transaction_id == _t.id, _a.kind == "noop")
    statement = (
        select(b.payment_id, func.count())
        .join(chain_transactions, _t.id == b.chain_transaction_id)
        .where(b.payment_id.in_(payment_ids), _t.status == "final", ~was_replaced)
        .group_by(b.payment_id)
    )
    return {str(row[0]): int(row[1]) for row in connection.execute(statement)}


def given_up(
    connection: Connection, lane: str, *, signed_until_s: int, offset: int, limit: int
) -> list[BoundPayment]:
    """Payments on the list for review for which nothing is valid after this time, in order."""
    statement = (
        select(*columns_of(BoundPayment, payments))
        .where(
            _p.state == PaymentState.CONFIRMATION_FAILED.value,
            payment_is_open,
            _p.lane == lane,
            _p.signed_until_s <= signed_until_s,
        )
        .order_by(_p.rank_ms)
        .offset(offset)
        .limit(limit)
    )
    return shaped(connection, BoundPayment, statement)


def refused(connection: Connection, lane: str, *, offset: int, limit: int) -> list[BoundPayment]:
    """Pending payments, of this lane or of none, that a preflight has refused, in order."""
    statement = (
        select(*columns_of(BoundPayment, payments))
        .where(payment_is_refused, or_(_p.lane == lane, _p.lane.is_(None)))
        .order_by(_p.id)
        .offset(offset)
        .limit(limit)
    )
    return shaped(connection, BoundPayment, statement)

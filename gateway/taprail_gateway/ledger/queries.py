"""What may be asked of the ledger, answered in frozen dataclasses.

Queries that a loop repeats look only at what is open, through partial indexes: they cost the same
after a million payments. Each has a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

from sqlalchemy import ColumnElement, Connection, Select, Table, func, select

from taprail_common.payment_state import HOLDING, PaymentState
from taprail_gateway.ledger.funds import NO_DAY
from taprail_gateway.ledger.invariants import check_invariants
from taprail_gateway.ledger.schema import (
    accounts,
    attempts,
    chain_transactions,
    lanes,
    merchants,
    meta,
    payment_events,
    payment_is_open,
    payments,
    transaction_is_open,
)

__all__ = [
    "BoundPayment",
    "Lane",
    "OpenTransaction",
    "Payment",
    "PaymentEventRow",
    "PendingPayment",
    "RawAttempt",
    "all_lanes",
    "check_invariants",
    "columns_of",
    "events_after",
    "facts",
    "held_by_account",
    "history",
    "last_event_seq",
    "open_counts",
    "open_transactions",
    "payment",
    "payment_of_request",
    "raw_attempts",
    "shaped",
    "totals_by_merchant",
]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment, all of it; the columns of `payments`."""

    id: str
    requester: str
    request_id: str
    terminal_id: str
    merchant_id: str
    card_uuid: str
    user_id: str
    payer: str
    payee: str
    amount_units: int
    currency: str
    profile: str
    state: PaymentState
    priority: int
    bindings: int
    auth_code: str
    spend_day: str
    tapped_at_ms: int
    created_at_ms: int
    processing_at_ms: int | None
    sent_at_ms: int | None
    completed_at_ms: int | None
    chain_transaction_id: int | None
    tx_hash: str | None
    block_number: int | None
    block_hash: str | None
    failure_reason: str | None
    lane: str | None
    due_at_ms: int | None
    preflights: int
    signed_until_s: int


@dataclass(frozen=True, slots=True)
class PendingPayment:
    """What the sender needs of a payment to put it into a transaction."""

    id: str
    payer: str
    payee: str
    amount_units: int
    bindings: int
    preflights: int
    rank_ms: int


@dataclass(frozen=True, slots=True)
class BoundPayment:
    """What the confirmer needs of a payment to judge it by the chain: see `under_way`."""

    id: str
    payer: str
    payee: str
    amount_units: int
    state: PaymentState
    bindings: int
    processing_at_ms: int | None
    chain_transaction_id: int | None
    """None for one that is pending."""
    signed_until_s: int
    failure_reason: str | None
    preflights: int


@dataclass(frozen=True, slots=True)
class Lane:
    """A sending wallet; `next_nonce` is None until the chain has been asked once."""

    address: str
    wrapped_key: bytes
    next_nonce: int | None
    paused_because: str | None
    purpose: str


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """A transaction that is not final yet."""

    id: int
    lane: str
    nonce: int
    status: str
    created_at_ms: int
    broadcast_at_ms: int | None
    rescue_asked_at_ms: int | None


@dataclass(frozen=True, slots=True)
class RawAttempt:
    """A signed version of a transaction, with the place that it has in its lane."""

    tx_hash: str
    chain_transaction_id: int
    raw: bytes
    gas_limit: int
    max_fee_wei: int
    priority_fee_wei: int
    created_at_ms: int
    kind: str


@dataclass(frozen=True, slots=True)
class PaymentEventRow:
    """One step of one payment; `seq` rises with every commit."""

    seq: int
    payment_id: str
    event: str
    state: PaymentState
    at_ms: int
    detail: str | None


def columns_of(shape: type[Any], table: Table) -> list[ColumnElement[Any]]:
    """The columns of a table that a shape is made of, in its order."""
    return [table.c[field.name] for field in fields(shape)]


def shaped(connection: Connection, shape: Callable[..., R], statement: Select[Any]) -> list[R]:
    """The rows of a statement that selects exactly the columns of a shape."""
    names = [field.name for field in fields(cast("type[Any]", shape))]
    rows = connection.execute(statement)
    if "state" not in names:
        return [shape(*row) for row in rows]
    at = names.index("state")
    return [shape(*row[:at], PaymentState(row[at]), *row[at + 1 :]) for row in rows]


def _pairs(connection: Connection, statement: Select[Any]) -> dict[Any, Any]:
    return {key: value for key, value in connection.execute(statement)}  # noqa: C416 - rows are no tuples to mypy


def payment(connection: Connection, payment_id: str) -> Payment | None:
    """A payment by its id."""
    found = shaped(
        connection,
        Payment,
        select(*columns_of(Payment, payments)).where(payments.c.id == payment_id),
    )
    return found[0] if found else None


def payment_of_request(connection: Connection, requester: str, request_id: str) -> Payment | None:
    """The payment that a request led to, if it was accepted."""
    statement = select(*columns_of(Payment, payments)).where(
        payments.c.requester == requester, payments.c.request_id == request_id
    )
    found = shaped(connection, Payment, statement)
    return found[0] if found else None


def open_counts(connection: Connection) -> dict[PaymentState, int]:
    """How many payments are in each open state; every state of HOLDING has an entry."""
    statement = (
        select(payments.c.state, func.count()).where(payment_is_open).group_by(payments.c.state)
    )
    counted = {PaymentState(state): count for state, count in connection.execute(statement)}
    return {state: counted.get(state, 0) for state in sorted(HOLDING)}


def all_lanes(connection: Connection) -> list[Lane]:
    """Every sending wallet."""
    return shaped(connection, Lane, select(*columns_of(Lane, lanes)).order_by(lanes.c.address))


def open_transactions(
    connection: Connection, lane: str, *, limit: int = 10_000
) -> list[OpenTransaction]:
    """A lane's transactions that are not final, in the order of their nonces."""
    statement = (
        select(*columns_of(OpenTransaction, chain_transactions))
        .where(chain_transactions.c.lane == lane, transaction_is_open)
        .order_by(chain_transactions.c.nonce)
        .limit(limit)
    )
    return shaped(connection, OpenTransaction, statement)


def raw_attempts(
    connection: Connection, chain_transaction_ids: Sequence[int]
) -> dict[int, list[RawAttempt]]:
    """Every version ever signed of each transaction, oldest first; an entry for each of them."""
    statement = (
        select(*columns_of(RawAttempt, attempts))
        .where(attempts.c.chain_transaction_id.in_(chain_transaction_ids))
        .order_by(attempts.c.created_at_ms, attempts.c.max_fee_wei)
    )
    versions: dict[int, list[RawAttempt]] = {each: [] for each in chain_transaction_ids}
    for each in shaped(connection, RawAttempt, statement):
        versions[each.chain_transaction_id].append(each)
    return versions


def events_after(connection: Connection, seq: int, limit: int) -> list[PaymentEventRow]:
    """The steps of all payments after a place in their order, for those who tell of them."""
    statement = (
        select(*columns_of(PaymentEventRow, payment_events))
        .where(payment_events.c.seq > seq)
        .order_by(payment_events.c.seq)
        .limit(limit)
    )
    return shaped(connection, PaymentEventRow, statement)


def last_event_seq(connection: Connection) -> int:
    """The place of the newest step; 0 before the first."""
    return int(connection.execute(select(func.max(payment_events.c.seq))).scalar() or 0)


def history(connection: Connection, payment_id: str) -> list[PaymentEventRow]:
    """The steps of one payment, in their order."""
    statement = (
        select(*columns_of(PaymentEventRow, payment_events))
        .where(payment_events.c.payment_id == payment_id)
        .order_by(payment_events.c.seq)
    )
    return shaped(connection, PaymentEventRow, statement)


def totals_by_merchant(connection: Connection) -> dict[str, int]:
    """Σ of completed sales in units for each merchant, to compare with the chain; what was given
    back of them is not taken off, because it need not have come from where it went."""
    completed = (payments.c.state == PaymentState.COMPLETED.value) & (
        payments.c.spend_day != NO_DAY
    )
    statement = (
        select(merchants.c.id, func.coalesce(func.sum(payments.c.amount_units), 0))
        .select_from(
            merchants.outerjoin(payments, (payments.c.merchant_id == merchants.c.id) & completed)
        )
        .group_by(merchants.c.id)
    )
    return {merchant: int(units) for merchant, units in connection.execute(statement)}


def held_by_account(connection: Connection) -> dict[str, int]:
    """What is held of each account, in units."""
    statement = select(accounts.c.address, accounts.c.held_units)
    return _pairs(connection, statement)


def facts(connection: Connection) -> Mapping[str, str]:
    """The facts of this ledger: its chain, its token, its gateway."""
    return _pairs(connection, select(meta.c.key, meta.c.value))

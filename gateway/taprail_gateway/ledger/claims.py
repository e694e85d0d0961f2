"""Which pending payments a lane takes on, and in which order.

A claim sticks: the payment belongs to its lane from then on, until the lane gives it back unbound
or an operator sends it round again. Two who claim at once never get the same payment: on PostgreSQL
each skips the rows that the other has locked, on SQLite there is one writer.

The order is one number, fixed when the payment is accepted: its time, moved back by two seconds for
each point of priority. So the urgent overtake the others by some seconds and no more, and whatever
comes, every payment gets to the front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, update

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.queries import PendingPayment
from taprail_gateway.ledger.schema import REFUSED_AFTER, payment_is_open, payments
from taprail_gateway.ledger.schema_base import literal

AHEAD_PER_POINT_MS: Final = 2_000
"""Of priority: a payment of priority 10 goes before those of 5 that came up to 10 s earlier."""

_p = payments.c
_IS_PENDING: Final = (_p.state == PaymentState.PENDING.value) & payment_is_open


def rank_ms(created_at_ms: int, priority: int) -> int:
    """The place of a payment in the order; the lowest goes first."""
    return created_at_ms - AHEAD_PER_POINT_MS * priority


def claim(connection: Connection, lane: str, limit: int, now_ms: int) -> list[PendingPayment]:
    """What this lane should bind next, at most so many: what it has claimed before, and more.

    A payment whose `due_at_ms` lies ahead is left where it is, and so is one that has failed too
    many preflights: that waits for its proof.
    """
    is_ready = _is_ready(now_ms)
    own = _claimed(connection, lane, limit, now_ms)
    if len(own) < limit:
        _take(connection, lane, limit - len(own), is_ready)
    if own:  # what nobody has claimed may be more urgent
        _take(connection, lane, limit, is_ready & (_p.rank_ms < own[-1].rank_ms))
    return _claimed(connection, lane, limit, now_ms)


def _take(connection: Connection, lane: str, limit: int, which: ColumnElement[bool]) -> None:
    """Claim the first so many of those that nobody has."""
    is_pending = _p.state == literal(PaymentState.PENDING.value)
    if connection.dialect.name == "sqlite":
        # SQLite wants the index's condition word by word. PostgreSQL, because it locks the rows,
        # would keep it as a second condition on the state, and sort all of them.
        is_pending &= payment_is_open
    free = (
        select(_p.id)
        .where(is_pending, _p.lane.is_(None), which)
        .order_by(_p.lane, _p.rank_ms)  # as in the index: PostgreSQL does not see that NULL is one
        .limit(limit)
        .with_for_update(skip_locked=True)
        # PostgreSQL may run a subquery more than once, and then lock more than the limit.
        .cte("free")
    )
    taken = update(payments).where(_p.id.in_(select(free.c.id))).values(lane=lane)
    connection.execute(taken)


def waiting(connection: Connection, lane: str, limit: int, now_ms: int) -> tuple[int, int | None]:
    """How many payments a lane could bind now, counted up to a limit, and since when the oldest
    of them waits (ms): those that it has claimed, and those that nobody has."""
    mine = or_(_p.lane == lane, _p.lane.is_(None))
    first = (
        select(_p.created_at_ms).where(_IS_PENDING, _is_ready(now_ms), mine).limit(limit).subquery()
    )
    count, oldest_ms = connection.execute(
        select(func.count(), func.min(first.c.created_at_ms))
    ).one()
    return count, oldest_ms


def under_way(connection: Connection, lane: str, limit: int) -> int:
    """How many payments are bound to a lane and not settled, counted up to a limit."""
    bound = (PaymentState.PROCESSING.value, PaymentState.SENT.value)
    # Of the index's own columns: it is counted for every batch, and no row has to be fetched.
    some = select(_p.rank_ms).where(payment_is_open, _p.state.in_(bound), _p.lane == lane)
    some = some.limit(limit)
    return int(connection.execute(select(func.count()).select_from(some.subquery())).scalar_one())


def give_back(connection: Connection, lane: str) -> int:
    """Let other lanes have what this one has claimed and not bound; how many there were."""
    statement = update(payments).where(_IS_PENDING, _p.lane == lane).values(lane=None)
    return connection.execute(statement).rowcount


def will_sign(connection: Connection, payment_ids: Sequence[str], until_s: int) -> None:
    """Note, before anything is signed, until when it will be valid: the proof rule counts it."""
    latest = func.max if connection.dialect.name == "sqlite" else func.greatest
    statement = (
        update(payments)
        .where(_p.id.in_(payment_ids))
        .values(signed_until_s=latest(_p.signed_until_s, until_s))
    )
    if connection.execute(statement).rowcount != len(set(payment_ids)):
        raise GuardError("there are not so many payments", payment_ids)


def put_off(
    connection: Connection, payment_ids: Sequence[str], due_at_ms: int, reason: str
) -> None:
    """Keep payments that a preflight has refused from being claimed for a while."""
    statement = (
        update(payments)
        # Without the condition of an index that holds all that is pending: the ids are enough.
        .where(_p.id.in_(payment_ids), _p.state == PaymentState.PENDING.value)
        .values(due_at_ms=due_at_ms, preflights=_p.preflights + 1, failure_reason=reason)
    )
    if connection.execute(statement).rowcount != len(set(payment_ids)):
        raise GuardError("not all of them are pending", payment_ids)


def _claimed(connection: Connection, lane: str, limit: int, now_ms: int) -> list[PendingPayment]:
    """What a lane has claimed and may bind now, in its order."""
    statement = (
        select(*(_p[field.name] for field in fields(PendingPayment)))
        .where(_IS_PENDING, _is_ready(now_ms), _p.lane == lane)
        .order_by(_p.rank_ms)
        .limit(limit)
    )
    return [PendingPayment(*row) for row in connection.execute(statement)]


def _is_ready(now_ms: int) -> ColumnElement[bool]:
    is_due = or_(_p.due_at_ms.is_(None), _p.due_at_ms <= now_ms)
    return and_(is_due, _p.preflights < REFUSED_AFTER)

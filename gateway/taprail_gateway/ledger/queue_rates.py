"""What the queues got done lately, for whoever looks often: no question here goes over history.

Rows are numbered in the order of their times, so the first of a window is found by halving, and
what is counted begins there. A window and not a total, so that a restart changes nothing, and so
that all gateways on a ledger say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, FromClause, case, func, select

from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_gateway.ledger.schema import (
    account_is_unread,
    accounts,
    callback_is_waiting,
    callbacks,
    mint_is_open,
    mints,
    payment_events,
    payment_is_open,
    payments,
    webhook_deliveries,
)
from taprail_gateway.ledger.schema_webhooks import delivery_is_waiting
from taprail_gateway.ledger.transitions import ACCEPTED

WINDOW_S: Final = 600
MINUTE_MS: Final = 60_000

MAX_REASONS: Final = 20
_REASON_CHARACTERS: Final = 60

_ENDS: Final = tuple(
    each.value
    for each in (
        PaymentEvent.CONFIRM,
        PaymentEvent.REJECT,
        PaymentEvent.DISPROVE,
        PaymentEvent.GIVE_UP,
    )
)
_TRAVELLING: Final = (PaymentState.PROCESSING.value, PaymentState.SENT.value)

_e, _p, _m = payment_events.c, payments.c, mints.c
_c, _d = callbacks.c, webhook_deliveries.c


@dataclass(frozen=True, slots=True)
class Open:
    """What is not done with: `waiting` is due, `delayed` is not yet, `active` is under way."""

    waiting: int
    delayed: int
    active: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class Done:
    """What was done with within the window, and of that completed within the last minute."""

    completed: int
    failed: int
    last_minute: int


@dataclass(frozen=True, slots=True)
class PaymentRates:
    """Payments: by state, those of the window that are done with, and how long they took."""

    states: dict[str, int]
    open: Open
    done: Done
    average_ms: float | None
    failures: dict[str, int]


# --- payments -------------------------------------------------------------------------------------


def payment_rates(connection: Connection, now_ms: int) -> PaymentRates:
    """How payments stand; `completed` and `failed` are those of the window."""
    first = _first(connection, _e.seq, _e.at_ms, now_ms - WINDOW_S * 1000)
    ended = payment_events.join(payments, _e.payment_id == _p.id)
    in_window = (_e.seq >= first, _e.event.in_(_ENDS))
    recent = (_e.at_ms > now_ms - MINUTE_MS, 1)
    statement = (
        select(
            _e.state,
            func.count(),
            func.sum(case(recent, else_=0)),
            func.avg(_p.completed_at_ms - _p.created_at_ms),
        )
        .select_from(ended)
        .where(*in_window)
        .group_by(_e.state)
    )
    found = {row[0]: row for row in connection.execute(statement)}
    states, is_open = _open_payments(connection, now_ms)
    completed = found.get(PaymentState.COMPLETED.value)
    states[PaymentState.COMPLETED.value] = 0 if completed is None else completed[1]
    failed = found.get(PaymentState.FAILED.value)
    states[PaymentState.FAILED.value] = 0 if failed is None else failed[1]
    given_up = found.get(PaymentState.CONFIRMATION_FAILED.value)
    done = Done(
        states[PaymentState.COMPLETED.value],
        sum(row[1] for row in (failed, given_up) if row is not None),
        0 if completed is None else int(completed[2]),
    )
    average = None if completed is None or completed[3] is None else float(completed[3])
    reasons = _reasons(connection, ended, in_window) if done.failed else {}
    return PaymentRates(states, is_open, done, average, reasons)


def _open_payments(connection: Connection, now_ms: int) -> tuple[dict[str, int], Open]:
    is_delayed = case((_p.due_at_ms > now_ms, 1), else_=0).label("is_delayed")
    statement = (
        select(_p.state, is_delayed, func.count(), func.min(_p.created_at_ms))
        .where(payment_is_open)
        .group_by(_p.state, is_delayed)
    )
    rows = list(connection.execute(statement))
    states = {state.value: 0 for state in PaymentState}
    for row in rows:
        states[row[0]] += row[2]
    pending = [row for row in rows if row[0] == PaymentState.PENDING.value]
    travelling = [row for row in rows if row[0] in _TRAVELLING]
    return states, Open(
        waiting=sum(row[2] for row in pending if not row[1]),
        delayed=sum(row[2] for row in pending if row[1]),
        active=sum(row[2] for row in travelling),
        oldest_ms=min((row[3] for row in (*pending, *travelling)), default=None),
    )


def _reasons(
    connection: Connection, ended: FromClause, in_window: Sequence[ColumnElement[bool]]
) -> dict[str, int]:
    """The commonest reasons; what follows a colon is about one payment alone."""
    count = func.count().label("count")
    statement = (
        select(_p.failure_reason, count)
        .select_from(ended)
        .where(*in_window, _p.failure_reason.is_not(None))
        .group_by(_p.failure_reason)
        .order_by(count.desc())
        .limit(MAX_REASONS)
    )
    reasons: dict[str, int] = {}
    for text, number in connection.execute(statement):
        reason = text.partition(":")[0][:_REASON_CHARACTERS]
        reasons[reason] = reasons.get(reason, 0) + number
    return reasons


# --- what follows from them -----------------------------------------------------------------------


def mint_rates(connection: Connection, now_ms: int) -> tuple[Open, Done]:
    """Rewards: those that are open, and those of the window's callbacks that are done with."""
    kind = case(
        (_m.state != PaymentState.PENDING.value, "active"),
        (_m.due_at_ms > now_ms, "delayed"),
        else_="waiting",
    )
    listed = _m.state == PaymentState.CONFIRMATION_FAILED.value
    is_open = _open(connection, kind, _m.created_at_ms, (mint_is_open, ~listed))
    first = _first(connection, _c.id, _c.created_at_ms, now_ms - WINDOW_S * 1000)
    outcome = case(
        (_m.state == PaymentState.COMPLETED.value, "completed"),
        (~mint_is_open | listed, "failed"),
        else_="open",
    )
    theirs = callbacks.join(mints, _m.payment_id == _c.payment_id)
    which = (_c.id >= first, _c.kind == "reward")
    return is_open, _done(connection, outcome, _m.completed_at_ms, theirs, which, now_ms)


def webhook_rates(connection: Connection, now_ms: int) -> tuple[Open, Done]:
    """What merchants are told: steps that are to be made into deliveries, and deliveries."""
    opened = [
        _open(
            connection,
            case((table.c.due_at_ms > now_ms, "delayed"), else_="waiting"),
            table.c.created_at_ms,
            which,
        )
        for table, which in (
            (callbacks, (callback_is_waiting, _c.kind == "webhook")),
            (webhook_deliveries, (delivery_is_waiting,)),
        )
    ]
    first = _first(connection, _d.id, _d.created_at_ms, now_ms - WINDOW_S * 1000)
    outcome = case(
        (_d.status == "done", "completed"), (_d.status == "dead", "failed"), else_="open"
    )
    since = [each.oldest_ms for each in opened if each.oldest_ms is not None]
    return (
        Open(
            sum(each.waiting for each in opened),
            sum(each.delayed for each in opened),
            0,
            min(since, default=None),
        ),
        _done(
            connection, outcome, _d.finished_at_ms, webhook_deliveries, (_d.id >= first,), now_ms
        ),
    )


def steps_after(connection: Connection, seq: int, now_ms: int) -> tuple[Open, Done]:
    """Steps that listeners are told of: those after a place are yet to be told."""
    first = _first(connection, _e.seq, _e.at_ms, now_ms - WINDOW_S * 1000)
    statement = select(
        func.sum(case((_e.seq > seq, 1), else_=0)),
        func.min(case((_e.seq > seq, _e.at_ms))),
        func.sum(case((_e.seq <= seq, 1), else_=0)),
        func.sum(case(((_e.seq <= seq) & (_e.at_ms > now_ms - MINUTE_MS), 1), else_=0)),
    ).where(_e.seq >= first, _e.event != ACCEPTED)
    waiting, oldest_ms, told, lately = connection.execute(statement).one()
    return Open(waiting or 0, 0, 0, oldest_ms), Done(told or 0, 0, lately or 0)


def unread_accounts(connection: Connection) -> tuple[int, int | None]:
    """How many accounts' balances were never read, and since when the first of them is there."""
    a = accounts.c
    statement = select(func.count(), func.min(a.created_at_ms)).where(account_is_unread)
    count, oldest_ms = connection.execute(statement).one()
    return count, oldest_ms


# --- what they share ------------------------------------------------------------------------------


def _first(connection: Connection, number: Column[Any], at_ms: Column[Any], since_ms: int) -> int:
    """The number of the first row since a time; one past the last when there is none."""
    last = connection.scalar(select(func.max(number))) or 0
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        following = (
            select(number.label("number"), at_ms.label("at_ms"))
            .where(number >= middle)
            .order_by(number)
            .limit(1)
        )
        row = connection.execute(following).one_or_none()
        if row is None or row.at_ms >= since_ms:
            high = middle
        else:
            low = row.number + 1
    return int(low)


def _open(
    connection: Connection,
    kind: ColumnElement[str],
    created_at_ms: Column[Any],
    which: Sequence[ColumnElement[bool]],
) -> Open:
    named = kind.label("kind")
    statement = select(named, func.count(), func.min(created_at_ms)).where(*which).group_by(named)
    found = {row[0]: row for row in connection.execute(statement)}
    counts = {name: row[1] for name, row in found.items()}
    return Open(
        waiting=counts.get("waiting", 0),
        delayed=counts.get("delayed", 0),
        active=counts.get("active", 0),
        oldest_ms=min((row[2] for row in found.values()), default=None),
    )


def _done(
    connection: Connection,
    outcome: ColumnElement[str],
    at_ms: Column[Any],
    table: FromClause,
    which: Sequence[ColumnElement[bool]],
    now_ms: int,
) -> Done:
    named = outcome.label("outcome")
    recent = func.sum(case((at_ms > now_ms - MINUTE_MS, 1), else_=0))
    statement = select(named, func.count(), recent).select_from(table).where(*which)
    found = {row[0]: row for row in connection.execute(statement.group_by(named))}
    completed = found.get("completed")
    return Done(
        0 if completed is None else completed[1],
        found["failed"][1] if "failed" in found else 0,
        0 if completed is None else int(completed[2]),
    )

"""Merchants' float accounts, and the refunds that wait for money in one.

A refund that its float does not cover is due at no time, so that no lane claims it, tries it out or
signs for it; it can be cancelled until it goes on. Its funds are held while it waits, so a float
may hold more than it has: what is free of it is reckoned without those who wait. Every function
works inside the caller's transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, exists, func, insert, or_, select, update

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger.alerts import clear_alerts, raise_alert
from taprail_gateway.ledger.schema import (
    accounts,
    alert_is_open,
    alerts,
    merchant_floats,
    payments,
    refunds,
)
from taprail_gateway.ledger.schema_refunds import AWAITS_FLOAT_MS, refund_awaits_float

FLOAT_ALERT: Final = "float_short"
"""The kind of the alert about a merchant whose refunds wait for money."""

WAITS: Final = "it waits until the merchant's float account covers it"

MOST_FUNDED: Final = 500
"""Refunds let go in one commit: taps go on being answered between two of them."""

_p, _r, _a, _f = payments.c, refunds.c, accounts.c, merchant_floats.c
_IS_WAITING: Final = refund_awaits_float & (_p.state == PaymentState.PENDING.value)
_OPEN_ALERTS: Final = (alerts.c.kind == FLOAT_ALERT) & alert_is_open


def await_float(connection: Connection, payment_ids: Sequence[str]) -> list[str]:
    """Keep those of these pending payments from being sent that a float pays; which they are.

    A payment whose payer signs for itself is none of them: its signature ends, so it cannot wait.
    """
    from_float = (
        select(_p.id)
        .join(merchant_floats, _f.account == _p.payer)
        .join(refunds, _r.payment_id == _p.id)
        .where(_p.id.in_(payment_ids), _p.state == PaymentState.PENDING.value)
    )
    ids = list(connection.scalars(from_float))
    if ids:
        values = {"due_at_ms": AWAITS_FLOAT_MS, "failure_reason": WAITS}
        connection.execute(update(payments).where(_p.id.in_(ids)).values(values))
        connection.execute(update(refunds).where(_r.payment_id.in_(ids)).values(awaits_float=1))
    return ids


def want_attention(connection: Connection) -> bool:
    """Whether `fund` has anything to do: a question to be asked at every block."""
    statement = select(or_(exists().where(refund_awaits_float), exists().where(_OPEN_ALERTS)))
    return bool(connection.scalar(statement))


def fund(connection: Connection, at_ms: int, *, most: int = MOST_FUNDED) -> list[str]:
    """Let go on what its float covers now, each float's oldest first; which they are. For what
    still waits for money its merchant has an alert, until nothing of theirs waits any more.

    One that is not covered holds up none after it: who tops up by what is missing settles all. Nor
    does one merchant's float hold up another's: they take turns, and what nothing covers is passed
    over. Where much is covered the rest follows at the next call.
    """
    chosen = connection.scalars(_COVERED_ALONE, {"most": most}).all()
    # Whoever changes a refund has its row first and then its account, and so have we.
    some = connection.execute(_LOCKED, {"chosen": chosen}).all() if chosen else []
    free = _free_units(connection, sorted({row.payer for row in some}))
    covered: list[str] = []
    for row in some:
        if row.amount_units <= free[row.payer]:
            free[row.payer] -= row.amount_units
            covered.append(row.id)
    _go_on(connection, covered)
    _tell(connection, at_ms)
    return covered


_WAITING: Final = (
    select(_p.id, _p.payer, _p.amount_units, _p.rank_ms)
    .join(refunds, _r.payment_id == _p.id)
    .where(_IS_WAITING)
    .cte("waiting")
)
_w = _WAITING.c
_WANTED: Final = (
    select(_w.payer, func.sum(_w.amount_units).label("units")).group_by(_w.payer).cte("wanted")
)
_IN_TURN: Final = (
    select(
        _w.id,
        _w.rank_ms,
        func.row_number().over(partition_by=_w.payer, order_by=(_w.rank_ms, _w.id)).label("turn"),
    )
    .join(accounts, _a.address == _w.payer)
    .join(_WANTED, _WANTED.c.payer == _w.payer)
    .where(_w.amount_units <= _a.balance_units - _a.held_units + _WANTED.c.units)
    .subquery()
)
_COVERED_ALONE: Final = (
    select(_IN_TURN.c.id)
    .order_by(_IN_TURN.c.turn, _IN_TURN.c.rank_ms, _IN_TURN.c.id)
    .limit(bindparam("most"))
)
"""Those that their float would cover if no other of it did wait, the first of each float first."""

_LOCKED: Final = (
    select(_p.id, _p.payer, _p.amount_units)
    .join(refunds, _r.payment_id == _p.id)
    .where(_p.id.in_(bindparam("chosen", expanding=True)), _IS_WAITING)
    .order_by(_p.rank_ms, _p.id)
    .with_for_update(of=payments, skip_locked=True)
)


def _free_units(connection: Connection, addresses: Sequence[str]) -> dict[str, int]:
    """What each of these accounts has beyond what is held for others than those who wait."""
    locked = (
        select(_a.address, _a.balance_units - _a.held_units)
        .where(_a.address.in_(addresses))
        .order_by(_a.address)
        .with_for_update(key_share=True)
    )
    free: defaultdict[str, int] = defaultdict(int)
    free.update({address: units for address, units in connection.execute(locked)})  # noqa: C416 - rows are no tuples to mypy
    wanted = select(_WANTED.c.payer, _WANTED.c.units).where(_WANTED.c.payer.in_(addresses))
    for address, units in connection.execute(wanted):
        free[address] += int(units)
    return free


def _go_on(connection: Connection, payment_ids: Sequence[str]) -> None:
    if payment_ids:
        values = {"due_at_ms": None, "failure_reason": None}
        connection.execute(update(payments).where(_p.id.in_(payment_ids)).values(values))
        own = update(refunds).where(_r.payment_id.in_(payment_ids))
        connection.execute(own.values(awaits_float=0))


def _tell(connection: Connection, at_ms: int) -> None:
    """An alert for each merchant whose float is short; none for those for whom nothing waits."""
    waiting = {row.merchant_id: row for row in connection.execute(_MERCHANTS)}
    for merchant_id, row in sorted(waiting.items()):
        if row.balance_units < row.held_units:
            text = (
                f"refunds of merchant {merchant_id} wait: its float account {row.address} does not"
                f" cover them; top it up, `taprail admin merchant float {merchant_id}` says by how"
                " much"
            )
            raise_alert(connection, FLOAT_ALERT, merchant_id, "warning", text, at_ms)
    told = connection.scalars(select(alerts.c.subject).where(_OPEN_ALERTS)).all()
    cured = [merchant_id for merchant_id in told if merchant_id not in waiting]
    clear_alerts(connection, FLOAT_ALERT, cured, at_ms)


_MERCHANTS: Final = (
    select(_f.merchant_id, _a.address, _a.balance_units, _a.held_units)
    .join(accounts, _a.address == _f.account)
    .where(_f.account.in_(select(_w.payer)))
)
"""Those of whom a refund waits, with what their floats hold."""


@dataclass(frozen=True, slots=True)
class Float:
    """A merchant's float account, and what refunds want of it; `short_units`: what it lacks."""

    merchant_id: str
    account: str
    balance_units: int
    held_units: int

    @property
    def short_units(self) -> int:
        return max(0, self.held_units - self.balance_units)


def open_float(
    connection: Connection, merchant_id: str, account: str, wrapped_key: bytes, at_ms: int
) -> None:
    """Give a merchant that has none a float account, whose key is new and wrapped."""
    opened = {"address": account, "wrapped_key": wrapped_key, "created_at_ms": at_ms}
    connection.execute(insert(accounts).values(opened))
    own = {"merchant_id": merchant_id, "account": account, "created_at_ms": at_ms}
    connection.execute(insert(merchant_floats).values(own))


def float_of(connection: Connection, merchant_id: str) -> Float | None:
    """A merchant's float; None when it has none."""
    statement = (
        select(_f.merchant_id, _f.account, _a.balance_units, _a.held_units)
        .join(accounts, _a.address == _f.account)
        .where(_f.merchant_id == merchant_id)
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else Float(*row)

"""How the queue stands: what waits and what is under way, and the lanes that it goes out by.

For people who look, not for loops: it counts all that is open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, case, func, select

from taprail_common.payment_state import HOLDING, PaymentState
from taprail_gateway.ledger.by_hand import unsigned_count
from taprail_gateway.ledger.leases import LANE_PREFIX
from taprail_gateway.ledger.schema import (
    chain_transactions,
    lanes,
    leases,
    operator_actions,
    payment_is_open,
    payments,
    settings,
    transaction_is_open,
)


@dataclass(frozen=True, slots=True)
class StateReport:
    """The payments of one state; `oldest_ms`: when the oldest of them was accepted."""

    state: PaymentState
    count: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class LaneReport:
    """A sending wallet, what it has to do, and which gateway may send from it until when."""

    address: str
    purpose: str
    next_nonce: int | None
    under_way: int
    claimed: int
    paused_because: str | None
    lease_owner: str | None
    lease_until_ms: int | None


@dataclass(frozen=True, slots=True)
class LastChange:
    """Who has changed something last, when and why."""

    actor: str
    at_ms: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class QueueReport:
    """The whole of it; `never_signed` counts the pending payments that can still be cancelled."""

    states: list[StateReport]
    never_signed: int
    lanes: list[LaneReport]

    def count(self, state: PaymentState) -> int:
        """How many payments are in an open state."""
        return next(each.count for each in self.states if each.state is state)

    @property
    def unfinished(self) -> int:
        """How many payments a gateway that drains still has to see through."""
        return sum(each.count for each in self.states if each.state in _TO_FINISH)


_TO_FINISH: Final = HOLDING - {PaymentState.CONFIRMATION_FAILED}
_ORDER: Final = (
    PaymentState.PENDING,
    PaymentState.PROCESSING,
    PaymentState.SENT,
    PaymentState.CONFIRMATION_FAILED,
)


def report(connection: Connection) -> QueueReport:
    """How the queue stands now."""
    return QueueReport(_states(connection), unsigned_count(connection), lane_reports(connection))


def lane_reports(connection: Connection) -> list[LaneReport]:
    """Every lane, in the order in which they were made."""
    t, p, lane, lease = chain_transactions.c, payments.c, lanes.c, leases.c
    under_way = (
        select(func.count())
        .where(t.lane == lane.address, transaction_is_open)
        .correlate(lanes)
        .scalar_subquery()
    )
    claimed = (
        select(func.count())
        .where(p.lane == lane.address, p.state == PaymentState.PENDING.value, payment_is_open)
        .correlate(lanes)
        .scalar_subquery()
    )
    statement = (
        select(
            lane.address,
            lane.purpose,
            lane.next_nonce,
            under_way,
            claimed,
            lane.paused_because,
            lease.owner,
            case((lease.owner.is_not(None), lease.until_ms)),
        )
        .select_from(lanes.outerjoin(leases, lease.name == LANE_PREFIX + lane.address))
        .order_by(lane.created_at_ms, lane.address)
    )
    return [LaneReport(*row) for row in connection.execute(statement)]


def last_change(connection: Connection, setting: str) -> LastChange | None:
    """Who has set what is set now; None when nothing is."""
    if connection.scalar(select(settings.c.name).where(settings.c.name == setting)) is None:
        return None
    a = operator_actions.c
    statement = select(a.actor, a.at_ms, a.reason).where(a.subject == setting)
    row = connection.execute(statement.order_by(a.id.desc()).limit(1)).one_or_none()
    return None if row is None else LastChange(*row)


def _states(connection: Connection) -> list[StateReport]:
    p = payments.c
    statement = (
        select(p.state, func.count(), func.min(p.created_at_ms))
        .where(payment_is_open)
        .group_by(p.state)
    )
    found = {
        row[0]: StateReport(PaymentState(row[0]), row[1], row[2])
        for row in connection.execute(statement)
    }
    return [found.get(state.value, StateReport(state, 0, None)) for state in _ORDER]

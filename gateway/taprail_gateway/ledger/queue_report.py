"""How the queues stand: what waits and what is under way, and the lanes that it goes out by.

For people who look, not for loops: it counts all that is open, and of mints and callbacks also what
is done with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, case, func, select

from taprail_common.payment_state import HOLDING, PaymentState
from taprail_gateway.ledger import side_queues
from taprail_gateway.ledger.by_hand import unsigned_count
from taprail_gateway.ledger.leases import LANE_PREFIX
from taprail_gateway.ledger.schema import (
    alert_is_open,
    alerts,
    chain_transactions,
    lanes,
    leases,
    mint_is_open,
    mints,
    operator_actions,
    payment_is_open,
    payments,
    settings,
    transaction_is_open,
)
from taprail_gateway.ledger.side_queues import SideQueue


@dataclass(frozen=True, slots=True)
class StateReport:
    """The payments of one state; `oldest_ms`: when the oldest of them was accepted."""

    state: PaymentState
    count: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class LaneReport:
    """A sending wallet, what it has to do, and which gateway may send from it until when.

    Payments, or mints, are `claimed` before they are signed and `in_flight` from then on, in so
    many transactions `under_way`; `oldest_ms`: when the oldest of those was signed.
    """

    address: str
    purpose: str
    next_nonce: int | None
    under_way: int
    oldest_ms: int | None
    claimed: int
    in_flight: int
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
    side_queues: list[SideQueue]
    lanes: list[LaneReport]
    open_alerts: int

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
_UNDER_WAY: Final = (PaymentState.PROCESSING.value, PaymentState.SENT.value)


def report(connection: Connection, now_ms: int) -> QueueReport:
    """How the queues stand now."""
    return QueueReport(
        _states(connection),
        unsigned_count(connection),
        side_queues.report(connection, now_ms),
        lane_reports(connection),
        connection.scalar(select(func.count()).select_from(alerts).where(alert_is_open)) or 0,
    )


def pending(connection: Connection) -> tuple[int, int]:
    """How many payments are pending, and for how many of them nobody has ever signed."""
    (state,) = [each for each in _states(connection) if each.state is PaymentState.PENDING]
    return state.count, unsigned_count(connection)


def lane_reports(connection: Connection) -> list[LaneReport]:
    """Every lane, in the order in which they were made."""
    lane, lease = lanes.c, leases.c
    open_here = (chain_transactions.c.lane == lane.address, transaction_is_open)
    statement = (
        select(
            lane.address,
            lane.purpose,
            lane.next_nonce,
            _of_lane(func.count(), *open_here),
            _of_lane(func.min(chain_transactions.c.created_at_ms), *open_here),
            _loaded([PaymentState.PENDING.value]).label("claimed"),
            _loaded(_UNDER_WAY).label("in_flight"),
            lane.paused_because,
            lease.owner,
            case((lease.owner.is_not(None), lease.until_ms)),
        )
        .select_from(lanes.outerjoin(leases, lease.name == LANE_PREFIX + lane.address))
        .order_by(lane.created_at_ms, lane.address)
    )
    return [LaneReport(*row) for row in connection.execute(statement)]


def _loaded(states: Sequence[str]) -> ColumnElement[int]:
    """How many payments, or mints, of a lane are in one of these states: a lane carries either."""
    p, m, here = payments.c, mints.c, lanes.c.address
    return _of_lane(func.count(), p.lane == here, p.state.in_(states), payment_is_open) + _of_lane(
        func.count(), m.lane == here, m.state.in_(states), mint_is_open
    )


def _of_lane(what: ColumnElement[int], *which: ColumnElement[bool]) -> ColumnElement[int]:
    return select(what).where(*which).correlate(lanes).scalar_subquery()


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

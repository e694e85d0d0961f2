"""Offline taps in the ledger: policies by version, and what came in under them.

Answers for versions that never change, so that a tap is held against what held when it was made,
and for a record of each tap in the commit that decides it, with an alert where it is a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Connection, case, func, insert, or_, select, update

from taprail_common.errors import OperatorError
from taprail_common.offline_wire import MAX_FROZEN
from taprail_common.wire import CLOCK_SKEW_MS
from taprail_gateway import registry
from taprail_gateway.authorize import PaymentRequest
from taprail_gateway.ledger import actions, schema
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.alerts import raise_alerts
from taprail_gateway.ledger.prepared import prepared
from taprail_gateway.offline_policy import NOWHERE, Limits, Standing, Terms

LOSS_ALERT: Final = "offline_loss"
"""Kind of the alert about a tap that a customer was told is taken, and that cannot be charged."""

_p, _t = schema.offline_policies.c, schema.offline_taps.c
_LIMITS: Final = (_p.per_tap_units, _p.max_count, _p.sum_units, _p.max_age_s)
_INSERT: Final = prepared(
    schema.offline_taps.insert(), [column.name for column in schema.offline_taps.c]
)


class OfflineTaps:
    """The offline taps of one group of requests. Use `load`, which asks nothing without any."""

    def __init__(self, standings: dict[str, Standing]) -> None:
        self._standings = standings
        self._rows: list[dict[str, Any]] = []
        self._losses: list[tuple[str, str]] = []

    @classmethod
    def load(cls, connection: Connection, requests: Sequence[PaymentRequest]) -> OfflineTaps:
        """What each offline tap among these is held against, by its payment's id."""
        found = (each for each in requests if each.is_offline)
        return cls({each.payment_id: _standing(connection, each) for each in found})

    def standing(self, request: PaymentRequest) -> Standing:
        """The same, with what its group has decided so far: all of that came in just now."""
        stored = self._standings.get(request.payment_id, NOWHERE)
        with_it = [
            row["amount_units"]
            for row in self._rows
            if row["terminal_id"] == request.requester
            and row["tapped_at_ms"] <= request.tapped_at_ms
        ]
        waiting, units = stored.waiting + len(with_it), stored.waiting_units + sum(with_it)
        return Standing(stored.terms, waiting, units)

    def note(self, request: PaymentRequest, reason: str | None, loss: str, now_ms: int) -> None:
        """One was decided; `loss` is told to operators where there is a reason against it."""
        self._rows.append(
            {
                "terminal_id": request.requester,
                "request_id": request.request_id,
                "version": request.offline_version,
                "payment_id": request.payment_id,
                "amount_units": request.amount_units,
                "tapped_at_ms": request.tapped_at_ms,
                "received_at_ms": now_ms,
                "reason": reason,
            }
        )
        if reason is not None:
            self._losses.append((request.payment_id, loss))

    def store(self, connection: Connection, now_ms: int) -> None:
        """Write what was noted."""
        if self._rows:
            _INSERT.run_each(connection, self._rows)
            raise_alerts(connection, LOSS_ALERT, self._losses, "error", now_ms, needs_review=True)


def _standing(connection: Connection, request: PaymentRequest) -> Standing:
    named = (_p.terminal_id == request.requester) & (_p.version == request.offline_version)
    statement = select(*_LIMITS, _p.set_at_ms, _p.ended_at_ms).where(named)
    row = connection.execute(statement).one_or_none()
    if row is None:
        return NOWHERE
    *limits, set_at_ms, ended_at_ms = row
    terms = Terms(request.offline_version or 0, Limits(*limits), set_at_ms, ended_at_ms)
    # What had come in before this tap did not wait beside it, by both clocks' difference.
    waited = select(func.count(), func.coalesce(func.sum(_t.amount_units), 0)).where(
        _t.terminal_id == request.requester,
        _t.received_at_ms > request.tapped_at_ms + CLOCK_SKEW_MS,
        _t.tapped_at_ms <= request.tapped_at_ms,
    )
    waiting, units = connection.execute(waited).one()
    return Standing(terms, int(waiting), int(units))


# --- policies -------------------------------------------------------------------------------------


def policy(connection: Connection, terminal_id: str) -> Terms | None:
    """What a terminal may take offline from now on; None: nothing."""
    statement = select(_p.version, *_LIMITS, _p.set_at_ms).where(
        _p.terminal_id == terminal_id, _p.ended_at_ms.is_(None)
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    version, *limits, set_at_ms = row
    return Terms(version, Limits(*limits), set_at_ms)


def put(connection: Connection, terminal_id: str, limits: Limits, by: By) -> Terms:
    """Let a terminal take taps offline within these limits; on record."""
    registry.require(connection, schema.terminals, "terminal", terminal_id)
    before = policy(connection, terminal_id)
    _end(connection, terminal_id, by.at_ms)
    newest = connection.scalar(select(func.max(_p.version)).where(_p.terminal_id == terminal_id))
    terms = Terms((newest or 0) + 1, limits, by.at_ms)
    row = {"terminal_id": terminal_id, "version": terms.version, "set_at_ms": by.at_ms}
    connection.execute(insert(schema.offline_policies).values(**row, **asdict(limits)))
    told = None if before is None else asdict(before.limits)
    actions.note(
        connection, "terminal-offline-set", terminal_id, by, before=told, after=asdict(limits)
    )
    return terms


def end(connection: Connection, terminal_id: str, by: By) -> Terms:
    """Let a terminal take nothing offline any more, once it hears of it; OperatorError where it
    may not anyway."""
    registry.require(connection, schema.terminals, "terminal", terminal_id)
    before = policy(connection, terminal_id)
    if before is None:
        raise OperatorError(
            f"terminal {terminal_id!r} takes nothing offline",
            fix="see `taprail admin terminal offline show`",
            code="wrong_state",
        )
    _end(connection, terminal_id, by.at_ms)
    actions.note(connection, "terminal-offline-off", terminal_id, by, before=asdict(before.limits))
    return before


def _end(connection: Connection, terminal_id: str, at_ms: int) -> None:
    holds = (_p.terminal_id == terminal_id) & _p.ended_at_ms.is_(None)
    connection.execute(update(schema.offline_policies).where(holds).values(ended_at_ms=at_ms))


def frozen_accounts(connection: Connection, now_ms: int) -> list[str] | None:
    """Accounts of the signing cards that may not pay; None when they are more than a policy
    names."""
    c, u = schema.cards.c, schema.users.c
    statement = (
        select(c.account)
        .join_from(schema.cards, schema.users, c.user_id == u.id)
        .where(
            c.profile == "signed",
            or_(c.status != "active", u.frozen_at_ms.is_not(None), c.expires_at_ms <= now_ms),
        )
        .order_by(c.account)
        .limit(MAX_FROZEN + 1)
    )
    accounts = list(connection.scalars(statement))
    return accounts if len(accounts) <= MAX_FROZEN else None


# --- what came of them ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figures:
    """Offline taps that came in: how many, and how many of them are losses."""

    count: int = 0
    units: int = 0
    lost_count: int = 0
    lost_units: int = 0


def figures(connection: Connection, terminal_id: str | None = None) -> Figures:
    """Of one terminal, or of all."""
    lost = _t.reason.is_not(None)
    statement = select(
        func.count(),
        func.coalesce(func.sum(_t.amount_units), 0),
        func.coalesce(func.sum(case((lost, 1), else_=0)), 0),
        func.coalesce(func.sum(case((lost, _t.amount_units), else_=0)), 0),
    )
    if terminal_id is not None:
        statement = statement.where(_t.terminal_id == terminal_id)
    return Figures(*map(int, connection.execute(statement).one()))

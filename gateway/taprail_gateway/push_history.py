"""What a late subscriber is told: the steps there were, read in one snapshot, with a bound.

Each function is a query for the reader threads. The steps come oldest first, and carry no place:
whoever tells them knows up to where the listener has been told of everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, false, or_, select

from taprail_common.payment_state import PaymentState
from taprail_gateway.directory import User
from taprail_gateway.event_pump import STEP_COLUMNS, STEPS, News, as_news
from taprail_gateway.ledger import queries, schema
from taprail_gateway.ledger.transitions import ACCEPTED
from taprail_gateway.payment_view import concerns
from taprail_gateway.push_auth import Listener
from taprail_gateway.push_cursor import Cursor

MOST: Final = 100
"""Steps that are told again; who has missed more is told how things stand."""

REACH: Final = 10_000
"""Steps of everybody that are looked through for those of one user."""

_OF_CARD: Final = 20
"""Payments of a card that are looked at."""

TOLD_TO_TERMINALS: Final = frozenset(
    {
        PaymentState.SENT,
        PaymentState.COMPLETED,
        PaymentState.FAILED,
        PaymentState.CONFIRMATION_FAILED,
    }
)
"""What a terminal hears of its payments: what they were before, it knows from its own request."""

_e, _p, _m, _c = (
    table.c for table in (schema.payment_events, schema.payments, schema.merchants, schema.cards)
)
_NOWHERE: Final = Cursor(0)


@dataclass(frozen=True, slots=True)
class Past:
    """Steps, oldest first; `is_whole` when none was left out for their number."""

    steps: list[News]
    is_whole: bool

    def up_to(self, place: Cursor) -> Past:
        """Without what this place does not cover yet, and will come from there."""
        return Past([step for step in self.steps if place.covers(step.seq)], self.is_whole)

    def since(self, cursor: Cursor | None) -> list[News]:
        """What somebody with this cursor has missed; empty when that cannot be told in full."""
        if cursor is None:
            return []
        missed = [step for step in self.steps if not cursor.covers(step.seq)]
        if len(missed) == len(self.steps) and not self.is_whole:
            return []
        return [step for step in missed if step.event != ACCEPTED]


def of_transaction(
    connection: Connection, payment_id: str, terminal_id: str | None, user: User | None
) -> Past | None:
    """A payment's steps; None when there is no such payment for this listener."""
    past = _past(connection, _e.payment_id == payment_id)
    if not past.steps or not concerns(past.steps[-1].payment, terminal_id, user):
        return None
    return past


def of_card(connection: Connection, card_uuid: str, user: User | None) -> Past | None:
    """Steps of a card's latest payments; None when there is no such card of this user."""
    owner = connection.scalar(select(_c.user_id).where(_c.uuid == card_uuid))
    if owner is None or user is None:
        return None
    if not (user.is_operator or (user.is_customer and user.id == owner)):
        return None
    latest = (
        select(_p.id)
        .where(_p.card_uuid == card_uuid)
        .order_by(_p.created_at_ms.desc())
        .limit(_OF_CARD)
    )
    ids = list(connection.scalars(latest))
    past = _past(connection, _e.payment_id.in_(ids))
    return Past(past.steps, past.is_whole and len(ids) < _OF_CARD)


def of_listener(connection: Connection, who: Listener) -> Past:
    """What somebody is told without asking, since the place that they come back with."""
    cursor = who.cursor or _NOWHERE
    newest = queries.last_event_seq(connection)
    after = max(cursor.settled, newest - REACH)
    past = _past(connection, and_(_e.seq > after, _theirs(who)))
    return Past(past.steps, past.is_whole and after == cursor.settled)


def _theirs(who: Listener) -> ColumnElement[bool]:
    if who.user is None:
        is_asker = and_(_p.requester == who.terminal_id, _p.terminal_id == who.terminal_id)
        return and_(is_asker, _e.state.in_(TOLD_TO_TERMINALS))
    columns = ((_p.user_id, who.user.is_customer), (_m.user_id, who.user.is_merchant))
    return or_(false(), *(column == who.user.id for column, may in columns if may))


def _past(connection: Connection, whose: ColumnElement[bool]) -> Past:
    newest = (
        select(*STEP_COLUMNS)
        .select_from(STEPS)
        .where(whose)
        .order_by(_e.seq.desc())
        .limit(MOST + 1)
    )
    rows = [dict(row._mapping) for row in connection.execute(newest)]
    steps = [as_news(row, _NOWHERE) for row in reversed(rows[:MOST])]
    return Past(steps, len(rows) <= MOST)

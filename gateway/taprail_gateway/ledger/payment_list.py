"""Payments as lists: the newest first, page by page, of those that somebody may see."""

from __future__ import annotations

from dataclasses import dataclass, fields

from sqlalchemy import ColumnElement, Connection, and_, or_, select, true

from taprail_gateway.ledger.schema import cards, merchants, payments

_p = payments.c


@dataclass(frozen=True, slots=True)
class Listed:
    """A payment in a list."""

    id: str
    state: str
    amount_units: int
    currency: str
    card_uuid: str
    merchant_id: str
    terminal_id: str
    request_id: str
    auth_code: str
    created_at_ms: int
    completed_at_ms: int | None
    tx_hash: str | None
    failure_reason: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """Whose payments somebody may see: those that a customer paid, a merchant's sales, or all."""

    all: bool = False
    paid_by: str | None = None
    sold_by: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of them are asked for; times are from (with it) and until (without it)."""

    state: str | None = None
    card: str | None = None
    merchant: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends: the next one begins after it."""

    created_at_ms: int
    id: str


def page(
    connection: Connection, seen: Seen, wanted: Wanted, after: Place | None, limit: int
) -> list[Listed]:
    """The next page."""
    conditions = [_seen(seen), *_wanted(wanted)]
    if after is not None:
        # The first half alone finds the place in an index.
        conditions.append(_p.created_at_ms <= after.created_at_ms)
        conditions.append(or_(_p.created_at_ms < after.created_at_ms, _p.id < after.id))
    statement = (
        select(*(_p[each.name] for each in fields(Listed)))
        .where(*conditions)
        .order_by(_p.created_at_ms.desc(), _p.id.desc())
        .limit(limit)
    )
    return [Listed(**row) for row in connection.execute(statement).mappings()]


def _seen(seen: Seen) -> ColumnElement[bool]:
    if seen.all:
        return true()
    theirs: list[ColumnElement[bool]] = []
    if seen.paid_by is not None:
        own = select(cards.c.uuid).where(cards.c.user_id == seen.paid_by)
        theirs.append(and_(_p.card_uuid.in_(own), _p.user_id == seen.paid_by))
    if seen.sold_by is not None:
        own = select(merchants.c.id).where(merchants.c.user_id == seen.sold_by)
        theirs.append(_p.merchant_id.in_(own))
    return or_(*theirs)


def _wanted(wanted: Wanted) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.state is not None:
        conditions.append(_p.state == wanted.state)
    if wanted.card is not None:
        conditions.append(_p.card_uuid == wanted.card)
    if wanted.merchant is not None:
        conditions.append(_p.merchant_id == wanted.merchant)
    if wanted.from_ms is not None:
        conditions.append(_p.created_at_ms >= wanted.from_ms)
    if wanted.to_ms is not None:
        conditions.append(_p.created_at_ms < wanted.to_ms)
    return conditions

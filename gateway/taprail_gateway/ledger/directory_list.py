"""Users, merchants, terminals and cards as rows: one, or a page of those that somebody may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, FromClause, case, false, or_, select

from taprail_gateway.ledger.schema import (
    accounts,
    cards,
    merchants,
    terminal_status,
    terminals,
    users,
)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A table as a list: what is shown, by which id, and whose each row is."""

    source: FromClause
    shown: tuple[ColumnElement[Any], ...]
    id: Column[Any]
    customer: Column[Any] | None
    """The user whose it is as a customer's, if it ever is one's."""
    merchant: Column[Any] | None
    """The user whose it is as a merchant's."""


USERS: Final = Kind(
    users,
    (
        *(users.c[name] for name in ("id", "name", "role", "created_at_ms")),
        case((users.c.frozen_at_ms.is_(None), "active"), else_="frozen").label("status"),
    ),
    users.c.id,
    users.c.id,
    users.c.id,
)
MERCHANTS: Final = Kind(
    merchants,
    tuple(
        merchants.c[name]
        for name in ("id", "name", "account", "status", "user_id", "created_at_ms")
    ),
    merchants.c.id,
    None,
    merchants.c.user_id,
)
TERMINALS: Final = Kind(
    terminals.join(merchants, terminals.c.merchant_id == merchants.c.id),
    (
        *(terminals.c[name] for name in ("id", "merchant_id", "name", "public_key")),
        *(terminal_status.label("status"), terminals.c.created_at_ms),
    ),
    terminals.c.id,
    None,
    merchants.c.user_id,
)
CARDS: Final = Kind(
    cards.join(accounts, cards.c.account == accounts.c.address),
    (
        *(
            cards.c[name]
            for name in (
                *("uuid", "name", "profile", "user_id", "account", "status", "time_zone"),
                *("single_limit_units", "daily_limit_units", "created_at_ms"),
            )
        ),
        accounts.c.balance_units,
        accounts.c.held_units,
    ),
    cards.c.uuid,
    cards.c.user_id,
    None,
)


@dataclass(frozen=True, slots=True)
class Looker:
    """Who looks, and as what."""

    user_id: str
    is_customer: bool
    is_merchant: bool
    is_operator: bool


def one(connection: Connection, kind: Kind, looker: Looker, row_id: str) -> Row | None:
    """A row by its id; None when there is none that is theirs."""
    rows = _rows(connection, kind, looker, [kind.id == row_id], 1)
    return rows[0] if rows else None


def page(
    connection: Connection, kind: Kind, looker: Looker, after: str | None, limit: int
) -> list[Row]:
    """A page of what is theirs, in the order of the ids."""
    return _rows(connection, kind, looker, [] if after is None else [kind.id > after], limit)


def _rows(
    connection: Connection,
    kind: Kind,
    looker: Looker,
    which: list[ColumnElement[bool]],
    limit: int,
) -> list[Row]:
    if not looker.is_operator:
        which = [*which, _theirs(kind, looker)]
    found = select(*kind.shown).select_from(kind.source).where(*which)
    statement = found.order_by(kind.id).limit(limit)
    return [dict(row) for row in connection.execute(statement).mappings()]


def _theirs(kind: Kind, looker: Looker) -> ColumnElement[bool]:
    owners = [
        *([kind.customer] if looker.is_customer else []),
        *([kind.merchant] if looker.is_merchant else []),
    ]
    return or_(false(), *(owner == looker.user_id for owner in owners if owner is not None))

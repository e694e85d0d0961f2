"""Changing over to another master key, while gateways run.

Answers for every wrapped value in the ledger: by which master key it is, and wrapping it anew by
the current one, some at a time, each lot in a commit of its own. A value that somebody changed
meanwhile is left alone. Whatever was interrupted is finished by going through all of it again: what
is done is told by its first bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, Connection, LargeBinary, Table, Text, func, select, update

from taprail_gateway import issuer
from taprail_gateway.callbacks import webhook
from taprail_gateway.custody import PEPPER, PREFIX_BYTES, Custody, wrapped_by
from taprail_gateway.ledger import schema

AT_ONCE: Final = 200
"""Values in one commit, which a gateway's own commits wait for: a few milliseconds."""


@dataclass(frozen=True, slots=True)
class Place:
    """A column of wrapped values; `rewrap` is given custody, the row's key and the value."""

    table: Table
    name: str
    rewrap: Callable[[Custody, Any, bytes], bytes | None]
    only: str | None = None
    """The one row of the table that holds such a value; None: all of them."""

    @property
    def column(self) -> Column[Any]:
        return self.table.c[self.name]

    @property
    def key(self) -> Column[Any]:
        return next(iter(self.table.primary_key.columns))


def _by_address(custody: Custody, address: str, wrapped: bytes) -> bytes | None:
    return custody.rewrap_key(address, wrapped)


def _by_name(name_of: Callable[[Any], str]) -> Callable[[Custody, Any, bytes], bytes | None]:
    return lambda custody, key, wrapped: custody.rewrap_secret(name_of(key), wrapped)


PLACES: Final = (
    Place(schema.accounts, "wrapped_key", _by_address),
    Place(schema.lanes, "wrapped_key", _by_address),
    Place(schema.issuer_keys, "wrapped_sun_master_key", _by_name(issuer.sun_key_name)),
    Place(schema.issuer_keys, "wrapped_meta_read_key", _by_name(issuer.meta_key_name)),
    Place(schema.webhook_endpoints, "wrapped_secret", _by_name(webhook.secret_name)),
    Place(schema.webhook_endpoints, "wrapped_old_secret", _by_name(webhook.secret_name)),
    Place(schema.meta, "value", _by_name(lambda key: key), only=PEPPER),
)


@dataclass(frozen=True, slots=True)
class Lot:
    """What one commit has done; `last_key` is where the next one goes on, None: at the end."""

    rewrapped: int
    last_key: Any


def rewrap_some(
    connection: Connection, custody: Custody, place: Place, after: Any, limit: int = AT_ONCE
) -> Lot:
    """Wrap anew what is left among the next rows of a place."""
    statement = (
        select(place.key, place.column)
        .where(place.column.is_not(None))
        .order_by(place.key)
        .limit(limit)
    )
    if place.only is not None:
        statement = statement.where(place.key == place.only)
    if after is not None:
        statement = statement.where(place.key > after)
    rows = connection.execute(statement).all()
    done = sum(_rewrap(connection, custody, place, key, stored) for key, stored in rows)
    return Lot(done, rows[-1][0] if len(rows) == limit else None)


def count_by_key(connection: Connection) -> Counter[bytes | None]:
    """How many values are wrapped by each master key; None stands for those that do not tell."""
    counts: Counter[bytes | None] = Counter()
    for place in PLACES:
        in_text = isinstance(place.column.type, Text)
        length = PREFIX_BYTES * (2 if in_text else 1)
        kind: Text | LargeBinary = Text() if in_text else LargeBinary()
        head = func.substr(place.column, 1, length, type_=kind)
        statement = select(head, func.count()).where(place.column.is_not(None)).group_by(head)
        if place.only is not None:
            statement = statement.where(place.key == place.only)
        prefix: Any  # text or bytes, as the column is
        for prefix, count in connection.execute(statement):
            raw = bytes.fromhex(prefix) if in_text else bytes(prefix)
            counts[wrapped_by(raw)] += count
    return counts


def _rewrap(connection: Connection, custody: Custody, place: Place, key: Any, stored: Any) -> int:
    in_text = isinstance(stored, str)
    new = place.rewrap(custody, key, bytes.fromhex(stored) if in_text else bytes(stored))
    if new is None:
        return 0
    statement = (
        update(place.table)
        .where(place.key == key, place.column == stored)
        .values({place.name: new.hex() if in_text else new})
    )
    return connection.execute(statement).rowcount

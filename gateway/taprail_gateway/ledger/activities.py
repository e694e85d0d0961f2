"""How cards and terminals were used lately: stored whole, by who has the rows to itself.

The numbers are reckoned outside (`activity`) from what was read in the same transaction. On SQLite
no one else writes meanwhile; on a server the acceptance has locked the card and the terminal, whose
rows these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, bindparam, select

from taprail_gateway.activity import Activity
from taprail_gateway.ledger.prepared import Prepared
from taprail_gateway.ledger.schema import activity
from taprail_gateway.ledger.upserts import Insert, Upsert

CARD: Final = "card"
TERMINAL: Final = "terminal"

COLUMNS: Final = tuple(activity.c[name] for name in Activity._fields)
"""In the order of the fields of an Activity."""

Key = tuple[str, str]
"""Kind and id."""


def of_card(connection: Connection, card_uuid: str) -> Activity | None:
    """How a card was used; None when it never was."""
    key = (activity.c.kind == CARD) & (activity.c.id == card_uuid)
    row = connection.execute(select(*COLUMNS).where(key)).one_or_none()
    return None if row is None else Activity(*row)


def store(connection: Connection, activities: Mapping[Key, Activity]) -> None:
    """Write them, in the order of their keys."""
    if activities:
        rows = [
            {"kind": kind, "id": name, **activities[kind, name]._asdict()}
            for kind, name in sorted(activities)
        ]
        _STORE.run_each(connection, rows)


def _store(insert: Insert) -> Insert:
    names = ("kind", "id", *Activity._fields)
    return insert.values({name: bindparam(name) for name in names}).on_conflict_do_update(
        index_elements=["kind", "id"],
        set_={name: insert.excluded[name] for name in Activity._fields},
    )


_STORE: Final = Prepared(Upsert(activity, _store).statement)

"""INSERT … ON CONFLICT, which each engine's dialect spells for itself: the one place that chooses.

Both spell it alike, so a statement is written once, as a function of the insert it starts from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

Insert = sqlite.Insert | postgresql.Insert

_INSERTS: Final[dict[str, Callable[[Table], Insert]]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


class Upsert:
    """A prebuilt upsert for every engine; `statement(connection)` gives the one to execute."""

    def __init__(self, table: Table, build: Callable[[Insert], Insert]) -> None:
        self._statements = {name: build(insert(table)) for name, insert in _INSERTS.items()}

    def statement(self, connection: Connection) -> Insert:
        return self.for_engine(connection.dialect.name)

    def for_engine(self, name: str) -> Insert:
        return self._statements[name]

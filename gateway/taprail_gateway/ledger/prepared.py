"""Statements of the hot path: written by SQLAlchemy once for each dialect, then run as they are.

Core works out a cache key and a parameter dictionary at every call, which costs several times what
SQLite needs to run a statement of a hundred parameters. These statements never change, so their
text and the order of their parameters are kept; psycopg has the server plan such a text once, too.
Only for columns whose values the driver takes and gives as they are: text, integers, bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from sqlalchemy import (
    ClauseElement,
    Column,
    ColumnElement,
    Connection,
    CursorResult,
    Select,
    and_,
    bindparam,
    or_,
)

Values = Mapping[str, Any]


class Prepared:
    """One statement; `build` gives it for a connection's dialect, `columns` are those of an
    insert."""

    def __init__(
        self, build: Callable[[Connection], ClauseElement], columns: Sequence[str] = ()
    ) -> None:
        self._build = build
        self._columns = list(columns) or None
        self._written: dict[str, tuple[str, list[str] | None]] = {}

    def run(self, connection: Connection, values: Values) -> CursorResult[Any]:
        """Execute it once."""
        text, order = self._text(connection)
        return connection.exec_driver_sql(text, _in_order(order, values))

    def run_each(self, connection: Connection, rows: Sequence[Values]) -> int:
        """Execute it for each row; gives the number of rows that were changed in all."""
        text, order = self._text(connection)
        given = [_in_order(order, values) for values in rows]
        return connection.exec_driver_sql(text, given).rowcount

    def _text(self, connection: Connection) -> tuple[str, list[str] | None]:
        name = connection.dialect.name
        if name not in self._written:
            # For many rows: so an insert does not ask for the keys that its rows were given.
            written = self._build(connection).compile(
                dialect=connection.dialect, column_keys=self._columns, for_executemany=True
            )
            self._written[name] = (str(written), getattr(written, "positiontup", None))
        return self._written[name]


def _in_order(order: list[str] | None, values: Values) -> Any:
    return dict(values) if order is None else tuple([values[name] for name in order])


_LENGTHS: Final = (1, 4, 16, 32, 64)
"""The longest is a full group commit; between two lengths at most four times too much is asked."""


class Lookup:
    """A select of the rows of many keys, by one column or by several together.

    There is a statement for each of a few numbers of keys, filled up with the last key. Keys are
    alternatives, each answered by its own index search: SQLite scans the whole table for
    `(a, b) IN (VALUES …)`.
    """

    def __init__(self, select: Select[Any], columns: Sequence[Column[Any]]) -> None:
        self._statements = {
            length: prepared(select.where(_any_of(columns, length))) for length in _LENGTHS
        }
        self._names = [_name(at, n) for at in range(_LENGTHS[-1]) for n in range(len(columns))]

    def rows(self, connection: Connection, keys: Sequence[tuple[object, ...]]) -> list[Any]:
        """What is there, in no order; a key is a tuple of as many values as there are columns."""
        found: list[Any] = []
        for start in range(0, len(keys), _LENGTHS[-1]):
            part = keys[start : start + _LENGTHS[-1]]
            length = next(length for length in _LENGTHS if length >= len(part))
            filled = [*part, *[part[-1]] * (length - len(part))]
            values = dict(zip(self._names, chain.from_iterable(filled), strict=False))
            found += self._statements[length].run(connection, values).all()
        return found


def prepared(statement: ClauseElement, columns: Sequence[str] = ()) -> Prepared:
    """A statement that every dialect spells by itself."""
    return Prepared(lambda _connection: statement, columns)


def _any_of(columns: Sequence[Column[Any]], length: int) -> ColumnElement[bool]:
    return or_(
        *(
            and_(*(each == bindparam(_name(position, n)) for n, each in enumerate(columns)))
            for position in range(length)
        )
    )


def _name(position: int, column: int) -> str:
    return f"key_{position}_{column}"

"""Statements of the hot path: written by SQLAlchemy once for each dialect, then run by the driver.

Core works out a cache key and a parameter dictionary at every call, and makes a context and a
result for it, which costs several times what SQLite needs to run a statement of a hundred
parameters. These statements never change, so their text and the order of their parameters are kept
and given to the driver's own cursor; psycopg has the server plan such a text once, too. Only for
columns whose values the driver takes and gives as they are: text, integers, bytes.

What the driver raises is raised under SQLAlchemy's names, as everywhere else in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypeVar

from sqlalchemy import (
    ClauseElement,
    Column,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    or_,
)
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError

Values = Mapping[str, Any]
_T = TypeVar("_T")


class Prepared:
    """One statement; `build` gives it for a connection's dialect, `columns` are those of an
    insert."""

    def __init__(
        self, build: Callable[[Connection], ClauseElement], columns: Sequence[str] = ()
    ) -> None:
        self._build = build
        self._columns = list(columns) or None
        self._written: dict[str, tuple[str, list[str] | None]] = {}

    def run(self, connection: Connection, values: Values) -> int:
        """Execute it once; gives the number of rows that were changed."""
        text, order = self._text(connection)
        given = _in_order(order, values)
        return _driven(connection, text, lambda cursor: cursor.execute(text, given), _changed)

    def run_each(self, connection: Connection, rows: Sequence[Values]) -> int:
        """Execute it for each row; gives the number of rows that were changed in all."""
        text, order = self._text(connection)
        given = [_in_order(order, values) for values in rows]
        return _driven(connection, text, lambda cursor: cursor.executemany(text, given), _changed)

    def rows(self, connection: Connection, values: Values) -> list[tuple[Any, ...]]:
        """Execute it once; gives the rows that it finds."""
        text, order = self._text(connection)
        given = _in_order(order, values)
        return _driven(connection, text, lambda cursor: cursor.execute(text, given), _found)

    def value(self, connection: Connection, values: Values) -> Any:
        """The only value of the only row that it finds; None without a row."""
        found = self.rows(connection, values)
        return found[0][0] if found else None

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
    return dict(values) if order is None else tuple(map(values.__getitem__, order))


def _changed(cursor: DBAPICursor) -> int:
    return cursor.rowcount


def _found(cursor: DBAPICursor) -> list[tuple[Any, ...]]:
    return list(cursor.fetchall())


def _driven(
    connection: Connection,
    text: str,
    run: Callable[[DBAPICursor], object],
    result: Callable[[DBAPICursor], _T],
) -> _T:
    """Run a statement on the driver's cursor, within the connection's transaction."""
    driver = connection.connection
    cursor = driver.cursor()
    try:
        run(cursor)
        return result(cursor)
    except connection.dialect.loaded_dbapi.Error as exc:
        raise _named(connection, text, cursor, exc) from exc
    finally:
        cursor.close()


def _named(connection: Connection, text: str, cursor: DBAPICursor, exc: Any) -> BaseException:
    """A driver's error under SQLAlchemy's name; a connection that is lost is not used again."""
    dialect = connection.dialect
    is_lost = dialect.is_disconnect(exc, connection.connection, cursor)
    if is_lost:
        connection.invalidate(exc)
    named: BaseException = DBAPIError.instance(
        text,
        None,
        exc,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,  # they are customers'
        connection_invalidated=is_lost,
        dialect=dialect,
    )
    return named


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
            found += self._statements[length].rows(connection, values)
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

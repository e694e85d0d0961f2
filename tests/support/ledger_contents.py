"""What is in a ledger of whatever version: definitions as its engine keeps them, and rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    create_engine,
    insert,
    select,
    text,
)

from taprail_gateway.ledger.engines import is_server, ledger_url
from taprail_gateway.ledger.sqlite_engine import ledger_file

ROWS: Final = 3
"""Of each table that `fill` fills."""

Rows = dict[str, list[dict[str, Any]]]

# What a check allows in a column; all others take anything of their type.
_CHOICES: Final[dict[str, list[Any]]] = {
    "users.role": ["customer", "merchant", "operator"],
    "merchants.status": ["active", "closed"],
    "terminals.status": ["active", "revoked"],
    "cards.profile": ["sun", "uid"],
    "cards.status": ["active", "frozen", "expired"],
    "chain_transactions.status": ["signed", "broadcast", "final"],
    "payments.state": ["completed", "sent", "pending"],
    "lanes.purpose": ["payments", "rewards"],
    "attempts.kind": ["payload", "noop"],
    "callbacks.status": ["waiting", "done", "dead"],
    "mints.state": ["completed", "sent", "pending"],
    "alerts.level": ["info", "warning", "error"],
    "activity.kind": ["card", "terminal"],
    "charges.status": ["approved", "approved", "waiting"],
    "card_pins.tries_left": [3, 2, 0],
    "terminal_beats.reader_ok": [0, 1, 1],
    "terminal_config_reports.outcome": ["applied", "refused", None],
    "webhook_endpoints.status": ["active", "removed"],
    "webhook_deliveries.status": ["waiting", "done", "dead"],
}

_SERVER_DEFINITIONS: Final = """
    SELECT conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) FROM pg_constraint
     WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT table_name || '.' || column_name,
           concat_ws(' ', data_type, character_maximum_length, is_nullable, column_default)
      FROM information_schema.columns WHERE table_schema = 'public'
"""


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A transaction without anything that the ledger's own connections do."""
    engine = create_engine(ledger_url(url))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def definitions(url: str) -> dict[str, Any]:
    """What the engine itself keeps of every table, index and constraint."""
    parsed = ledger_url(url)
    if is_server(parsed):
        found = _server_definitions(url)
    else:
        found = _file_definitions(str(ledger_file(parsed)))
    return {name: text for name, text in found.items() if "alembic" not in name}


def _server_definitions(url: str) -> dict[str, Any]:
    with connected(url) as connection:
        found = connection.execute(text(_SERVER_DEFINITIONS))
        return {str(row[0]): row[1] for row in found}


def _file_definitions(path: str) -> dict[str, Any]:
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%'"
    ).fetchall()
    connection.close()
    return {name: sorted(_parts("".join(sql.split()))) for name, sql in rows}


def _parts(definition: str) -> list[str]:
    # SQLAlchemy writes a table's constraints in no fixed order; SQLite quotes what it has renamed.
    return definition.replace('"', "").removesuffix(")").split(",CONSTRAINT")


def fill(url: str) -> None:
    """Put rows into every table that is there: one that holds something in every column first."""
    with connected(url) as connection:
        for table in _tables(connection):
            connection.execute(insert(table), [_row(table, number) for number in range(ROWS)])


def rows(url: str) -> Rows:
    """All that is in all tables, in the order of their keys."""
    with connected(url) as connection:
        return {
            table.name: [
                dict(row._mapping)
                for row in connection.execute(select(table).order_by(*table.primary_key))
            ]
            for table in _tables(connection)
        }


def _tables(connection: Connection) -> list[Table]:
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def _row(table: Table, number: int) -> dict[str, Any]:
    return {column.name: _value(column, number) for column in table.columns}


def _value(column: Column[Any], number: int) -> Any:
    choices = _CHOICES.get(f"{column.table.name}.{column.name}")
    if choices is not None:
        return choices[number % len(choices)]
    for key in column.foreign_keys:
        return _value(key.column, number) if number < ROWS - 1 or not column.nullable else None
    if column.nullable and number == ROWS - 1:
        return None
    if isinstance(column.type, Integer):
        return 1_000 * len(column.name) + number
    if isinstance(column.type, LargeBinary):
        return column.name.encode() + bytes([0, 255, number])
    length = getattr(column.type, "length", None) or 100
    return f"{number}é {column.name} of {column.table.name}"[:length]

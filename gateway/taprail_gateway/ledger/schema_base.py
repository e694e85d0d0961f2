"""What all tables are made of: names of constraints, types of columns, literal conditions."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, ColumnElement, Integer, MetaData, String, literal_column

metadata: Final = MetaData(
    # Named constraints, so that a migration can speak of them on every engine.
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite counts rows by itself only in a column that is INTEGER to the letter.
RowId = BigInteger().with_variant(Integer, "sqlite")
Id = String(64)
Address = String(42)
Hash = String(66)


def in_list(column: str, values: list[str]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def literal(value: str) -> ColumnElement[str]:
    # A partial index serves only a query that repeats its condition to the letter; a parameter
    # there would hide from the planner that it does (https://sqlite.org/partialindex.html).
    return literal_column(repr(value), String)


def literals(values: list[str]) -> list[ColumnElement[str]]:
    return [literal(value) for value in values]

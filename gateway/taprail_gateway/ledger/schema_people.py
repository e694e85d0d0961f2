"""The table of users. Part of `schema`, under whose name everybody else imports it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, String, Table

from taprail_gateway.ledger.schema_base import Id, in_list, metadata

users: Final = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("frozen_at_ms", BigInteger, comment="since then nobody acts or pays as them"),
    CheckConstraint(in_list("role", ["customer", "merchant", "operator"]), "role"),
)
is_frozen: Final = users.c.frozen_at_ms.is_not(None)
Index("ix_users_frozen", users.c.frozen_at_ms, sqlite_where=is_frozen, postgresql_where=is_frozen)

"""The tables of those who act: users with their tokens, and terminals. Part of `schema`, under
whose name everybody else imports them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    String,
    Table,
    case,
)

from taprail_gateway.ledger.schema_base import Id, in_list, literal, metadata

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

tokens: Final = Table(
    "tokens",
    metadata,
    Column("id", Id, primary_key=True, comment="the claim jti"),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("scopes", String(64), nullable=False, comment="with spaces between"),
    Column("issued_at_ms", BigInteger, nullable=False),
    Column("issued_by", String(80), comment="unset: issued elsewhere, noted to be revoked"),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("revoked_at_ms", BigInteger, comment="since then it is good for nothing"),
    Column("revoked_by", String(80)),
    comment="Bearer tokens by their ids, never the tokens themselves; old ones go in time",
)
is_revoked: Final = tokens.c.revoked_at_ms.is_not(None)
Index(
    "ix_tokens_revoked",
    tokens.c.revoked_at_ms,
    sqlite_where=is_revoked,
    postgresql_where=is_revoked,
)
Index("ix_tokens_expires", tokens.c.expires_at_ms)

terminals: Final = Table(
    "terminals",
    metadata,
    Column("id", Id, primary_key=True),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("name", String(200), nullable=False),
    Column("public_key", String(64), nullable=False, comment="Ed25519, hex"),
    Column("status", String(16), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("frozen_at_ms", BigInteger, comment="since then nothing is taken of it, for the time"),
    CheckConstraint(in_list("status", ["active", "revoked"]), "status"),
)
_stands: Final = (terminals.c.status != literal("active")) | terminals.c.frozen_at_ms.is_(None)
terminal_status: Final = case((_stands, terminals.c.status), else_=literal("frozen"))
"""How a terminal stands: `active`, `frozen` or, for good, `revoked`."""

"""Tables of field technicians: whose key counts, and what they changed. `schema` makes them part
of the ledger."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, String, Table, UniqueConstraint

from taprail_gateway.ledger.schema_base import Id, RowId, metadata

technicians: Final = Table(
    "technicians",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("name", Id, nullable=False),
    Column("public_key", String(64), nullable=False, comment="Ed25519, hex"),
    Column("issued_at_ms", BigInteger, nullable=False),
    Column("issued_by", String(80), nullable=False),
    Column("revoked_at_ms", BigInteger, comment="unset: the key counts"),
    Column("revoked_by", String(80)),
    UniqueConstraint("public_key"),
    comment="Whose keys may change terminals; a key that was revoked never counts again",
)
technician_is_active: Final = technicians.c.revoked_at_ms.is_(None)
Index(
    "uq_technicians_name",
    technicians.c.name,
    unique=True,
    sqlite_where=technician_is_active,
    postgresql_where=technician_is_active,
)

terminal_changes: Final = Table(
    "terminal_changes",
    metadata,
    Column("terminal_id", ForeignKey("terminals.id"), primary_key=True),
    Column("journal", Id, primary_key=True, comment="the terminal's; one that is new begins anew"),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("made_at_ms", BigInteger, nullable=False, comment="by the terminal's clock"),
    Column("technician", Id, nullable=False, comment="as the terminal tells it"),
    Column("command", String(200), nullable=False),
    Column("outcome", String(200), nullable=False),
    Column("received_at_ms", BigInteger, nullable=False),
    comment="What technicians have changed at terminals, as these report it; never altered",
)
Index(
    "ix_terminal_changes_received",
    terminal_changes.c.terminal_id,
    terminal_changes.c.received_at_ms,
)

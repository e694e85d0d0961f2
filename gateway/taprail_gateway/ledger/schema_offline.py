"""The tables of offline taps. Part of `schema`, under whose name everybody else imports them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
)

from taprail_gateway.ledger.schema_base import Hash, Id, metadata

offline_policies: Final = Table(
    "offline_policies",
    metadata,
    Column("terminal_id", ForeignKey("terminals.id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("per_tap_units", BigInteger, nullable=False),
    Column("max_count", Integer, nullable=False),
    Column("sum_units", BigInteger, nullable=False),
    Column("max_age_s", Integer, nullable=False),
    Column("set_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger, comment="unset: it holds"),
    CheckConstraint("version > 0", "version"),
    comment="What terminals may take without asking; each change is a version of its own",
)

offline_taps: Final = Table(
    "offline_taps",
    metadata,
    Column("terminal_id", Id, primary_key=True),
    Column("request_id", Id, primary_key=True),
    Column("version", Integer, comment="of the policy that it names"),
    Column("payment_id", Hash, nullable=False),
    Column("amount_units", BigInteger, nullable=False),
    Column("tapped_at_ms", BigInteger, nullable=False),
    Column("received_at_ms", BigInteger, nullable=False),
    Column("reason", String(40), comment="why it was declined: a loss; unset: it is paid"),
    comment="Taps that were taken without asking, as they came in",
)
Index("ix_offline_taps_received", offline_taps.c.terminal_id, offline_taps.c.received_at_ms)

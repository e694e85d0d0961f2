"""Tables of the fleet: how terminals are, what they are told to be like, what they have found.
`schema` makes them part of the ledger."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    String,
    Table,
    Text,
)

from taprail_gateway.ledger.schema_base import Id, in_list, metadata

OUTCOMES: Final = ("applied", "refused")

terminal_beats: Final = Table(
    "terminal_beats",
    metadata,
    Column("terminal_id", ForeignKey("terminals.id"), primary_key=True),
    Column("heard_at_ms", BigInteger, nullable=False, comment="by the gateway's clock"),
    Column("version", String(100), nullable=False, comment="of the terminal's software"),
    Column("phase", String(100), nullable=False),
    Column("reader_ok", Integer, nullable=False),
    Column("reader", String(100), nullable=False),
    Column("unresolved", Integer, nullable=False, comment="requests without a verdict"),
    Column("unsettled", Integer, nullable=False, comment="approved, and not yet on the chain"),
    Column("uptime_s", BigInteger, nullable=False),
    Column("clock_offset_ms", BigInteger, comment="the gateway's clock minus the terminal's"),
    Column("config_version", Integer, nullable=False, comment="pushed, and in force"),
    CheckConstraint("reader_ok IN (0, 1)", "reader"),
    comment="The last heartbeat of each terminal; written now and then, not at each",
)

terminal_configs: Final = Table(
    "terminal_configs",
    metadata,
    Column("terminal_id", ForeignKey("terminals.id"), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("settings", Text, nullable=False, comment="JSON: value by name; null: left out"),
    Column("set_at_ms", BigInteger, nullable=False, index=True),
    Column("set_by", String(80), nullable=False),
    CheckConstraint("version > 0", "version"),
    comment="What operators want of terminals' settings; each change is the next version",
)

terminal_config_reports: Final = Table(
    "terminal_config_reports",
    metadata,
    Column("terminal_id", ForeignKey("terminals.id"), primary_key=True),
    Column("version", Integer, nullable=False, comment="that it is about; 0: none was wanted"),
    Column("outcome", String(16)),
    Column("reason", String(300), comment="why it was refused"),
    Column("applied_version", Integer, nullable=False),
    Column("settings", Text, nullable=False, comment="JSON: what runs"),
    Column("reported_at_ms", BigInteger, nullable=False),
    CheckConstraint(in_list("outcome", list(OUTCOMES)), "outcome"),
    comment="What came of it, as each terminal reports it",
)

terminal_diagnoses: Final = Table(
    "terminal_diagnoses",
    metadata,
    Column("terminal_id", ForeignKey("terminals.id"), primary_key=True),
    Column("id", Id, nullable=False),
    Column("asked_at_ms", BigInteger, nullable=False, index=True),
    Column("deadline_ms", BigInteger, nullable=False),
    Column("told_at_ms", BigInteger, comment="when a gateway had its socket and asked it"),
    Column("answered_at_ms", BigInteger),
    Column("report", Text, comment="byte for byte what the terminal has signed"),
    Column("signature", String(128)),
    CheckConstraint("(answered_at_ms IS NULL) = (report IS NULL)", "answered"),
    comment="The last diagnosis that was asked of each terminal",
)

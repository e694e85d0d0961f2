"""The tables beside the cards': what is remembered of use, the audit log, the issuer's keys.

Part of `schema`, under whose name everybody else imports them.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from taprail_gateway.ledger.schema_base import Id, in_list, metadata

activity: Final = Table(
    "activity",
    metadata,
    Column("kind", String(8), primary_key=True),
    Column("id", Id, primary_key=True, comment="of the card or the terminal"),
    Column("minute", BigInteger, nullable=False, comment="since 1970, of the last tap"),
    Column("minute_taps", Integer, nullable=False),
    Column("minute_taps_before", Integer, nullable=False, comment="in the minute before that"),
    Column("hour", BigInteger, nullable=False),
    Column("hour_taps", Integer, nullable=False),
    Column("hour_taps_before", Integer, nullable=False),
    Column("hour_declines", Integer, nullable=False),
    Column("hour_declines_before", Integer, nullable=False),
    Column("payments", Integer, nullable=False, comment="that the usual amount is made of"),
    Column("usual_units", BigInteger, nullable=False, comment="running mean of the amounts"),
    Column("spread_units", BigInteger, nullable=False, comment="running mean deviation"),
    CheckConstraint(in_list("kind", ["card", "terminal"]), "kind"),
    comment="How a card or a terminal was used lately; of one size, however long its history is",
)

audit_links: Final = Table(
    "audit_links",
    metadata,
    Column("chain", String(40), primary_key=True, comment="of one gateway process"),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False, index=True),
    Column("entries", Text, nullable=False, comment="JSON: the decisions of one commit"),
    Column("previous", String(64), nullable=False, comment="digest of the link before; or empty"),
    Column("digest", String(64), nullable=False, comment="SHA-256 of all of the above"),
    Column("signature", String(128), nullable=False, comment="of the digest, by the gateway's key"),
    comment="Every decision and its reasons: one link for each commit, one chain for each process",
)

issuer_keys: Final = Table(
    "issuer_keys",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("wrapped_sun_master_key", LargeBinary, nullable=False),
    Column("wrapped_meta_read_key", LargeBinary, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    comment="The keys of the cards that this gateway issues, wrapped by the master key",
)

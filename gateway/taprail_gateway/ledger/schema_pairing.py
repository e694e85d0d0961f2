"""Tables of pairing and of keys that change. `schema` makes them part of the ledger."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Integer, String, Table

from taprail_gateway.ledger.schema_base import Id, metadata

pairings: Final = Table(
    "pairings",
    metadata,
    Column("name", String(4), primary_key=True, comment="the part of the code that is sent"),
    Column("proof_key", String(64), nullable=False, comment="argon2id of the rest, hex"),
    Column("terminal_id", Id, nullable=False),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("terminal_name", String(200), nullable=False),
    Column("actor", String(80), nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("tries_left", Integer, nullable=False),
    Column("public_key", String(64), comment="of whom it was used by"),
    CheckConstraint("tries_left >= 0", "tries"),
    comment="One-use codes by which terminals are paired; old ones go when a new one is made",
)

terminal_next_keys: Final = Table(
    "terminal_next_keys",
    metadata,
    Column("terminal_id", ForeignKey("terminals.id"), primary_key=True),
    Column("public_key", String(64), nullable=False, comment="Ed25519, hex"),
    Column("announced_at_ms", BigInteger, nullable=False),
    comment="Keys that terminals change over to: valid beside the old one until first used",
)

gateway_successions: Final = Table(
    "gateway_successions",
    metadata,
    Column("old_key", String(64), primary_key=True, comment="Ed25519, hex"),
    Column("new_key", String(64), nullable=False),
    Column("signature", String(128), nullable=False, comment="by the old key, base64"),
    Column("at_ms", BigInteger, nullable=False),
    comment="By which key a gateway's key is followed; a terminal walks along",
)

"""The table of cards' PINs. Part of `schema`, under whose name everybody else imports it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Integer, String, Table

from taprail_gateway.ledger.schema_base import metadata

card_pins: Final = Table(
    "card_pins",
    metadata,
    Column("card_uuid", ForeignKey("cards.uuid"), primary_key=True),
    Column("verifier", String(200), nullable=False, comment="argon2id, over the peppered PIN"),
    Column("above_units", BigInteger, nullable=False, comment="from there on it is asked for"),
    Column("tries_left", Integer, nullable=False),
    Column("set_at_ms", BigInteger, nullable=False),
    CheckConstraint("tries_left BETWEEN 0 AND 3", "tries"),
    CheckConstraint("above_units >= 0", "above"),
    comment="Cards that have a PIN, for payments above an amount",
)

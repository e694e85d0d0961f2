"""The table of what signing cards have signed. Part of `schema`, where everybody imports it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, LargeBinary, Table

from taprail_gateway.ledger.schema_base import metadata

card_authorizations: Final = Table(
    "card_authorizations",
    metadata,
    Column("payment_id", ForeignKey("payments.id"), primary_key=True),
    Column("valid_before_s", BigInteger, nullable=False),
    Column("signature", LargeBinary, nullable=False, comment="r, s, v: 65 bytes"),
    comment="What signing cards have signed; nobody here could sign it again",
)

"""The tables of refunds. Part of `schema`, under whose name everybody else imports them.

A refund is a payment like any other, from the merchant's account to the one that paid. What makes
it a refund is its row here.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    literal_column,
)

from taprail_gateway.ledger.schema_base import metadata

AWAITS_FLOAT_MS: Final = 2**62
"""When a refund is due that waits for money: at no time."""

merchant_floats: Final = Table(
    "merchant_floats",
    metadata,
    Column("merchant_id", ForeignKey("merchants.id"), primary_key=True),
    Column("account", ForeignKey("accounts.address"), nullable=False, unique=True),
    Column("created_at_ms", BigInteger, nullable=False),
    comment="Accounts in custody that merchants' refunds are paid from",
)

refunded_sales: Final = Table(
    "refunded_sales",
    metadata,
    Column("sale_id", ForeignKey("payments.id"), primary_key=True),
    Column("refundable_units", BigInteger, nullable=False, comment="what was paid"),
    Column(
        "refunded_units", BigInteger, nullable=False, comment="all refunds that have not failed"
    ),
    CheckConstraint("refunded_units >= 0 AND refunded_units <= refundable_units", "never_more"),
    comment="How much of a sale is given back, or promised to be",
)

refunds: Final = Table(
    "refunds",
    metadata,
    Column("payment_id", ForeignKey("payments.id"), primary_key=True),
    Column("sale_id", ForeignKey("payments.id"), nullable=False, index=True),
    Column("request", LargeBinary, nullable=False, comment="what was asked for, byte for byte"),
    Column(
        "awaits_float",
        Integer,
        nullable=False,
        server_default="0",
        comment="1: not to be sent before the merchant's account covers it",
    ),
    comment="Which payments give back a part of which sales",
)
refund_awaits_float: Final = refunds.c.awaits_float == literal_column("1", Integer)
Index(
    "ix_refunds_awaiting",
    refunds.c.payment_id,
    sqlite_where=refund_awaits_float,
    postgresql_where=refund_awaits_float,
)

"""Refunds: what is given back of which sale, by which payments, and from whose account."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_AWAITING = sa.text("awaits_float = 1")


def upgrade() -> None:
    op.create_table(
        "merchant_floats",
        sa.Column("merchant_id", sa.String(64), nullable=False),
        sa.Column("account", sa.String(42), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants.id"], name=op.f("fk_merchant_floats_merchant_id")
        ),
        sa.ForeignKeyConstraint(
            ["account"], ["accounts.address"], name=op.f("fk_merchant_floats_account")
        ),
        sa.PrimaryKeyConstraint("merchant_id", name=op.f("pk_merchant_floats")),
        sa.UniqueConstraint("account", name=op.f("uq_merchant_floats_account")),
        comment="Accounts in custody that merchants' refunds are paid from",
    )
    op.create_table(
        "refunded_sales",
        sa.Column("sale_id", sa.String(66), nullable=False),
        sa.Column("refundable_units", sa.BigInteger(), nullable=False, comment="what was paid"),
        sa.Column(
            "refunded_units",
            sa.BigInteger(),
            nullable=False,
            comment="all refunds that have not failed",
        ),
        sa.CheckConstraint(
            "refunded_units >= 0 AND refunded_units <= refundable_units",
            name=op.f("ck_refunded_sales_never_more"),
        ),
        sa.ForeignKeyConstraint(
            ["sale_id"], ["payments.id"], name=op.f("fk_refunded_sales_sale_id")
        ),
        sa.PrimaryKeyConstraint("sale_id", name=op.f("pk_refunded_sales")),
        comment="How much of a sale is given back, or promised to be",
    )
    op.create_table(
        "refunds",
        sa.Column("payment_id", sa.String(66), nullable=False),
        sa.Column("sale_id", sa.String(66), nullable=False),
        sa.Column(
            "request",
            sa.LargeBinary(),
            nullable=False,
            comment="what was asked for, byte for byte",
        ),
        sa.Column(
            "awaits_float",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="1: not to be sent before the merchant's account covers it",
        ),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payments.id"], name=op.f("fk_refunds_payment_id")
        ),
        sa.ForeignKeyConstraint(["sale_id"], ["payments.id"], name=op.f("fk_refunds_sale_id")),
        sa.PrimaryKeyConstraint("payment_id", name=op.f("pk_refunds")),
        comment="Which payments give back a part of which sales",
    )
    op.create_index(op.f("ix_refunds_sale_id"), "refunds", ["sale_id"])
    op.create_index(
        "ix_refunds_awaiting",
        "refunds",
        ["payment_id"],
        sqlite_where=_AWAITING,
        postgresql_where=_AWAITING,
    )

"""Charges: what tills ask terminals to take, and what terminals show meanwhile."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_OPEN = sa.text("status IN ('waiting', 'armed')")


def upgrade() -> None:
    op.create_table(
        "charges",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("terminal_id", sa.String(64), nullable=False),
        sa.Column("merchant_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False, comment="who asked for it"),
        sa.Column(
            "reference", sa.String(64), nullable=False, comment="the till's own name for the sale"
        ),
        sa.Column(
            "idempotency_key",
            sa.String(64),
            comment="of the request that made it, if it gave one",
        ),
        sa.Column("amount_units", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(12), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason_code", sa.String(40), comment="why it came to no payment"),
        sa.Column("payment_id", sa.String(66)),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=False),
        sa.Column("armed_at_ms", sa.BigInteger()),
        sa.Column("ended_at_ms", sa.BigInteger()),
        sa.Column("changed_at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "status IN ('waiting', 'armed', 'approved', 'declined', 'cancelled', 'expired',"
            " 'refused')",
            name=op.f("ck_charges_status"),
        ),
        sa.CheckConstraint(
            "(status = 'approved') = (payment_id IS NOT NULL)", name=op.f("ck_charges_paid")
        ),
        sa.CheckConstraint(
            "(status IN ('waiting', 'armed')) = (ended_at_ms IS NULL)",
            name=op.f("ck_charges_ended"),
        ),
        sa.ForeignKeyConstraint(
            ["terminal_id"], ["terminals.id"], name=op.f("fk_charges_terminal_id")
        ),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants.id"], name=op.f("fk_charges_merchant_id")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_charges_user_id")),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payments.id"], name=op.f("fk_charges_payment_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_charges")),
        sa.UniqueConstraint("payment_id", name=op.f("uq_charges_payment_id")),
        sa.UniqueConstraint(
            "terminal_id", "idempotency_key", name=op.f("uq_charges_terminal_id_idempotency_key")
        ),
        comment="What tills ask terminals to take",
    )
    op.create_index(op.f("ix_charges_changed_at_ms"), "charges", ["changed_at_ms"])
    op.create_index(
        "ix_charges_open",
        "charges",
        ["terminal_id"],
        unique=True,
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
    op.create_index("ix_charges_reference", "charges", ["terminal_id", "reference"])
    op.create_table(
        "terminal_texts",
        sa.Column("terminal_id", sa.String(64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("set_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["terminal_id"], ["terminals.id"], name=op.f("fk_terminal_texts_terminal_id")
        ),
        sa.PrimaryKeyConstraint("terminal_id", name=op.f("pk_terminal_texts")),
        comment="What terminals show while there is nothing to pay",
    )
    op.create_index(op.f("ix_terminal_texts_set_at_ms"), "terminal_texts", ["set_at_ms"])

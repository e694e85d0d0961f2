"""Taps that terminals take without asking."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "offline_policies",
        sa.Column("terminal_id", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("per_tap_units", sa.BigInteger(), nullable=False),
        sa.Column("max_count", sa.Integer(), nullable=False),
        sa.Column("sum_units", sa.BigInteger(), nullable=False),
        sa.Column("max_age_s", sa.Integer(), nullable=False),
        sa.Column("set_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), comment="unset: it holds"),
        sa.CheckConstraint("version > 0", name=op.f("ck_offline_policies_version")),
        sa.ForeignKeyConstraint(
            ["terminal_id"], ["terminals.id"], name=op.f("fk_offline_policies_terminal_id")
        ),
        sa.PrimaryKeyConstraint("terminal_id", "version", name=op.f("pk_offline_policies")),
        comment="What terminals may take without asking; each change is a version of its own",
    )
    op.create_table(
        "offline_taps",
        sa.Column("terminal_id", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), comment="of the policy that it names"),
        sa.Column("payment_id", sa.String(66), nullable=False),
        sa.Column("amount_units", sa.BigInteger(), nullable=False),
        sa.Column("tapped_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("received_at_ms", sa.BigInteger(), nullable=False),
        sa.Column(
            "reason", sa.String(40), comment="why it was declined: a loss; unset: it is paid"
        ),
        sa.PrimaryKeyConstraint("terminal_id", "request_id", name=op.f("pk_offline_taps")),
        comment="Taps that were taken without asking, as they came in",
    )
    op.create_index("ix_offline_taps_received", "offline_taps", ["terminal_id", "received_at_ms"])

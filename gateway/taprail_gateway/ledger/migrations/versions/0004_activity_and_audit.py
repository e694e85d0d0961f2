"""What fraud rules look at, and the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_activity()
    create_audit_links()


def create_activity() -> None:
    op.create_table(
        "activity",
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("id", sa.String(64), nullable=False, comment="of the card or the terminal"),
        sa.Column("minute", sa.BigInteger(), nullable=False, comment="since 1970, of the last tap"),
        sa.Column("minute_taps", sa.Integer(), nullable=False),
        sa.Column(
            "minute_taps_before",
            sa.Integer(),
            nullable=False,
            comment="in the minute before that",
        ),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("hour_taps", sa.Integer(), nullable=False),
        sa.Column("hour_taps_before", sa.Integer(), nullable=False),
        sa.Column("hour_declines", sa.Integer(), nullable=False),
        sa.Column("hour_declines_before", sa.Integer(), nullable=False),
        sa.Column(
            "payments", sa.Integer(), nullable=False, comment="that the usual amount is made of"
        ),
        sa.Column(
            "usual_units", sa.BigInteger(), nullable=False, comment="running mean of the amounts"
        ),
        sa.Column(
            "spread_units", sa.BigInteger(), nullable=False, comment="running mean deviation"
        ),
        sa.CheckConstraint("kind IN ('card', 'terminal')", name=op.f("ck_activity_kind")),
        sa.PrimaryKeyConstraint("kind", "id", name=op.f("pk_activity")),
        comment="How a card or a terminal was used lately; of one size, however long its history"
        " is",
    )


def create_audit_links() -> None:
    op.create_table(
        "audit_links",
        sa.Column("chain", sa.String(40), nullable=False, comment="of one gateway process"),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column(
            "entries", sa.Text(), nullable=False, comment="JSON: the decisions of one commit"
        ),
        sa.Column(
            "previous",
            sa.String(64),
            nullable=False,
            comment="digest of the link before; or empty",
        ),
        sa.Column("digest", sa.String(64), nullable=False, comment="SHA-256 of all of the above"),
        sa.Column(
            "signature",
            sa.String(128),
            nullable=False,
            comment="of the digest, by the gateway's key",
        ),
        sa.PrimaryKeyConstraint("chain", "seq", name=op.f("pk_audit_links")),
        comment="Every decision and its reasons: one link for each commit, one chain for each"
        " process",
    )
    op.create_index(op.f("ix_audit_links_at_ms"), "audit_links", ["at_ms"])

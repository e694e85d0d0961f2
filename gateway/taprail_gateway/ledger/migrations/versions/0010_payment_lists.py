"""Payments as lists, the newest first: of all, and of a merchant."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_payments_merchant_id_created_at_ms", "payments", ["merchant_id", "created_at_ms"]
    )
    op.create_index("ix_payments_created_at_ms", "payments", ["created_at_ms"])

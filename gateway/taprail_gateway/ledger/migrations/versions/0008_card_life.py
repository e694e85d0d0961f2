"""When a card ends, and which one has taken its place."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "cards", sa.Column("expires_at_ms", sa.BigInteger(), comment="from then on it is refused")
    )
    op.add_column(
        "cards",
        sa.Column("replaced_by", sa.String(64), comment="the card that has its account now"),
    )

"""Whose day a card goes on with that has taken another one's place."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "cards",
        sa.Column("day_of", sa.String(64), comment="the card whose spend it goes on with"),
    )

"""Since when a user is frozen."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "users",
        sa.Column(
            "frozen_at_ms", sa.BigInteger(), comment="since then nobody acts or pays as them"
        ),
    )
    is_frozen = sa.text("frozen_at_ms IS NOT NULL")
    op.create_index(
        "ix_users_frozen",
        "users",
        ["frozen_at_ms"],
        sqlite_where=is_frozen,
        postgresql_where=is_frozen,
    )

"""PINs of cards."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "card_pins",
        sa.Column("card_uuid", sa.String(64), nullable=False),
        sa.Column(
            "verifier", sa.String(200), nullable=False, comment="argon2id, over the peppered PIN"
        ),
        sa.Column(
            "above_units", sa.BigInteger(), nullable=False, comment="from there on it is asked for"
        ),
        sa.Column("tries_left", sa.Integer(), nullable=False),
        sa.Column("set_at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("tries_left BETWEEN 0 AND 3", name=op.f("ck_card_pins_tries")),
        sa.CheckConstraint("above_units >= 0", name=op.f("ck_card_pins_above")),
        sa.ForeignKeyConstraint(["card_uuid"], ["cards.uuid"], name=op.f("fk_card_pins_card_uuid")),
        sa.PrimaryKeyConstraint("card_uuid", name=op.f("pk_card_pins")),
        comment="Cards that have a PIN, for payments above an amount",
    )

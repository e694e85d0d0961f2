"""Pairing codes, and keys that change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _pairings()
    _keys()


def _pairings() -> None:
    op.create_table(
        "pairings",
        sa.Column(
            "name", sa.String(4), nullable=False, comment="the part of the code that is sent"
        ),
        sa.Column("proof_key", sa.String(64), nullable=False, comment="argon2id of the rest, hex"),
        sa.Column("terminal_id", sa.String(64), nullable=False),
        sa.Column("merchant_id", sa.String(64), nullable=False),
        sa.Column("terminal_name", sa.String(200), nullable=False),
        sa.Column("actor", sa.String(80), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("tries_left", sa.Integer(), nullable=False),
        sa.Column("public_key", sa.String(64), comment="of whom it was used by"),
        sa.CheckConstraint("tries_left >= 0", name=op.f("ck_pairings_tries")),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants.id"], name=op.f("fk_pairings_merchant_id")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_pairings")),
        comment="One-use codes by which terminals are paired; old ones go when a new one is made",
    )


def _keys() -> None:
    op.create_table(
        "terminal_next_keys",
        sa.Column("terminal_id", sa.String(64), nullable=False),
        sa.Column("public_key", sa.String(64), nullable=False, comment="Ed25519, hex"),
        sa.Column("announced_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["terminal_id"], ["terminals.id"], name=op.f("fk_terminal_next_keys_terminal_id")
        ),
        sa.PrimaryKeyConstraint("terminal_id", name=op.f("pk_terminal_next_keys")),
        comment="Keys that terminals change over to: valid beside the old one until first used",
    )
    op.create_table(
        "gateway_successions",
        sa.Column("old_key", sa.String(64), nullable=False, comment="Ed25519, hex"),
        sa.Column("new_key", sa.String(64), nullable=False),
        sa.Column("signature", sa.String(128), nullable=False, comment="by the old key, base64"),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("old_key", name=op.f("pk_gateway_successions")),
        comment="By which key a gateway's key is followed; a terminal walks along",
    )

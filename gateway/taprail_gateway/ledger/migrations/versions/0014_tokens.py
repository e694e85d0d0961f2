"""Tokens that can be revoked one by one, and terminals that are frozen for the time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _tokens()
    op.add_column(
        "terminals",
        sa.Column(
            "frozen_at_ms",
            sa.BigInteger(),
            comment="since then nothing is taken of it, for the time",
        ),
    )


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(64), nullable=False, comment="the claim jti"),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("scopes", sa.String(64), nullable=False, comment="with spaces between"),
        sa.Column("issued_at_ms", sa.BigInteger(), nullable=False),
        sa.Column(
            "issued_by", sa.String(80), comment="unset: issued elsewhere, noted to be revoked"
        ),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at_ms", sa.BigInteger(), comment="since then it is good for nothing"),
        sa.Column("revoked_by", sa.String(80)),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_tokens_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        comment="Bearer tokens by their ids, never the tokens themselves; old ones go in time",
    )
    is_revoked = sa.text("revoked_at_ms IS NOT NULL")
    op.create_index(
        "ix_tokens_revoked",
        "tokens",
        ["revoked_at_ms"],
        sqlite_where=is_revoked,
        postgresql_where=is_revoked,
    )
    op.create_index("ix_tokens_expires", "tokens", ["expires_at_ms"])

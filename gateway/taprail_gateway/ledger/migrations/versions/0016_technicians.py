"""Field technicians, and what they changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _technicians()
    _changes()


def _technicians() -> None:
    op.create_table(
        "technicians",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("public_key", sa.String(64), nullable=False, comment="Ed25519, hex"),
        sa.Column("issued_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("issued_by", sa.String(80), nullable=False),
        sa.Column("revoked_at_ms", sa.BigInteger(), comment="unset: the key counts"),
        sa.Column("revoked_by", sa.String(80)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_technicians")),
        sa.UniqueConstraint("public_key", name=op.f("uq_technicians_public_key")),
        comment="Whose keys may change terminals; a key that was revoked never counts again",
    )
    is_active = sa.text("revoked_at_ms IS NULL")
    op.create_index(
        "uq_technicians_name",
        "technicians",
        ["name"],
        unique=True,
        sqlite_where=is_active,
        postgresql_where=is_active,
    )


def _changes() -> None:
    op.create_table(
        "terminal_changes",
        sa.Column("terminal_id", sa.String(64), nullable=False),
        sa.Column(
            "journal",
            sa.String(64),
            nullable=False,
            comment="the terminal's; one that is new begins anew",
        ),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("made_at_ms", sa.BigInteger(), nullable=False, comment="by the terminal's clock"),
        sa.Column("technician", sa.String(64), nullable=False, comment="as the terminal tells it"),
        sa.Column("command", sa.String(200), nullable=False),
        sa.Column("outcome", sa.String(200), nullable=False),
        sa.Column("received_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["terminal_id"], ["terminals.id"], name=op.f("fk_terminal_changes_terminal_id")
        ),
        sa.PrimaryKeyConstraint("terminal_id", "journal", "seq", name=op.f("pk_terminal_changes")),
        comment="What technicians have changed at terminals, as these report it; never altered",
    )
    op.create_index(
        "ix_terminal_changes_received", "terminal_changes", ["terminal_id", "received_at_ms"]
    )

"""How terminals are, what they are told to be like, and what they have found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _beats()
    _configs()
    _reports()
    _diagnoses()


def _beats() -> None:
    op.create_table(
        "terminal_beats",
        sa.Column("terminal_id", sa.String(64), nullable=False),
        sa.Column("heard_at_ms", sa.BigInteger(), nullable=False, comment="by the gateway's clock"),
        sa.Column("version", sa.String(100), nullable=False, comment="of the terminal's software"),
        sa.Column("phase", sa.String(100), nullable=False),
        sa.Column("reader_ok", sa.Integer(), nullable=False),
        sa.Column("reader", sa.String(100), nullable=False),
        sa.Column("unresolved", sa.Integer(), nullable=False, comment="requests without a verdict"),
        sa.Column(
            "unsettled", sa.Integer(), nullable=False, comment="approved, and not yet on the chain"
        ),
        sa.Column("uptime_s", sa.BigInteger(), nullable=False),
        sa.Column(
            "clock_offset_ms", sa.BigInteger(), comment="the gateway's clock minus the terminal's"
        ),
        sa.Column("config_version", sa.Integer(), nullable=False, comment="pushed, and in force"),
        sa.CheckConstraint("reader_ok IN (0, 1)", name=op.f("ck_terminal_beats_reader")),
        sa.ForeignKeyConstraint(
            ["terminal_id"], ["terminals.id"], name=op.f("fk_terminal_beats_terminal_id")
        ),
        sa.PrimaryKeyConstraint("terminal_id", name=op.f("pk_terminal_beats")),
        comment="The last heartbeat of each terminal; written now and then, not at each",
    )


def _configs() -> None:
    op.create_table(
        "terminal_configs",
        sa.Column("terminal_id", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column(
            "settings", sa.Text(), nullable=False, comment="JSON: value by name; null: left out"
        ),
        sa.Column("set_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("set_by", sa.String(80), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_terminal_configs_version")),
        sa.ForeignKeyConstraint(
            ["terminal_id"], ["terminals.id"], name=op.f("fk_terminal_configs_terminal_id")
        ),
        sa.PrimaryKeyConstraint("terminal_id", name=op.f("pk_terminal_configs")),
        comment="What operators want of terminals' settings; each change is the next version",
    )
    op.create_index("ix_terminal_configs_set_at_ms", "terminal_configs", ["set_at_ms"])


def _reports() -> None:
    op.create_table(
        "terminal_config_reports",
        sa.Column("terminal_id", sa.String(64), nullable=False),
        sa.Column(
            "version", sa.Integer(), nullable=False, comment="that it is about; 0: none was wanted"
        ),
        sa.Column("outcome", sa.String(16)),
        sa.Column("reason", sa.String(300), comment="why it was refused"),
        sa.Column("applied_version", sa.Integer(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False, comment="JSON: what runs"),
        sa.Column("reported_at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('applied', 'refused')", name=op.f("ck_terminal_config_reports_outcome")
        ),
        sa.ForeignKeyConstraint(
            ["terminal_id"], ["terminals.id"], name=op.f("fk_terminal_config_reports_terminal_id")
        ),
        sa.PrimaryKeyConstraint("terminal_id", name=op.f("pk_terminal_config_reports")),
        comment="What came of it, as each terminal reports it",
    )


def _diagnoses() -> None:
    op.create_table(
        "terminal_diagnoses",
        sa.Column("terminal_id", sa.String(64), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("asked_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=False),
        sa.Column(
            "told_at_ms", sa.BigInteger(), comment="when a gateway had its socket and asked it"
        ),
        sa.Column("answered_at_ms", sa.BigInteger()),
        sa.Column("report", sa.Text(), comment="byte for byte what the terminal has signed"),
        sa.Column("signature", sa.String(128)),
        sa.CheckConstraint(
            "(answered_at_ms IS NULL) = (report IS NULL)",
            name=op.f("ck_terminal_diagnoses_answered"),
        ),
        sa.ForeignKeyConstraint(
            ["terminal_id"], ["terminals.id"], name=op.f("fk_terminal_diagnoses_terminal_id")
        ),
        sa.PrimaryKeyConstraint("terminal_id", name=op.f("pk_terminal_diagnoses")),
        comment="The last diagnosis that was asked of each terminal",
    )
    op.create_index("ix_terminal_diagnoses_asked_at_ms", "terminal_diagnoses", ["asked_at_ms"])

"""Several lanes with leases, the outbox, rewards, alerts, settings at run time."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ROW_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
STATES: Final = "('pending', 'processing', 'sent', 'completed', 'failed', 'confirmation_failed')"
IS_OPEN: Final = "state IN ('confirmation_failed', 'pending', 'processing', 'sent')"


def upgrade() -> None:
    change_lanes()
    change_transactions()
    change_payments()
    partial_index("ix_accounts_unread", "accounts", ["address"], "balance_block = 0")
    create_leases()
    create_callbacks()
    create_mints()
    create_alerts()
    create_settings()


def changing(table: str) -> AbstractContextManager[Any]:
    """SQLite changes a table by building it anew, PostgreSQL alters it in place."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    return op.batch_alter_table(table, recreate="always" if sqlite else "never")


def partial_index(
    name: str, table: str, columns: list[str], where: str, *, unique: bool = False
) -> None:
    condition = sa.text(where)
    op.create_index(
        name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition
    )


def change_lanes() -> None:
    with changing("lanes") as batch:
        batch.add_column(
            sa.Column("purpose", sa.String(16), server_default="payments", nullable=False)
        )
        batch.create_check_constraint(
            op.f("ck_lanes_purpose"), "purpose IN ('payments', 'rewards')"
        )


def change_transactions() -> None:
    is_open = "status IN ('broadcast', 'signed')"
    op.drop_index("ix_chain_transactions_open", "chain_transactions")
    with changing("chain_transactions") as batch:
        batch.add_column(
            sa.Column(
                "rescue_asked_at_ms",
                sa.BigInteger(),
                comment="an operator's wish; unset once it is done",
            )
        )
    partial_index("ix_chain_transactions_open", "chain_transactions", ["lane", "nonce"], is_open)
    partial_index(
        "ix_chain_transactions_final",
        "chain_transactions",
        ["lane", "block_number"],
        "status = 'final'",
    )
    op.create_index(op.f("ix_bindings_chain_transaction_id"), "bindings", ["chain_transaction_id"])
    with changing("attempts") as batch:
        batch.add_column(sa.Column("kind", sa.String(8), server_default="payload", nullable=False))
        batch.create_check_constraint(op.f("ck_attempts_kind"), "kind IN ('payload', 'noop')")


def change_payments() -> None:
    op.drop_index("ix_payments_open", "payments")
    with changing("payments") as batch:
        batch.add_column(
            sa.Column(
                "lane",
                sa.String(42),
                sa.ForeignKey("lanes.address", name=op.f("fk_payments_lane")),
                comment="which has claimed it, and keeps it",
            )
        )
        batch.add_column(
            sa.Column(
                "rank_ms",
                sa.BigInteger(),
                server_default="0",
                nullable=False,
                comment="lowest first",
            )
        )
        batch.add_column(
            sa.Column("due_at_ms", sa.BigInteger(), comment="not to be claimed before")
        )
        batch.add_column(
            sa.Column(
                "preflights",
                sa.Integer(),
                server_default="0",
                nullable=False,
                comment="that it failed",
            )
        )
        batch.add_column(
            sa.Column(
                "signed_until_s",
                sa.BigInteger(),
                server_default="0",
                nullable=False,
                comment="the latest validBefore ever signed for it; 0: nothing was",
            )
        )
    partial_index("ix_payments_open", "payments", ["state", "lane", "rank_ms"], IS_OPEN)
    partial_index(
        "ix_payments_completed", "payments", ["lane", "block_number"], "state = 'completed'"
    )
    partial_index("ix_payments_refused", "payments", ["id"], "state = 'pending' AND preflights > 0")
    fill_payments()


def fill_payments() -> None:
    op.execute("UPDATE payments SET rank_ms = created_at_ms - 2000 * priority")
    op.execute(
        "UPDATE payments SET lane = (SELECT lane FROM chain_transactions t"
        " WHERE t.id = payments.chain_transaction_id)"
    )
    op.execute(
        "UPDATE payments SET signed_until_s = COALESCE((SELECT MAX(valid_before_s) FROM bindings b"
        " WHERE b.payment_id = payments.id), 0)"
    )


def create_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column(
            "owner", sa.String(64), comment="the gateway process that has it; unset: given back"
        ),
        sa.Column("fence", sa.BigInteger(), nullable=False, comment="one more with each new owner"),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
        comment="What only one gateway may do at a time; see `leases`",
    )


def create_callbacks() -> None:
    op.create_table(
        "callbacks",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False, comment="which handler it is for"),
        sa.Column("payment_id", sa.String(66), nullable=False),
        sa.Column(
            "state", sa.String(24), nullable=False, comment="the payment's, that it tells of"
        ),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("finished_at_ms", sa.BigInteger()),
        sa.Column("last_error", sa.Text()),
        sa.CheckConstraint(
            "status IN ('waiting', 'done', 'dead')", name=op.f("ck_callbacks_status")
        ),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payments.id"], name=op.f("fk_callbacks_payment_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_callbacks")),
        sa.UniqueConstraint(
            "kind", "payment_id", "state", name=op.f("uq_callbacks_kind_payment_id_state")
        ),
        comment="What others are to be told of payments, written in the commit of the step itself",
    )
    partial_index("ix_callbacks_waiting", "callbacks", ["due_at_ms"], "status = 'waiting'")


def create_mints() -> None:
    op.create_table(
        "mints",
        sa.Column("payment_id", sa.String(66), nullable=False),
        sa.Column("recipient", sa.String(42), nullable=False),
        sa.Column("amount_units", sa.BigInteger(), nullable=False, comment="of the rewards token"),
        sa.Column("state", sa.String(24), nullable=False),
        sa.Column("lane", sa.String(42)),
        sa.Column("chain_transaction_id", ROW_ID),
        sa.Column("bindings", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at_ms", sa.BigInteger()),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("processing_at_ms", sa.BigInteger()),
        sa.Column("sent_at_ms", sa.BigInteger()),
        sa.Column("completed_at_ms", sa.BigInteger()),
        sa.Column("tx_hash", sa.String(66)),
        sa.Column("block_number", sa.BigInteger()),
        sa.Column("block_hash", sa.String(66)),
        sa.Column("failure_reason", sa.Text()),
        sa.CheckConstraint("amount_units > 0", name=op.f("ck_mints_amount")),
        sa.CheckConstraint(f"state IN {STATES}", name=op.f("ck_mints_state")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_mints_payment_id")),
        sa.ForeignKeyConstraint(["lane"], ["lanes.address"], name=op.f("fk_mints_lane")),
        sa.ForeignKeyConstraint(
            ["chain_transaction_id"],
            ["chain_transactions.id"],
            name=op.f("fk_mints_chain_transaction_id"),
        ),
        sa.PrimaryKeyConstraint("payment_id", name=op.f("pk_mints")),
        comment="Rewards to payers, one per completed payment at most; states like a payment's",
    )
    op.create_index(op.f("ix_mints_chain_transaction_id"), "mints", ["chain_transaction_id"])
    partial_index("ix_mints_open", "mints", ["state", "lane", "created_at_ms"], IS_OPEN)


def create_alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column(
            "subject",
            sa.String(100),
            nullable=False,
            comment="a payment's id, a lane's address …",
        ),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("needs_review", sa.Integer(), server_default="0", nullable=False),
        sa.Column("raised_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("cleared_at_ms", sa.BigInteger()),
        sa.Column("cleared_by", sa.String(80), comment="who looked at it; or `cured`"),
        sa.CheckConstraint("level IN ('info', 'warning', 'error')", name=op.f("ck_alerts_level")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
        comment="What a person should look at",
    )
    partial_index(
        "uq_alerts_open", "alerts", ["kind", "subject"], "cleared_at_ms IS NULL", unique=True
    )


def create_settings() -> None:
    op.create_table(
        "settings",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("changed_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("changed_by", sa.String(80), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_settings")),
        comment="What an operator has set at run time, over the configuration file",
    )
    op.create_table(
        "operator_actions",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(80), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(100), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("before", sa.Text()),
        sa.Column("after", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator_actions")),
        comment="Who has changed a setting, a queue or a payment by hand, and why",
    )

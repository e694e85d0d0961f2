"""The first schema."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROW_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OPEN_TRANSACTION: Final = sa.text("status IN ('broadcast', 'signed')")
OPEN_PAYMENT: Final = sa.text("state IN ('confirmation_failed', 'pending', 'processing', 'sent')")


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("address", sa.String(length=42), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False, comment="secp256k1, wrapped"),
        sa.Column("balance_units", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("balance_block", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_units", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("held_units >= 0", name=op.f("ck_accounts_held")),
        sa.PrimaryKeyConstraint("address", name=op.f("pk_accounts")),
        comment=(
            "Prepaid accounts in custody: the chain's balance at a block, and what of it is held"
        ),
    )
    op.create_table(
        "issuer_keys",
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("wrapped_sun_master_key", sa.LargeBinary(), nullable=False),
        sa.Column("wrapped_meta_read_key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_issuer_keys")),
        comment="The keys of the cards that this gateway issues, wrapped by the master key",
    )
    op.create_table(
        "lanes",
        sa.Column("address", sa.String(length=42), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.Column(
            "next_nonce",
            sa.BigInteger(),
            nullable=True,
            comment="unset until the chain has been asked once",
        ),
        sa.Column("paused_because", sa.Text(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("address", name=op.f("pk_lanes")),
        comment="Wallets that send transactions; each has its own run of nonces",
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
        comment="Facts of this ledger: its chain, its token, its gateway",
    )
    op.create_table(
        "users",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "role IN ('customer', 'merchant', 'operator')", name=op.f("ck_users_role")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_table(
        "cards",
        sa.Column("uuid", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("profile", sa.String(length=16), nullable=False),
        sa.Column(
            "uid_digest", sa.String(length=64), nullable=False, comment="keyed hash of the UID"
        ),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=42), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("single_limit_units", sa.BigInteger(), nullable=False),
        sa.Column("daily_limit_units", sa.BigInteger(), nullable=False),
        sa.Column("time_zone", sa.String(length=64), nullable=False),
        sa.Column("sun_counter", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("key_version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("profile IN ('sun', 'uid')", name=op.f("ck_cards_profile")),
        sa.CheckConstraint(
            "status IN ('active', 'frozen', 'expired')", name=op.f("ck_cards_status")
        ),
        sa.ForeignKeyConstraint(["account"], ["accounts.address"], name=op.f("fk_cards_account")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_cards_user_id")),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_cards")),
        sa.UniqueConstraint("uid_digest", name=op.f("uq_cards_uid_digest")),
    )
    op.create_table(
        "chain_transactions",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("lane", sa.String(length=42), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("broadcast_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("block_number", sa.BigInteger(), nullable=True),
        sa.Column("block_hash", sa.String(length=66), nullable=True),
        sa.CheckConstraint(
            "status IN ('signed', 'broadcast', 'final')", name=op.f("ck_chain_transactions_status")
        ),
        sa.ForeignKeyConstraint(
            ["lane"], ["lanes.address"], name=op.f("fk_chain_transactions_lane")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chain_transactions")),
        sa.UniqueConstraint("lane", "nonce", name=op.f("uq_chain_transactions_lane_nonce")),
        comment="One transaction, one nonce, for life",
    )
    op.create_index(
        "ix_chain_transactions_open",
        "chain_transactions",
        ["lane", "nonce"],
        unique=False,
        sqlite_where=OPEN_TRANSACTION,
        postgresql_where=OPEN_TRANSACTION,
    )
    op.create_table(
        "merchants",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column(
            "account", sa.String(length=42), nullable=False, comment="where sales are paid to"
        ),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("status IN ('active', 'closed')", name=op.f("ck_merchants_status")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_merchants_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_merchants")),
    )
    op.create_table(
        "attempts",
        sa.Column("tx_hash", sa.String(length=66), nullable=False),
        sa.Column("chain_transaction_id", ROW_ID, nullable=False),
        sa.Column(
            "raw",
            sa.LargeBinary(),
            nullable=False,
            comment="signed bytes, stored before they are sent",
        ),
        sa.Column("gas_limit", sa.BigInteger(), nullable=False),
        sa.Column("max_fee_wei", sa.BigInteger(), nullable=False),
        sa.Column("priority_fee_wei", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["chain_transaction_id"],
            ["chain_transactions.id"],
            name=op.f("fk_attempts_chain_transaction_id"),
        ),
        sa.PrimaryKeyConstraint("tx_hash", name=op.f("pk_attempts")),
        comment="Every version of a transaction ever signed: any of them may be the one that lands",
    )
    op.create_index(
        op.f("ix_attempts_chain_transaction_id"), "attempts", ["chain_transaction_id"], unique=False
    )
    op.create_table(
        "card_spend",
        sa.Column("card_uuid", sa.String(length=64), nullable=False),
        sa.Column(
            "day", sa.String(length=10), nullable=False, comment="date in the card's time zone"
        ),
        sa.Column("spent_units", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("spent_units >= 0", name=op.f("ck_card_spend_spent")),
        sa.ForeignKeyConstraint(
            ["card_uuid"], ["cards.uuid"], name=op.f("fk_card_spend_card_uuid")
        ),
        sa.PrimaryKeyConstraint("card_uuid", "day", name=op.f("pk_card_spend")),
    )
    op.create_table(
        "terminals",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("merchant_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("public_key", sa.String(length=64), nullable=False, comment="Ed25519, hex"),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("status IN ('active', 'revoked')", name=op.f("ck_terminals_status")),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants.id"], name=op.f("fk_terminals_merchant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_terminals")),
    )
    op.create_table(
        "payments",
        sa.Column("id", sa.String(length=66), nullable=False),
        sa.Column(
            "requester", sa.String(length=80), nullable=False, comment="terminal id, or user:<id>"
        ),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("terminal_id", sa.String(length=64), nullable=False),
        sa.Column("merchant_id", sa.String(length=64), nullable=False),
        sa.Column("card_uuid", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("payer", sa.String(length=42), nullable=False),
        sa.Column("payee", sa.String(length=42), nullable=False),
        sa.Column("amount_units", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=12), nullable=False),
        sa.Column("profile", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column(
            "bindings",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="times it was bound",
        ),
        sa.Column("auth_code", sa.String(length=40), nullable=False),
        sa.Column("spend_day", sa.String(length=10), nullable=False),
        sa.Column("tapped_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("processing_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("sent_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("completed_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("chain_transaction_id", ROW_ID, nullable=True),
        sa.Column(
            "tx_hash",
            sa.String(length=66),
            nullable=True,
            comment="the transaction that moved the money",
        ),
        sa.Column("block_number", sa.BigInteger(), nullable=True),
        sa.Column("block_hash", sa.String(length=66), nullable=True),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state <> 'completed' OR"
            " (tx_hash IS NOT NULL AND block_number IS NOT NULL AND block_hash IS NOT NULL)",
            name=op.f("ck_payments_completed"),
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'processing', 'sent',"
            " 'completed', 'failed', 'confirmation_failed')",
            name=op.f("ck_payments_state"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('processing', 'sent') OR chain_transaction_id IS NOT NULL",
            name=op.f("ck_payments_travelling"),
        ),
        sa.CheckConstraint("amount_units > 0", name=op.f("ck_payments_amount")),
        sa.ForeignKeyConstraint(["card_uuid"], ["cards.uuid"], name=op.f("fk_payments_card_uuid")),
        sa.ForeignKeyConstraint(
            ["chain_transaction_id"],
            ["chain_transactions.id"],
            name=op.f("fk_payments_chain_transaction_id"),
        ),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants.id"], name=op.f("fk_payments_merchant_id")
        ),
        sa.ForeignKeyConstraint(["payer"], ["accounts.address"], name=op.f("fk_payments_payer")),
        sa.ForeignKeyConstraint(
            ["terminal_id"], ["terminals.id"], name=op.f("fk_payments_terminal_id")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_payments_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payments")),
        sa.UniqueConstraint(
            "requester", "request_id", name=op.f("uq_payments_requester_request_id")
        ),
    )
    op.create_index(
        "ix_payments_card_uuid_created_at_ms",
        "payments",
        ["card_uuid", "created_at_ms"],
        unique=False,
    )
    op.create_index(
        "ix_payments_chain_transaction_id", "payments", ["chain_transaction_id"], unique=False
    )
    op.create_index(
        "ix_payments_open",
        "payments",
        ["state", sa.text("priority DESC"), "created_at_ms"],
        unique=False,
        sqlite_where=OPEN_PAYMENT,
        postgresql_where=OPEN_PAYMENT,
    )
    op.create_table(
        "bindings",
        sa.Column("payment_id", sa.String(length=66), nullable=False),
        sa.Column("chain_transaction_id", ROW_ID, nullable=False),
        sa.Column("valid_before_s", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["chain_transaction_id"],
            ["chain_transactions.id"],
            name=op.f("fk_bindings_chain_transaction_id"),
        ),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payments.id"], name=op.f("fk_bindings_payment_id")
        ),
        sa.PrimaryKeyConstraint("payment_id", "chain_transaction_id", name=op.f("pk_bindings")),
        comment="Every authorization ever signed for a payment, and where it travelled",
    )
    op.create_table(
        "payment_events",
        sa.Column("seq", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("payment_id", sa.String(length=66), nullable=False),
        sa.Column(
            "event",
            sa.String(length=16),
            nullable=False,
            comment="accept, or an event of the state table",
        ),
        sa.Column(
            "state", sa.String(length=24), nullable=False, comment="the state that it led to"
        ),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payments.id"], name=op.f("fk_payment_events_payment_id")
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_payment_events")),
        comment="Every step of every payment, written in the commit that takes it; feeds the push",
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_payment_events_payment_id"), "payment_events", ["payment_id"], unique=False
    )
    op.create_table(
        "verdicts",
        sa.Column("requester", sa.String(length=80), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("request_body", sa.LargeBinary(), nullable=False),
        sa.Column(
            "request_signature",
            sa.String(length=128),
            nullable=True,
            comment="unset for a user's token",
        ),
        sa.Column("http_status", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.String(length=128), nullable=False),
        sa.Column("payment_id", sa.String(length=66), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payments.id"], name=op.f("fk_verdicts_payment_id")
        ),
        sa.PrimaryKeyConstraint("requester", "request_id", name=op.f("pk_verdicts")),
        comment="What was answered, byte for byte: a retry is given the same again",
    )

"""The ledger's tables, one schema for SQLite and PostgreSQL.

Conventions: amounts are integers in the token's smallest unit, times are Unix milliseconds,
addresses are lower-case 0x text, a payment's id is its authorization nonce (0x and 64 hex digits).
A change here needs a migration in `migrations/versions`; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
)

from taprail_common.payment_state import HOLDING, PaymentState

VERSION: Final = "0002"
"""Of this schema: the newest in `migrations/versions`, which a test compares."""

metadata: Final = MetaData(
    # Named constraints, so that a migration can speak of them on every engine.
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite counts rows by itself only in a column that is INTEGER to the letter.
_RowId = BigInteger().with_variant(Integer, "sqlite")
_Id = String(64)
_Address = String(42)
_Hash = String(66)


def _in_list(column: str, values: list[str]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def _literal(value: str) -> ColumnElement[str]:
    # A partial index serves only a query that repeats its condition to the letter; a parameter
    # there would hide from the planner that it does (https://sqlite.org/partialindex.html).
    return literal_column(repr(value), String)


def _literals(values: list[str]) -> list[ColumnElement[str]]:
    return [_literal(value) for value in values]


meta: Final = Table(
    "meta",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    comment="Facts of this ledger: its chain, its token, its gateway",
)

users: Final = Table(
    "users",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    CheckConstraint(_in_list("role", ["customer", "merchant", "operator"]), "role"),
)

merchants: Final = Table(
    "merchants",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("account", _Address, nullable=False, comment="where sales are paid to"),
    Column("status", String(16), nullable=False),
    Column("user_id", ForeignKey("users.id")),
    Column("created_at_ms", BigInteger, nullable=False),
    CheckConstraint(_in_list("status", ["active", "closed"]), "status"),
)

terminals: Final = Table(
    "terminals",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("name", String(200), nullable=False),
    Column("public_key", String(64), nullable=False, comment="Ed25519, hex"),
    Column("status", String(16), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    CheckConstraint(_in_list("status", ["active", "revoked"]), "status"),
)

issuer_keys: Final = Table(
    "issuer_keys",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("wrapped_sun_master_key", LargeBinary, nullable=False),
    Column("wrapped_meta_read_key", LargeBinary, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    comment="The keys of the cards that this gateway issues, wrapped by the master key",
)

accounts: Final = Table(
    "accounts",
    metadata,
    Column("address", _Address, primary_key=True),
    Column("wrapped_key", LargeBinary, nullable=False, comment="secp256k1, wrapped"),
    Column("balance_units", BigInteger, nullable=False, server_default="0"),
    Column("balance_block", BigInteger, nullable=False, server_default="0"),
    Column("held_units", BigInteger, nullable=False, server_default="0"),
    Column("created_at_ms", BigInteger, nullable=False),
    CheckConstraint("held_units >= 0", "held"),
    comment="Prepaid accounts in custody: the chain's balance at a block, and what of it is held",
)
account_is_unread: Final = accounts.c.balance_block == literal_column("0", BigInteger)
Index(
    "ix_accounts_unread",
    accounts.c.address,
    sqlite_where=account_is_unread,
    postgresql_where=account_is_unread,
)

cards: Final = Table(
    "cards",
    metadata,
    Column("uuid", _Id, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("profile", String(16), nullable=False),
    Column("uid_digest", String(64), nullable=False, unique=True, comment="keyed hash of the UID"),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("account", ForeignKey("accounts.address"), nullable=False),
    Column("status", String(16), nullable=False),
    Column("single_limit_units", BigInteger, nullable=False),
    Column("daily_limit_units", BigInteger, nullable=False),
    Column("time_zone", String(64), nullable=False),
    Column("sun_counter", BigInteger, nullable=False, server_default="0"),
    Column("key_version", Integer, nullable=False, server_default="1"),
    Column("created_at_ms", BigInteger, nullable=False),
    CheckConstraint(_in_list("profile", ["sun", "uid"]), "profile"),
    CheckConstraint(_in_list("status", ["active", "frozen", "expired"]), "status"),
)

card_spend: Final = Table(
    "card_spend",
    metadata,
    Column("card_uuid", ForeignKey("cards.uuid"), primary_key=True),
    Column("day", String(10), primary_key=True, comment="date in the card's time zone"),
    Column("spent_units", BigInteger, nullable=False),
    CheckConstraint("spent_units >= 0", "spent"),
)

lanes: Final = Table(
    "lanes",
    metadata,
    Column("address", _Address, primary_key=True),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("next_nonce", BigInteger, comment="unset until the chain has been asked once"),
    Column("paused_because", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("purpose", String(16), nullable=False, server_default="payments"),
    CheckConstraint(_in_list("purpose", ["payments", "rewards"]), "purpose"),
    comment="Wallets that send transactions; each has its own run of nonces",
)

leases: Final = Table(
    "leases",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("owner", _Id, comment="the gateway process that has it; unset: given back"),
    Column("fence", BigInteger, nullable=False, comment="one more with each new owner"),
    Column("until_ms", BigInteger, nullable=False),
    comment="What only one gateway may do at a time; see `leases`",
)

chain_transactions: Final = Table(
    "chain_transactions",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("lane", ForeignKey("lanes.address"), nullable=False),
    Column("nonce", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("broadcast_at_ms", BigInteger),
    Column("block_number", BigInteger),
    Column("block_hash", _Hash),
    Column("rescue_asked_at_ms", BigInteger, comment="an operator's wish; unset once it is done"),
    UniqueConstraint("lane", "nonce"),
    CheckConstraint(_in_list("status", ["signed", "broadcast", "final"]), "status"),
    comment="One transaction, one nonce, for life",
)
transaction_is_open: Final = chain_transactions.c.status.in_(_literals(["broadcast", "signed"]))
"""Not final yet; a query that holds this condition uses the partial index below."""
Index(
    "ix_chain_transactions_open",
    chain_transactions.c.lane,
    chain_transactions.c.nonce,
    sqlite_where=transaction_is_open,
    postgresql_where=transaction_is_open,
)
transaction_is_final: Final = chain_transactions.c.status == _literal("final")
Index(
    "ix_chain_transactions_final",
    chain_transactions.c.block_number,
    sqlite_where=transaction_is_final,
    postgresql_where=transaction_is_final,
)

attempts: Final = Table(
    "attempts",
    metadata,
    Column("tx_hash", _Hash, primary_key=True),
    Column("chain_transaction_id", ForeignKey("chain_transactions.id"), nullable=False, index=True),
    Column("raw", LargeBinary, nullable=False, comment="signed bytes, stored before they are sent"),
    Column("gas_limit", BigInteger, nullable=False),
    Column("max_fee_wei", BigInteger, nullable=False),
    Column("priority_fee_wei", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("kind", String(8), nullable=False, server_default="payload"),
    CheckConstraint(_in_list("kind", ["payload", "noop"]), "kind"),
    comment="Every version of a transaction ever signed: any of them may be the one that lands",
)

payments: Final = Table(
    "payments",
    metadata,
    Column("id", _Hash, primary_key=True),
    Column("requester", String(80), nullable=False, comment="terminal id, or user:<id>"),
    Column("request_id", _Id, nullable=False),
    Column("terminal_id", ForeignKey("terminals.id"), nullable=False),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("card_uuid", ForeignKey("cards.uuid"), nullable=False),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("payer", ForeignKey("accounts.address"), nullable=False),
    Column("payee", _Address, nullable=False),
    Column("amount_units", BigInteger, nullable=False),
    Column("currency", String(12), nullable=False),
    Column("profile", String(16), nullable=False),
    Column("state", String(24), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("bindings", Integer, nullable=False, server_default="0", comment="times it was bound"),
    Column("auth_code", String(40), nullable=False),
    Column("spend_day", String(10), nullable=False),
    Column("tapped_at_ms", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("processing_at_ms", BigInteger),
    Column("sent_at_ms", BigInteger),
    Column("completed_at_ms", BigInteger),
    Column("chain_transaction_id", ForeignKey("chain_transactions.id")),
    Column("tx_hash", _Hash, comment="the transaction that moved the money"),
    Column("block_number", BigInteger),
    Column("block_hash", _Hash),
    Column("failure_reason", Text),
    Column("lane", ForeignKey("lanes.address"), comment="which has claimed it, and keeps it"),
    Column("rank_ms", BigInteger, nullable=False, server_default="0", comment="lowest first"),
    Column("due_at_ms", BigInteger, comment="not to be claimed before"),
    Column("preflights", Integer, nullable=False, server_default="0", comment="that it failed"),
    Column(
        "signed_until_s",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="the latest validBefore ever signed for it; 0: nothing was",
    ),
    UniqueConstraint("requester", "request_id"),
    CheckConstraint("amount_units > 0", "amount"),
    CheckConstraint(_in_list("state", [str(state) for state in PaymentState]), "state"),
    CheckConstraint(
        "state NOT IN ('processing', 'sent') OR chain_transaction_id IS NOT NULL", "travelling"
    ),
    CheckConstraint(
        "state <> 'completed' OR"
        " (tx_hash IS NOT NULL AND block_number IS NOT NULL AND block_hash IS NOT NULL)",
        "completed",
    ),
)
payment_is_open: Final = payments.c.state.in_(_literals([str(state) for state in sorted(HOLDING)]))
"""In a state of HOLDING; the loops repeat it, so that they do not slow down as history grows."""
Index(
    "ix_payments_open",
    payments.c.state,
    payments.c.lane,
    payments.c.rank_ms,
    sqlite_where=payment_is_open,
    postgresql_where=payment_is_open,
)
payment_is_completed: Final = payments.c.state == _literal(PaymentState.COMPLETED.value)
Index(
    "ix_payments_completed",
    payments.c.block_number,
    sqlite_where=payment_is_completed,
    postgresql_where=payment_is_completed,
)
Index("ix_payments_chain_transaction_id", payments.c.chain_transaction_id)
Index("ix_payments_card_uuid_created_at_ms", payments.c.card_uuid, payments.c.created_at_ms)

bindings: Final = Table(
    "bindings",
    metadata,
    Column("payment_id", ForeignKey("payments.id"), primary_key=True),
    Column("chain_transaction_id", ForeignKey("chain_transactions.id"), primary_key=True),
    Column("valid_before_s", BigInteger, nullable=False),
    comment="Every authorization ever signed for a payment, and where it travelled",
)

verdicts: Final = Table(
    "verdicts",
    metadata,
    Column("requester", String(80), primary_key=True),
    Column("request_id", _Id, primary_key=True),
    Column("request_body", LargeBinary, nullable=False),
    Column("request_signature", String(128), comment="unset for a user's token"),
    Column("http_status", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("signature", String(128), nullable=False),
    Column("payment_id", ForeignKey("payments.id")),
    Column("created_at_ms", BigInteger, nullable=False),
    comment="What was answered, byte for byte: a retry is given the same again",
)

payment_events: Final = Table(
    "payment_events",
    metadata,
    Column("seq", _RowId, primary_key=True, autoincrement=True),
    Column("payment_id", ForeignKey("payments.id"), nullable=False, index=True),
    Column("event", String(16), nullable=False, comment="accept, or an event of the state table"),
    Column("state", String(24), nullable=False, comment="the state that it led to"),
    Column("at_ms", BigInteger, nullable=False),
    Column("detail", Text),
    comment="Every step of every payment, written in the commit that takes it; feeds the push",
    sqlite_autoincrement=True,
)

callbacks: Final = Table(
    "callbacks",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False, comment="which handler it is for"),
    Column("payment_id", ForeignKey("payments.id"), nullable=False),
    Column("state", String(24), nullable=False, comment="the payment's, that it tells of"),
    Column("status", String(8), nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("due_at_ms", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("finished_at_ms", BigInteger),
    Column("last_error", Text),
    UniqueConstraint("kind", "payment_id", "state"),
    CheckConstraint(_in_list("status", ["waiting", "done", "dead"]), "status"),
    comment="What others are to be told of payments, written in the commit of the step itself",
)
callback_is_waiting: Final = callbacks.c.status == _literal("waiting")
Index(
    "ix_callbacks_waiting",
    callbacks.c.due_at_ms,
    sqlite_where=callback_is_waiting,
    postgresql_where=callback_is_waiting,
)

mints: Final = Table(
    "mints",
    metadata,
    Column("payment_id", ForeignKey("payments.id"), primary_key=True),
    Column("recipient", _Address, nullable=False),
    Column("amount_units", BigInteger, nullable=False, comment="of the rewards token"),
    Column("state", String(24), nullable=False),
    Column("lane", ForeignKey("lanes.address")),
    Column("chain_transaction_id", ForeignKey("chain_transactions.id"), index=True),
    Column("bindings", Integer, nullable=False, server_default="0"),
    Column("due_at_ms", BigInteger),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("processing_at_ms", BigInteger),
    Column("sent_at_ms", BigInteger),
    Column("completed_at_ms", BigInteger),
    Column("tx_hash", _Hash),
    Column("block_number", BigInteger),
    Column("block_hash", _Hash),
    Column("failure_reason", Text),
    CheckConstraint("amount_units > 0", "amount"),
    CheckConstraint(_in_list("state", [str(state) for state in PaymentState]), "state"),
    comment="Rewards to payers, one per completed payment at most; states like a payment's",
)
mint_is_open: Final = mints.c.state.in_(_literals([str(state) for state in sorted(HOLDING)]))
Index(
    "ix_mints_open",
    mints.c.state,
    mints.c.lane,
    mints.c.created_at_ms,
    sqlite_where=mint_is_open,
    postgresql_where=mint_is_open,
)

alerts: Final = Table(
    "alerts",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("kind", String(32), nullable=False),
    Column("subject", String(100), nullable=False, comment="a payment's id, a lane's address …"),
    Column("level", String(8), nullable=False),
    Column("text", Text, nullable=False),
    Column("needs_review", Integer, nullable=False, server_default="0"),
    Column("raised_at_ms", BigInteger, nullable=False),
    Column("cleared_at_ms", BigInteger),
    Column("cleared_by", String(80), comment="who looked at it; or `cured`"),
    CheckConstraint(_in_list("level", ["info", "warning", "error"]), "level"),
    comment="What a person should look at",
)
alert_is_open: Final = alerts.c.cleared_at_ms.is_(None)
Index(
    "uq_alerts_open",
    alerts.c.kind,
    alerts.c.subject,
    unique=True,
    sqlite_where=alert_is_open,
    postgresql_where=alert_is_open,
)

settings: Final = Table(
    "settings",
    metadata,
    Column("name", _Id, primary_key=True),
    Column("value", Text, nullable=False, comment="JSON"),
    Column("changed_at_ms", BigInteger, nullable=False),
    Column("changed_by", String(80), nullable=False),
    comment="What an operator has set at run time, over the configuration file",
)

operator_actions: Final = Table(
    "operator_actions",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String(80), nullable=False),
    Column("action", String(32), nullable=False),
    Column("subject", String(100), nullable=False),
    Column("reason", Text),
    Column("before", Text),
    Column("after", Text),
    comment="Who has changed a setting, a queue or a payment by hand, and why",
)

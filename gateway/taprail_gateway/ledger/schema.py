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
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    literal_column,
)

from taprail_common.payment_state import HOLDING, PaymentState
from taprail_gateway.ledger import schema_fleet as _fleet  # noqa: F401 - its tables are ours
from taprail_gateway.ledger import schema_pairing as _pairing  # noqa: F401 - likewise
from taprail_gateway.ledger import schema_technicians as _technicians  # noqa: F401 - likewise
from taprail_gateway.ledger.schema_base import (
    Address,
    Hash,
    Id,
    RowId,
    in_list,
    literal,
    literals,
    metadata,
)
from taprail_gateway.ledger.schema_cards import activity, audit_links, issuer_keys
from taprail_gateway.ledger.schema_charges import charges, terminal_texts
from taprail_gateway.ledger.schema_office import (
    alert_is_open,
    alerts,
    callback_is_waiting,
    callbacks,
    leases,
    mint_is_open,
    mints,
    operator_actions,
    settings,
)
from taprail_gateway.ledger.schema_offline import offline_policies, offline_taps
from taprail_gateway.ledger.schema_people import terminal_status, terminals, tokens, users
from taprail_gateway.ledger.schema_pins import card_pins
from taprail_gateway.ledger.schema_refunds import merchant_floats, refunded_sales, refunds
from taprail_gateway.ledger.schema_signed import card_authorizations
from taprail_gateway.ledger.schema_webhooks import webhook_deliveries, webhook_endpoints

__all__ = [
    "REFUSED_AFTER",
    "VERSION",
    "account_is_unread",
    "accounts",
    "activity",
    "alert_is_open",
    "alerts",
    "attempts",
    "audit_links",
    "bindings",
    "callback_is_waiting",
    "callbacks",
    "card_authorizations",
    "card_pins",
    "card_spend",
    "cards",
    "chain_transactions",
    "charges",
    "issuer_keys",
    "lanes",
    "leases",
    "merchant_floats",
    "merchants",
    "meta",
    "metadata",
    "mint_is_open",
    "mints",
    "offline_policies",
    "offline_taps",
    "operator_actions",
    "payment_events",
    "payment_is_completed",
    "payment_is_open",
    "payment_is_refused",
    "payments",
    "refunded_sales",
    "refunds",
    "settings",
    "terminal_status",
    "terminal_texts",
    "terminals",
    "tokens",
    "transaction_is_final",
    "transaction_is_open",
    "users",
    "verdicts",
    "webhook_deliveries",
    "webhook_endpoints",
]

VERSION: Final = "0018"
"""Of this schema: the newest in `migrations/versions`, which a test compares."""

meta: Final = Table(
    "meta",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    comment="Facts of this ledger: its chain, its token, its gateway",
)

merchants: Final = Table(
    "merchants",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("account", Address, nullable=False, comment="where sales are paid to"),
    Column("status", String(16), nullable=False),
    Column("user_id", ForeignKey("users.id")),
    Column("created_at_ms", BigInteger, nullable=False),
    CheckConstraint(in_list("status", ["active", "closed"]), "status"),
)

accounts: Final = Table(
    "accounts",
    metadata,
    Column("address", Address, primary_key=True),
    Column("wrapped_key", LargeBinary, comment="secp256k1, wrapped; unset: only its card has it"),
    Column("balance_units", BigInteger, nullable=False, server_default="0"),
    Column("balance_block", BigInteger, nullable=False, server_default="0"),
    Column("held_units", BigInteger, nullable=False, server_default="0"),
    Column("created_at_ms", BigInteger, nullable=False),
    CheckConstraint("held_units >= 0", "held"),
    comment="Payers' accounts: the chain's balance at a block, and what of it is held",
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
    Column("uuid", Id, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("profile", String(16), nullable=False),
    Column(
        "uid_digest",
        String(64),
        nullable=False,
        unique=True,
        comment="keyed hash of the UID, or of a signing card's address",
    ),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("account", ForeignKey("accounts.address"), nullable=False),
    Column("status", String(16), nullable=False),
    Column("single_limit_units", BigInteger, nullable=False),
    Column("daily_limit_units", BigInteger, nullable=False),
    Column("time_zone", String(64), nullable=False),
    Column("sun_counter", BigInteger, nullable=False, server_default="0"),
    Column("key_version", Integer, nullable=False, server_default="1"),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, comment="from then on it is refused"),
    Column("replaced_by", Id, comment="the card that has its account now"),
    Column("day_of", Id, comment="the card whose spend it goes on with"),
    CheckConstraint(in_list("profile", ["sun", "uid", "signed"]), "profile"),
    CheckConstraint(in_list("status", ["active", "frozen", "expired"]), "status"),
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
    Column("address", Address, primary_key=True),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("next_nonce", BigInteger, comment="unset until the chain has been asked once"),
    Column("paused_because", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("purpose", String(16), nullable=False, server_default="payments"),
    CheckConstraint(in_list("purpose", ["payments", "rewards"]), "purpose"),
    comment="Wallets that send transactions; each has its own run of nonces",
)

chain_transactions: Final = Table(
    "chain_transactions",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("lane", ForeignKey("lanes.address"), nullable=False),
    Column("nonce", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("broadcast_at_ms", BigInteger),
    Column("block_number", BigInteger),
    Column("block_hash", Hash),
    Column("rescue_asked_at_ms", BigInteger, comment="an operator's wish; unset once it is done"),
    UniqueConstraint("lane", "nonce"),
    CheckConstraint(in_list("status", ["signed", "broadcast", "final"]), "status"),
    comment="One transaction, one nonce, for life",
)
transaction_is_open: Final = chain_transactions.c.status.in_(literals(["broadcast", "signed"]))
"""Not final yet; a query that holds this condition uses the partial index below."""
Index(
    "ix_chain_transactions_open",
    chain_transactions.c.lane,
    chain_transactions.c.nonce,
    sqlite_where=transaction_is_open,
    postgresql_where=transaction_is_open,
)
transaction_is_final: Final = chain_transactions.c.status == literal("final")
Index(
    "ix_chain_transactions_final",
    chain_transactions.c.lane,
    chain_transactions.c.block_number,
    sqlite_where=transaction_is_final,
    postgresql_where=transaction_is_final,
)

attempts: Final = Table(
    "attempts",
    metadata,
    Column("tx_hash", Hash, primary_key=True),
    Column("chain_transaction_id", ForeignKey("chain_transactions.id"), nullable=False, index=True),
    Column("raw", LargeBinary, nullable=False, comment="signed bytes, stored before they are sent"),
    Column("gas_limit", BigInteger, nullable=False),
    Column("max_fee_wei", BigInteger, nullable=False),
    Column("priority_fee_wei", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("kind", String(8), nullable=False, server_default="payload"),
    CheckConstraint(in_list("kind", ["payload", "noop"]), "kind"),
    comment="Every version of a transaction ever signed: any of them may be the one that lands",
)

payments: Final = Table(
    "payments",
    metadata,
    Column("id", Hash, primary_key=True),
    Column("requester", String(80), nullable=False, comment="terminal id, or user:<id>"),
    Column("request_id", Id, nullable=False),
    Column("terminal_id", ForeignKey("terminals.id"), nullable=False),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("card_uuid", ForeignKey("cards.uuid"), nullable=False),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("payer", ForeignKey("accounts.address"), nullable=False),
    Column("payee", Address, nullable=False),
    Column("amount_units", BigInteger, nullable=False),
    Column("currency", String(12), nullable=False),
    Column("profile", String(16), nullable=False),
    Column("state", String(24), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("bindings", Integer, nullable=False, server_default="0", comment="times it was bound"),
    Column("auth_code", String(40), nullable=False),
    Column("spend_day", String(10), nullable=False),
    Column("tapped_at_ms", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False, index=True),
    Column("processing_at_ms", BigInteger),
    Column("sent_at_ms", BigInteger),
    Column("completed_at_ms", BigInteger),
    Column("chain_transaction_id", ForeignKey("chain_transactions.id"), index=True),
    Column("tx_hash", Hash, comment="the transaction that moved the money"),
    Column("block_number", BigInteger),
    Column("block_hash", Hash),
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
    CheckConstraint(in_list("state", [str(state) for state in PaymentState]), "state"),
    CheckConstraint(
        "state NOT IN ('processing', 'sent') OR chain_transaction_id IS NOT NULL", "travelling"
    ),
    CheckConstraint(
        "state <> 'completed' OR"
        " (tx_hash IS NOT NULL AND block_number IS NOT NULL AND block_hash IS NOT NULL)",
        "completed",
    ),
)
payment_is_open: Final = payments.c.state.in_(literals([str(state) for state in sorted(HOLDING)]))
"""In a state of HOLDING; the loops repeat it, so that they do not slow down as history grows."""
Index(
    "ix_payments_open",
    payments.c.state,
    payments.c.lane,
    payments.c.rank_ms,
    sqlite_where=payment_is_open,
    postgresql_where=payment_is_open,
)
payment_is_completed: Final = payments.c.state == literal(PaymentState.COMPLETED.value)
Index(
    "ix_payments_completed",
    payments.c.lane,
    payments.c.block_number,
    sqlite_where=payment_is_completed,
    postgresql_where=payment_is_completed,
)
REFUSED_AFTER: Final = 6
"""Preflights that a payment may fail; then it waits for the proof that nothing of it can run."""
payment_is_refused: Final = and_(
    payments.c.state == literal(PaymentState.PENDING.value),
    payments.c.preflights > literal_column("0", Integer),
)
"""By a preflight at least once: somebody else may have carried it out."""
Index(
    "ix_payments_refused",
    payments.c.id,
    sqlite_where=payment_is_refused,
    postgresql_where=payment_is_refused,
)
Index("ix_payments_card_uuid_created_at_ms", payments.c.card_uuid, payments.c.created_at_ms)
Index("ix_payments_merchant_id_created_at_ms", payments.c.merchant_id, payments.c.created_at_ms)

bindings: Final = Table(
    "bindings",
    metadata,
    Column("payment_id", ForeignKey("payments.id"), primary_key=True),
    Column(
        "chain_transaction_id", ForeignKey("chain_transactions.id"), primary_key=True, index=True
    ),
    Column("valid_before_s", BigInteger, nullable=False),
    comment="Every authorization ever signed for a payment, and where it travelled",
)

verdicts: Final = Table(
    "verdicts",
    metadata,
    Column("requester", String(80), primary_key=True),
    Column("request_id", Id, primary_key=True),
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
    Column("seq", RowId, primary_key=True, autoincrement=True),
    Column("payment_id", ForeignKey("payments.id"), nullable=False, index=True),
    Column("event", String(16), nullable=False, comment="accept, or an event of the state table"),
    Column("state", String(24), nullable=False, comment="the state that it led to"),
    Column("at_ms", BigInteger, nullable=False),
    Column("detail", Text),
    comment="Every step of every payment, written in the commit that takes it; feeds the push",
    sqlite_autoincrement=True,
)

"""The tables beside the payments: what follows from them, and what operators have done.

Part of `schema`, under whose name everybody else imports them.
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
    String,
    Table,
    Text,
    UniqueConstraint,
)

from taprail_common.payment_state import HOLDING, PaymentState
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

callbacks: Final = Table(
    "callbacks",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
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
    CheckConstraint(in_list("status", ["waiting", "done", "dead"]), "status"),
    comment="What others are to be told of payments, written in the commit of the step itself",
)
callback_is_waiting: Final = callbacks.c.status == literal("waiting")
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
    Column("recipient", Address, nullable=False),
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
    Column("tx_hash", Hash),
    Column("block_number", BigInteger),
    Column("block_hash", Hash),
    Column("failure_reason", Text),
    CheckConstraint("amount_units > 0", "amount"),
    CheckConstraint(in_list("state", [str(state) for state in PaymentState]), "state"),
    comment="Rewards to payers, one per completed payment at most; states like a payment's",
)
mint_is_open: Final = mints.c.state.in_(literals([str(state) for state in sorted(HOLDING)]))
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
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("kind", String(32), nullable=False),
    Column("subject", String(100), nullable=False, comment="a payment's id, a lane's address …"),
    Column("level", String(8), nullable=False),
    Column("text", Text, nullable=False),
    Column("needs_review", Integer, nullable=False, server_default="0"),
    Column("raised_at_ms", BigInteger, nullable=False),
    Column("cleared_at_ms", BigInteger),
    Column("cleared_by", String(80), comment="who looked at it; or `cured`"),
    CheckConstraint(in_list("level", ["info", "warning", "error"]), "level"),
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
    Column("name", Id, primary_key=True),
    Column("value", Text, nullable=False, comment="JSON"),
    Column("changed_at_ms", BigInteger, nullable=False),
    Column("changed_by", String(80), nullable=False),
    comment="What an operator has set at run time, over the configuration file",
)

operator_actions: Final = Table(
    "operator_actions",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String(80), nullable=False),
    Column("action", String(32), nullable=False),
    Column("subject", String(100), nullable=False),
    Column("reason", Text),
    Column("before", Text),
    Column("after", Text),
    comment="Who has changed a setting, a queue or a payment by hand, and why",
)

leases: Final = Table(
    "leases",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("owner", Id, comment="the gateway process that has it; unset: given back"),
    Column("fence", BigInteger, nullable=False, comment="one more with each new owner"),
    Column("until_ms", BigInteger, nullable=False),
    comment="What only one gateway may do at a time; see `leases`",
)

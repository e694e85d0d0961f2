"""The tables of webhooks: where merchants want to be told, and what they are told.

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
    LargeBinary,
    String,
    Table,
    Text,
)

from taprail_gateway.ledger.schema_base import Hash, Id, RowId, in_list, literal, metadata

webhook_endpoints: Final = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Id, primary_key=True),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False, index=True),
    Column("url", String(500), nullable=False),
    Column("status", String(8), nullable=False),
    Column("wrapped_secret", LargeBinary, nullable=False),
    Column("wrapped_old_secret", LargeBinary, comment="signs too, until its end"),
    Column("old_secret_until_ms", BigInteger),
    Column("created_at_ms", BigInteger, nullable=False),
    CheckConstraint(in_list("status", ["active", "removed"]), "status"),
    comment="Where merchants want to be told of their payments",
)

webhook_deliveries: Final = Table(
    "webhook_deliveries",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("endpoint_id", ForeignKey("webhook_endpoints.id"), nullable=False),
    Column("about", Hash, nullable=False, comment="what it tells of, in its order: a payment …"),
    Column("event", String(40), nullable=False),
    Column("body", LargeBinary, nullable=False, comment="the exact bytes that are signed"),
    Column("status", String(8), nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("due_at_ms", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("finished_at_ms", BigInteger),
    Column("last_error", Text),
    CheckConstraint(in_list("status", ["waiting", "done", "dead"]), "status"),
    comment="What endpoints are told, once each and again until they take it",
)
delivery_is_waiting: Final = webhook_deliveries.c.status == literal("waiting")
Index(
    "ix_webhook_deliveries_waiting",
    webhook_deliveries.c.due_at_ms,
    sqlite_where=delivery_is_waiting,
    postgresql_where=delivery_is_waiting,
)
Index(
    "ix_webhook_deliveries_order",
    webhook_deliveries.c.endpoint_id,
    webhook_deliveries.c.about,
    sqlite_where=delivery_is_waiting,
    postgresql_where=delivery_is_waiting,
)

"""The tables of charges: what tills ask terminals to take. Part of `schema`, under whose name
everybody else imports them.

The statuses are those of `charges.ChargeStatus`.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from taprail_common.api.charges import ChargeStatus
from taprail_gateway.charges import OPEN
from taprail_gateway.ledger.schema_base import Id, in_list, literals, metadata

charges: Final = Table(
    "charges",
    metadata,
    Column("id", Id, primary_key=True),
    Column("terminal_id", ForeignKey("terminals.id"), nullable=False),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("user_id", ForeignKey("users.id"), nullable=False, comment="who asked for it"),
    Column("reference", Id, nullable=False, comment="the till's own name for the sale"),
    Column("idempotency_key", Id, comment="of the request that made it, if it gave one"),
    Column("amount_units", BigInteger, nullable=False),
    Column("currency", String(12), nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason_code", String(40), comment="why it came to no payment"),
    Column("payment_id", ForeignKey("payments.id"), unique=True),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("deadline_ms", BigInteger, nullable=False),
    Column("armed_at_ms", BigInteger),
    Column("ended_at_ms", BigInteger),
    Column("changed_at_ms", BigInteger, nullable=False, index=True),
    CheckConstraint(in_list("status", [each.value for each in ChargeStatus]), "status"),
    CheckConstraint("(status = 'approved') = (payment_id IS NOT NULL)", "paid"),
    CheckConstraint("(status IN ('waiting', 'armed')) = (ended_at_ms IS NULL)", "ended"),
    UniqueConstraint("terminal_id", "idempotency_key"),
    comment="What tills ask terminals to take",
)
charge_is_open: Final = charges.c.status.in_(literals([each.value for each in OPEN]))
Index(
    "ix_charges_open",
    charges.c.terminal_id,
    unique=True,
    sqlite_where=charge_is_open,
    postgresql_where=charge_is_open,
)
Index("ix_charges_reference", charges.c.terminal_id, charges.c.reference)

terminal_texts: Final = Table(
    "terminal_texts",
    metadata,
    Column("terminal_id", ForeignKey("terminals.id"), primary_key=True),
    Column("text", Text, nullable=False),
    Column("set_at_ms", BigInteger, nullable=False, index=True),
    comment="What terminals show while there is nothing to pay",
)

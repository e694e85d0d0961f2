"""Which steps of a payment a person should hear of: alerts written in the commit of the step.

What was not confirmed is listed for manual review until it is settled; a payment of high priority
that has failed stays listed until somebody has looked at it, and so does a sale that a reorg took
back although it had been refunded: nothing is done about that but told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, select

from taprail_common.payment_state import PaymentEvent
from taprail_gateway.ledger.alerts import clear_alerts, raise_alerts
from taprail_gateway.ledger.schema import payments, refunded_sales

UNCONFIRMED_ALERT: Final = "confirmation_failed"
FAILED_ALERT: Final = "payment_failed"
REFUNDED_ALERT: Final = "refunded_sale_reorg"

HIGH_PRIORITY: Final = 10
"""From here on a payment that fails is no everyday matter."""

_SETTLES: Final = frozenset({PaymentEvent.CONFIRM, PaymentEvent.REJECT, PaymentEvent.DISPROVE})
_FAILS: Final = _SETTLES - {PaymentEvent.CONFIRM}
_REORGS: Final = frozenset({PaymentEvent.REORG, PaymentEvent.REORG_UNBOUND})
_IDS_PER_STATEMENT: Final = 1_000


def follow(
    connection: Connection, event: PaymentEvent, payment_ids: Sequence[str], at_ms: int
) -> None:
    """Raise and clear what a step asks for; a payment that completes costs one small question."""
    if event in _SETTLES:
        clear_alerts(connection, UNCONFIRMED_ALERT, payment_ids, at_ms)
    if event is PaymentEvent.GIVE_UP:
        texts = _reasons(connection, payment_ids, from_priority=0)
        raise_alerts(connection, UNCONFIRMED_ALERT, texts, "warning", at_ms, needs_review=True)
    elif event in _REORGS:
        texts = _refunded(connection, payment_ids)
        raise_alerts(connection, REFUNDED_ALERT, texts, "error", at_ms, needs_review=True)
    elif event in _FAILS:
        texts = _reasons(connection, payment_ids, from_priority=HIGH_PRIORITY)
        raise_alerts(connection, FAILED_ALERT, texts, "error", at_ms, needs_review=True)


def _reasons(
    connection: Connection, payment_ids: Sequence[str], *, from_priority: int
) -> list[tuple[str, str]]:
    """Those of the payments that have this priority or more, each with why it came to this."""
    p = payments.c
    found: dict[str, str] = {}
    for start in range(0, len(payment_ids), _IDS_PER_STATEMENT):
        some = payment_ids[start : start + _IDS_PER_STATEMENT]
        statement = select(p.id, p.failure_reason).where(
            p.id.in_(some), p.priority >= from_priority
        )
        found |= {
            row.id: row.failure_reason or "no reason given" for row in connection.execute(statement)
        }
    return [(each, found[each]) for each in payment_ids if each in found]


def _refunded(connection: Connection, payment_ids: Sequence[str]) -> list[tuple[str, str]]:
    """Those of the payments that are refunded or about to be, each with what has happened."""
    s = refunded_sales.c
    found: list[tuple[str, str]] = []
    for start in range(0, len(payment_ids), _IDS_PER_STATEMENT):
        some = payment_ids[start : start + _IDS_PER_STATEMENT]
        statement = select(s.sale_id, s.refunded_units, s.refundable_units).where(
            s.sale_id.in_(some), s.refunded_units > 0
        )
        for sale_id, units, of_units in connection.execute(statement):
            text = f"a reorg took back a sale of {of_units} units, of which {units} are refunded"
            found.append((sale_id, f"{text}; see `taprail admin payment show {sale_id}`"))
    return found

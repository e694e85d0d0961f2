"""A payment as those whom it concerns see it: one row, who may see it, and its words.

Shared by the status page, the push and the commands. Reads only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, select

from taprail_common.clock import rfc3339
from taprail_common.wire import MAX_SENTENCE, PaymentNotice, from_ms
from taprail_gateway.directory import User
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.refunds import Refund, of_sale

_p, _m, _r, _s = (
    schema.payments.c,
    schema.merchants.c,
    schema.refunds.c,
    schema.refunded_sales.c,
)
PAYMENT_COLUMNS: Final = (
    _p.id,
    _p.request_id,
    _p.requester,
    _p.terminal_id,
    _p.card_uuid,
    _p.user_id,
    _m.user_id.label("merchant_user_id"),
    _p.amount_units,
    _p.currency,
    _p.state,
    _p.auth_code,
    _p.created_at_ms,
    _p.processing_at_ms,
    _p.completed_at_ms,
    _p.tx_hash,
    _p.failure_reason,
    _r.sale_id.label("refund_of"),
    _s.refunded_units,
)
PAYMENTS_WITH_MERCHANT: Final = (
    schema.payments.join(schema.merchants, _p.merchant_id == _m.id)
    .outerjoin(schema.refunds, _r.payment_id == _p.id)
    .outerjoin(schema.refunded_sales, _s.sale_id == _p.id)
)
_ONE: Final = (
    select(*PAYMENT_COLUMNS).select_from(PAYMENTS_WITH_MERCHANT).where(_p.id == bindparam("id"))
)


@dataclass(frozen=True, slots=True)
class PaymentView:
    """The columns above, by their names."""

    id: str
    request_id: str
    requester: str
    terminal_id: str
    card_uuid: str
    user_id: str
    merchant_user_id: str | None
    amount_units: int
    currency: str
    state: str
    auth_code: str
    created_at_ms: int
    processing_at_ms: int | None
    completed_at_ms: int | None
    tx_hash: str | None
    failure_reason: str | None
    refund_of: str | None
    """The sale that it gives back; None: it is a sale."""
    refunded_units: int | None
    """What is given back of it, or promised to be; None: nobody has asked for it."""
    refunds: tuple[Refund, ...] = ()
    """All that were asked for; only `load_payment` looks."""

    @property
    def is_by_terminal(self) -> bool:
        """Whether a terminal asked for it, and is to be told."""
        return self.requester == self.terminal_id


def load_payment(connection: Connection, payment_id: str) -> PaymentView | None:
    """One payment with its refunds; None for no such payment."""
    row = connection.execute(_ONE, {"id": payment_id}).one_or_none()
    if row is None:
        return None
    asked = row.refunded_units is not None
    given_back = of_sale(connection, payment_id) if asked else []
    return PaymentView(**row._mapping, refunds=tuple(given_back))


def concerns(payment: PaymentView, terminal_id: str | None, user: User | None) -> bool:
    """Whether somebody may know of a payment: its terminal, its payer, its merchant, operators."""
    if user is None:
        return payment.terminal_id == terminal_id
    return (
        user.is_operator
        or (user.is_customer and user.id == payment.user_id)
        or (user.is_merchant and user.id == payment.merchant_user_id)
    )


def status_body(payment: PaymentView, explorer_link: str | None) -> dict[str, object]:
    """What the status page says under `transaction`, with what is given back of a sale."""
    completed = payment.completed_at_ms
    refund = payment.refund_of
    return {
        "id": payment.id,
        "status": payment.state,
        "amount": payment.amount_units,
        "currency": payment.currency,
        "txHash": payment.tx_hash,
        "createdAt": rfc3339(payment.created_at_ms),
        "processingStartedAt": _time(payment.processing_at_ms),
        "completedAt": _time(completed),
        "processingTime": None if completed is None else f"{completed - payment.created_at_ms}ms",
        "failureReason": payment.failure_reason,
        "explorerUrl": explorer_link,
        **(_refunded(payment) if refund is None else {"refundOf": refund}),
        "metadata": {
            "paymentMethod": "nfc" if refund is None else "refund",
            "terminalId": payment.terminal_id,
            "authCode": payment.auth_code,
            "processingType": "async",
            "requestId": payment.request_id,
        },
    }


def _refunded(sale: PaymentView) -> dict[str, object]:
    return {
        "refundedUnits": sale.refunded_units or 0,
        "refunds": [
            {
                "id": each.id,
                "status": each.state,
                "amount": each.amount_units,
                "txHash": each.tx_hash,
                "createdAt": rfc3339(each.created_at_ms),
                "completedAt": _time(each.completed_at_ms),
                "failureReason": each.failure_reason,
            }
            for each in sale.refunds
        ],
    }


def notice(payment: PaymentView, state: str, at_ms: int, cursor: str | None) -> PaymentNotice:
    """What its terminal is told when it comes to a state; the cursor is the place after it."""
    return PaymentNotice(
        terminal_id=payment.terminal_id,
        request_id=payment.request_id,
        transaction_id=payment.id,
        status=state,
        at=from_ms(at_ms),
        amount=payment.amount_units,
        currency=payment.currency,
        tx_hash=payment.tx_hash,
        reason=payment.failure_reason and payment.failure_reason[:MAX_SENTENCE],
        cursor=cursor,
    )


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)

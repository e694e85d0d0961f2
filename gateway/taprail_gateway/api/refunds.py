"""`/api/payment/{id}/refund`: a merchant, or an operator, gives a sale back, or a part of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection

from taprail_common.api.base import IDEMPOTENCY_HEADER, Empty
from taprail_common.api.payments import RefundRequest, RefundStarted
from taprail_common.eip3009 import TransferAuthorization
from taprail_common.errors import InputError
from taprail_common.ids import check_identifier, is_payment_id, new_id
from taprail_common.wire import SIGNED_LEAST_S
from taprail_gateway import card_authorization
from taprail_gateway.api.errors import RETRY_AFTER_S, HttpError
from taprail_gateway.api.table import Call, Route
from taprail_gateway.directory import User
from taprail_gateway.ledger import refunds
from taprail_gateway.ledger.by_hand import UnknownPaymentError
from taprail_gateway.ledger.card_signatures import StoredSignature
from taprail_gateway.ledger.refunds import (
    NoFloatError,
    NotRefundableError,
    Refund,
    RequestReusedError,
    Sale,
    TooMuchError,
    Wanted,
)
from taprail_gateway.payment_view import PaymentView, concerns, load_payment
from taprail_gateway.tokens import Scope

SIGNED_MOST_S: Final = 86_400
"""The longest that a merchant's own signature may be valid: until it ends, its part of the sale is
promised, whether it is carried out or not."""

_REFUSALS: Final = (NotRefundableError, TooMuchError, NoFloatError, RequestReusedError)
_FIELDS: Final = {TooMuchError.code: "amount", RequestReusedError.code: IDEMPOTENCY_HEADER}


async def refund(call: Call[RefundRequest, Empty]) -> RefundStarted:
    """POST /api/payment/{id}/refund: promise it for good, then answer."""
    sale = await _sale(call)
    wanted = await _wanted(call, sale)
    ledger = call.services.ledger
    try:
        found = await ledger.read(partial(refunds.asked_before, wanted=wanted))
        if found is None:
            found = await ledger.write(partial(refunds.ask, wanted=_checked(call, sale, wanted)))
            call.services.wakeups.pending.ring()
    except _REFUSALS as exc:
        raise HttpError(409, exc.code, exc.message, field=_FIELDS.get(exc.code)) from exc
    return _answer(found)


async def _sale(call: Call[RefundRequest, Empty]) -> Sale:
    """The sale, for those who may give it back; HttpError (404, or 403 for its customer)."""
    found = (
        await call.services.ledger.read(partial(_look_up, sale_id=call.id))
        if is_payment_id(call.id)
        else None
    )
    if found is None or not concerns(found[1], None, call.bearer):
        raise HttpError(404, UnknownPaymentError.code, "Transaction not found")
    sale, view = found
    if not _may_refund(call.bearer, view):
        raise HttpError(403, "not_your_sale", "only its merchant may refund a sale")
    return sale


def _look_up(connection: Connection, *, sale_id: str) -> tuple[Sale, PaymentView] | None:
    view = load_payment(connection, sale_id)
    return None if view is None else (refunds.load_sale(connection, sale_id), view)


def _may_refund(user: User, payment: PaymentView) -> bool:
    return user.is_operator or (user.is_merchant and user.id == payment.merchant_user_id)


async def _wanted(call: Call[RefundRequest, Empty], sale: Sale) -> Wanted:
    body = call.body
    key = call.request.headers.get(IDEMPOTENCY_HEADER)
    if key is not None:
        check_identifier(IDEMPOTENCY_HEADER, key)
    elif body.request_id is None and body.authorization is not None:
        raise InputError("requestId", "must be given with an authorization, whose nonce it makes")
    return Wanted(
        sale_id=sale.id,
        amount_units=body.amount,
        requester=refunds.requester(f"user:{call.bearer.id}"),
        request_id=key or body.request_id or new_id("req"),
        request=sale.id.encode() + b"\n" + await call.request.read(),  # as it was sent
        at_ms=call.services.clock.now_ms(),
    )


def _checked(call: Call[RefundRequest, Empty], sale: Sale, wanted: Wanted) -> Wanted:
    """What may be asked for now, with the merchant's signature if it came with one; raises
    HttpError or InputError."""
    if call.services.acceptor.is_draining():
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        raise HttpError(503, "draining", "the gateway takes nothing new for now", headers=headers)
    own = call.body.authorization
    if own is None:
        return wanted
    left_s = own.valid_before - wanted.at_ms // 1000
    if not SIGNED_LEAST_S <= left_s <= SIGNED_MOST_S:
        text = f"must be {SIGNED_LEAST_S} to {SIGNED_MOST_S} s from now"
        raise InputError("authorization.validBefore", text)
    transfer = TransferAuthorization(
        payer=sale.payee,
        payee=sale.payer,
        amount_units=wanted.amount_units,
        valid_after_s=0,
        valid_before_s=own.valid_before,
        nonce=bytes.fromhex(wanted.payment_id[2:]),
    )
    compact = bytes.fromhex(own.signature[2:])[:-1]  # v is found, not believed
    separator = call.services.token_domain.separator
    signature = card_authorization.signature_of(transfer, compact, separator)
    if signature is None:
        text = f"is not {sale.payee}'s to {sale.payer} under nonce {wanted.payment_id}"
        raise InputError("authorization.signature", text)
    return replace(wanted, signature=StoredSignature(own.valid_before, signature))


def _answer(found: Refund) -> RefundStarted:
    return RefundStarted(
        transaction_id=found.id,
        refund_of=found.sale_id,
        amount=found.amount_units,
        currency=found.currency,
        request_id=found.request_id,
        created_at=found.created_at_ms,
        status_url=f"/api/payment/status/{found.id}",
        websocket_channel=f"transaction:{found.id}",
    )


ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route(
        "POST",
        "/api/payment/{id}/refund",
        "Give a completed sale back to the account that paid, or a part of it",
        refund,
        RefundStarted,
        scopes=frozenset({Scope.MERCHANT, Scope.OPERATOR}),
        body=RefundRequest,
        headers=(IDEMPOTENCY_HEADER,),
        refusals={
            403: "the caller paid, and is not the merchant",
            404: "no such payment, or none of the caller's business",
            409: "not a completed sale, more than is left of it, no float, or a request id reused",
            503: "the gateway takes nothing new for now",
        },
    ),
)

"""`/api/payment`: takes payment requests, and tells where a payment is."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Final

from aiohttp import web

from taprail_common.api.base import IDEMPOTENCY_HEADER, NotFound, Problem
from taprail_common.api.payments import Declined, PaymentStarted, PaymentStatus
from taprail_common.crash import crash
from taprail_common.errors import InputError
from taprail_common.ids import check_identifier, is_payment_id, new_id, payment_id
from taprail_common.wire import SIGNATURE_HEADER, AppPayment, TerminalPayment
from taprail_gateway import issuer
from taprail_gateway.accept import AcceptItem, Refusal
from taprail_gateway.api.bodies import parse_body, read_body
from taprail_gateway.api.context import SERVICES
from taprail_gateway.api.errors import RETRY_AFTER_S, HttpError
from taprail_gateway.api.identify import (
    PAYMENT_PATH,
    acting_as,
    is_terminal,
    signed_body,
    signed_query,
    token_user,
)
from taprail_gateway.api.table import Plain
from taprail_gateway.authorize import Evidence, PaymentRequest, Profile
from taprail_gateway.payment_view import concerns, load_payment, status_body
from taprail_gateway.proofs import ProofReader
from taprail_gateway.tokens import Scope

_COMMIT_TIMEOUT_S: Final = 30.0
"""Far beyond a full queue on a slow disk. After it the outcome is unknown, and the sender asks
again with the same request."""


async def process_async(request: web.Request) -> web.Response:
    """POST /api/payment/process-async: decide, store for good, then answer."""
    services = request.app[SERVICES]
    received_s = services.clock.monotonic_s()
    body = await read_body(request)
    item = await (_from_terminal if is_terminal(request) else _from_app)(request, body, received_s)
    if item.tap is not None:
        tried = await services.pins.tried(item.tap, item.request.evidence)
        item = replace(item, request=replace(item.request, pin=tried), tap=None)
    async with asyncio.timeout(_COMMIT_TIMEOUT_S):
        result = await services.ledger.write_batched(services.acceptor, item)
    if isinstance(result, Refusal):
        headers = {"Retry-After": str(RETRY_AFTER_S)} if result.http_status == 503 else {}
        raise HttpError(
            result.http_status,
            result.code,
            result.message,
            field=_named(request, result.field),
            headers=headers,
        )
    if item.request.charge_id is not None:
        services.wakeups.charges.ring()
    crash("accept.committed")
    if result.payment_id is not None:
        services.wakeups.pending.ring()
    return web.Response(
        body=result.body,
        status=result.http_status,
        headers={SIGNATURE_HEADER: result.signature},
        content_type="application/json",
    )


async def status(request: web.Request) -> web.Response:
    """GET /api/payment/status/{id}: for those whom the payment concerns, a 404 for all others."""
    services = request.app[SERVICES]
    wanted = request.match_info["id"]
    terminal_id = (await signed_query(request)).terminal_id if is_terminal(request) else None
    user = await token_user(request) if terminal_id is None else None
    payment = (
        await services.ledger.read(lambda connection: load_payment(connection, wanted))
        if is_payment_id(wanted)
        else None
    )
    if payment is None or not concerns(payment, terminal_id, user):
        return _json({"success": False, "error": "Transaction not found"}, status=404)
    link = services.explorer_link(payment.tx_hash)
    return _json({"success": True, "transaction": status_body(payment, link)})


async def _from_terminal(request: web.Request, body: bytes, received_s: float) -> AcceptItem:
    services = request.app[SERVICES]
    terminal_id, signature = await signed_body(request, body)
    item = terminal_item(services.proofs, terminal_id, body, signature, received_s)
    evidence = item.request.evidence
    if evidence.problem is None or evidence.profile is not Profile.SUN:
        return item
    # The card may have keys that were made since this gateway began, and a decline is for good.
    if not await issuer.learn_newer(services.ledger, services.custody, services.proofs):
        return item
    return terminal_item(services.proofs, terminal_id, body, signature, received_s)


def terminal_item(
    proofs: ProofReader, terminal_id: str, body: bytes, signature: str, received_s: float
) -> AcceptItem:
    """What a terminal asks for by a body that it has signed; raises InputError."""
    payment = parse_body(TerminalPayment, body)
    if payment.terminal_id != terminal_id:
        raise InputError("terminalId", "is not the terminal that signed")
    wanted = PaymentRequest(
        requester=terminal_id,
        request_id=payment.request_id,
        payment_id=payment_id(terminal_id, payment.request_id),
        terminal_id=terminal_id,
        merchant_id=payment.merchant_id,
        amount_units=payment.amount,
        currency=payment.currency,
        tapped_at_ms=payment.tapped_at_ms,
        accept_until_ms=payment.accept_until_ms,
        evidence=proofs.evidence(payment),
        charge_id=payment.charge_id,
        is_offline=payment.offline,
        offline_version=payment.offline_version,
    )
    tap = None if payment.pin is None else payment
    return AcceptItem(wanted, body, received_s, signature=signature, tap=tap)


async def _from_app(request: web.Request, body: bytes, received_s: float) -> AcceptItem:
    user = await acting_as(request, Scope.CUSTOMER)
    payment = parse_body(AppPayment, body)
    # No identifier of a terminal holds a colon, so the two can never meet.
    requester = f"user:{user.id}"
    request_id = _app_request_id(request, payment)
    wanted = PaymentRequest(
        requester=requester,
        request_id=request_id,
        payment_id=payment_id(requester, request_id),
        terminal_id=payment.terminal_id,
        merchant_id=payment.merchant_id,
        amount_units=payment.amount,
        currency=payment.currency,
        tapped_at_ms=request.app[SERVICES].clock.now_ms(),
        accept_until_ms=None,
        evidence=Evidence(Profile.APP, card_uuid=payment.card_uuid),
    )
    return AcceptItem(wanted, body, received_s, user_id=user.id)


def _named(request: web.Request, field: str | None) -> str | None:
    """A field as whoever asks has named it: an app may give the request's id in a header."""
    if field == "requestId" and IDEMPOTENCY_HEADER in request.headers and not is_terminal(request):
        return IDEMPOTENCY_HEADER
    return field


def _app_request_id(request: web.Request, payment: AppPayment) -> str:
    key = request.headers.get(IDEMPOTENCY_HEADER)
    if key is not None:
        return check_identifier(IDEMPOTENCY_HEADER, key)
    return payment.request_id or new_id("req")


def _json(body: dict[str, object], *, status: int = 200) -> web.Response:
    return web.Response(
        body=json.dumps(body).encode(), status=status, content_type="application/json"
    )


ROUTES: Final = (
    Plain(
        "POST",
        PAYMENT_PATH,
        "Decide about a payment, store it for good, and begin with it",
        process_async,
        {200: PaymentStarted, 400: Declined | Problem, 409: Problem},
        bodies=(AppPayment, TerminalPayment),
        headers=(IDEMPOTENCY_HEADER,),
    ),
    Plain(
        "GET",
        "/api/payment/status/{id}",
        "Where a payment is, for those whom it concerns",
        status,
        {200: PaymentStatus, 404: NotFound},
    ),
)

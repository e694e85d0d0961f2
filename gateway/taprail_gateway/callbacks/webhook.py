"""Webhooks: a merchant's server is told of payments, signed as Standard Webhooks asks.

Two steps. When a payment comes to a state that is told, the handler of `webhook` rows writes a
delivery for each endpoint of its merchant, with the exact body. The sender posts deliveries, each
again and again until the endpoint takes it or days have passed. At least once: a receiver tells
repeats by `webhook-id`, which belongs to the delivery. See https://www.standardwebhooks.com.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from sqlalchemy import Connection
from standardwebhooks import Webhook

from taprail_common.clock import Clock, rfc3339
from taprail_common.payment_state import PaymentState
from taprail_gateway.backoff import Backoff
from taprail_gateway.callbacks.handlers import Work
from taprail_gateway.callbacks.outside import Outside
from taprail_gateway.charge_view import charge_body, no_link
from taprail_gateway.charges import Charge
from taprail_gateway.config import GatewaySettings
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import charges, outbox, webhooks
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.outbox import Callback
from taprail_gateway.ledger.webhooks import Delivery, Endpoint
from taprail_gateway.payment_view import PaymentView, load_payment, status_body

OLD_SECRET_MS: Final = 24 * 3_600_000
"""After a rotation both secrets sign for so long, so that a receiver may change over in peace."""

_SECRET_BYTES: Final = 32
_PREFIX: Final = "whsec_"


def new_secret() -> bytes:
    """A signing secret."""
    return secrets.token_bytes(_SECRET_BYTES)


def secret_text(secret: bytes) -> str:
    """As its owner gets to see it, once, and as libraries of Standard Webhooks take it."""
    return _PREFIX + base64.b64encode(secret).decode()


def secret_name(endpoint_id: str) -> str:
    """Under which custody wraps an endpoint's secrets."""
    return f"webhook/{endpoint_id}"


def event_of(state: PaymentState, *, of_refund: bool = False) -> str:
    """The type of the event that tells of a payment's state; for a refund it is one of its sale."""
    if not of_refund:
        return f"payment.{state}"
    done = state is PaymentState.COMPLETED
    return "payment.refunded" if done else f"payment.refund_{state}"


def event_body(payment: PaymentView, event: str, state: PaymentState, at_ms: int) -> bytes:
    """What a payment's merchant is told when it has come to a state."""
    data = {**status_body(payment, None), "status": str(state)}
    return json.dumps({"type": event, "timestamp": rfc3339(at_ms), "data": data}).encode()


class WebhookHandler:
    """The handler of `webhook` rows: writes the deliveries, and does nothing outside the ledger."""

    states: Collection[PaymentState] = outbox.TOLD
    at_once: int = 100
    """All of a batch, so that they share commits."""

    def __init__(self, _settings: GatewaySettings) -> None:
        """Who is told is in the ledger, not in the configuration."""

    async def handle(self, callback: Callback, /) -> Work:
        """The deliveries are written in the commit that finishes the row."""
        return partial(_fan_out, callback=callback)


def _fan_out(connection: Connection, *, callback: Callback) -> None:
    merchant_id = webhooks.merchant_of(connection, callback.payment_id)
    endpoints = webhooks.endpoints_of(connection, merchant_id) if merchant_id is not None else []
    if not endpoints:
        return
    payment = load_payment(connection, callback.payment_id)
    if payment is None:
        return
    state, at_ms = callback.state, callback.created_at_ms
    event = event_of(state, of_refund=payment.refund_of is not None)
    body = event_body(payment, event, state, at_ms)
    # In one order with what is told of its sale.
    about = payment.refund_of or payment.id
    told = [each.id for each in endpoints]
    webhooks.enqueue(connection, told, about, event, body, at_ms)
    for charge in charges.of_payments(connection, [payment.id]):
        webhooks.enqueue(connection, told, charge.id, *_of_charge(connection, charge, state, at_ms))


def _of_charge(
    connection: Connection, charge: Charge, state: PaymentState, at_ms: int
) -> tuple[str, bytes, int]:
    """What the till is told beside it: the same as of its end, with what came of the money."""
    event, data = f"charge.{state}", charge_body(connection, charge, no_link)
    told = {"type": event, "timestamp": rfc3339(at_ms), "data": data}
    return event, json.dumps(told).encode(), at_ms


MAX_TRIES: Final = 12
BACKOFF: Final = Backoff(first_ms=10_000, longest_ms=12 * 3_600_000)
"""With full jitter twelve tries take a day on average, and two and a half at most: a receiver that
is down over a weekend is sent the rest by a replay."""


@dataclass(frozen=True, slots=True)
class DeliveryQueue:
    """Deliveries, as a line of the dispatcher wants them."""

    name: str = "deliveries"
    max_tries: int = MAX_TRIES
    backoff: Backoff = BACKOFF

    def due(self, connection: Connection, now_ms: int, limit: int) -> list[Delivery]:
        """See `webhooks.due`."""
        return webhooks.due(connection, now_ms, limit)

    def next_due_ms(self, connection: Connection, after_ms: int) -> int | None:
        """See `webhooks.next_due_ms`."""
        return webhooks.next_due_ms(connection, after_ms)

    def finish(self, connection: Connection, row_ids: Sequence[int], at_ms: int) -> None:
        """See `webhooks.finish`."""
        webhooks.finish(connection, row_ids, at_ms)

    def put_off(self, connection: Connection, row: Delivery, due_at_ms: int, error: str) -> None:
        """See `webhooks.put_off`."""
        webhooks.put_off(connection, row, due_at_ms, error)

    def bury(self, connection: Connection, row: Delivery, at_ms: int, error: str) -> None:
        """See `webhooks.bury`."""
        webhooks.bury(connection, row, at_ms, error)


class DeliverySender:
    """Posts deliveries."""

    at_once: int = 100
    """As many as there are connections; what of them is for one receiver, `webhooks.due` bounds."""

    def __init__(self, ledger: Ledger, custody: Custody, outside: Outside, clock: Clock) -> None:
        self._ledger = ledger
        self._custody = custody
        self._outside = outside
        self._clock = clock

    async def handle(self, delivery: Delivery, /) -> Work:
        """Post it; AddressError or OutsideError when it was not taken."""
        endpoint = await self._ledger.read(
            partial(webhooks.endpoint, endpoint_id=delivery.endpoint_id)
        )
        headers = self._headers(endpoint, delivery)
        await self._outside.post(endpoint.url, delivery.body, headers)
        return _nothing

    def _headers(self, endpoint: Endpoint, delivery: Delivery) -> dict[str, str]:
        now_ms = self._clock.now_ms()
        message_id = f"msg_{delivery.endpoint_id}_{delivery.id}"
        now = datetime.fromtimestamp(now_ms // 1000, UTC)
        text = delivery.body.decode()
        signatures = [
            Webhook(secret).sign(message_id, now, text)
            for secret in self._secrets(endpoint, now_ms)
        ]
        return {
            "content-type": "application/json",
            "user-agent": "TapRail",
            "webhook-id": message_id,
            "webhook-timestamp": str(now_ms // 1000),
            "webhook-signature": " ".join(signatures),
        }

    def _secrets(self, endpoint: Endpoint, now_ms: int) -> list[bytes]:
        wrapped = [endpoint.wrapped_secret]
        until_ms, old = endpoint.old_secret_until_ms, endpoint.wrapped_old_secret
        if old is not None and until_ms is not None and now_ms < until_ms:
            wrapped.append(old)
        name = secret_name(endpoint.id)
        return [self._custody.unwrap_secret(name, each) for each in wrapped]


def _nothing(_connection: Connection) -> None:
    """What was posted leaves nothing to write but that it was."""

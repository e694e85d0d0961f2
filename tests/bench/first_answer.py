"""How long an app waits for the first answer: a payment asked for with a user's token.

500 users with a card each, one after the other, at a rate that the gateway's own limits allow each
of them. The first answer is the decision itself, durable and signed; what follows comes by push.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, literal_column, select, update

from taprail_common.clock import SystemClock
from taprail_common.ids import new_id
from taprail_gateway import registry
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger import schema
from taprail_gateway.tokens import Tokens
from taprail_hwsim.load import PAYMENT_PATH, Plan, apply_load
from taprail_hwsim.world import MERCHANT_ID
from tests.bench.market import AMOUNT_UNITS, TERMINAL_ID, Market
from tests.bench.scenario import Bench, BenchError, Results

USERS: Final = 500
RATE_PER_S: Final = 500
"""Once a second for each user; the gateway lets a user ask ten times, and 120 times a minute."""
_WARM_UP: Final = 500
_PAYMENTS: Final = 5_000
_CONNECTIONS: Final = 64

Payer = tuple[str, str]
"""A user's token, and the card that they pay with."""


async def measure(bench: Bench, market: Market) -> Results:
    """`api.first_answer_*`."""
    payers = await asyncio.to_thread(_provision, market)
    await _pay(market, payers, _WARM_UP)
    bench.say(f"{_PAYMENTS:,} payments by app, {RATE_PER_S} a second")
    return await _pay(market, payers, _PAYMENTS)


async def _pay(market: Market, payers: Sequence[Payer], count: int) -> Results:
    requests = [_request(*payers[number % len(payers)]) for number in range(count)]
    report = await apply_load(Plan(market.port, _CONNECTIONS, requests, RATE_PER_S))
    if report.first_failure is not None:
        raise BenchError(f"not all were approved: {report.statuses} {report.first_failure}")
    return {"api.first_answer_p50_ms": report.p50_ms, "api.first_answer_p99_ms": report.p99_ms}


def _request(token: str, card_uuid: str) -> bytes:
    """What an app sends, ready for the wire."""
    message = {
        "cardUuid": card_uuid,
        "amount": AMOUNT_UNITS,
        "merchantId": MERCHANT_ID,
        "terminalId": TERMINAL_ID,
    }
    body = json.dumps(message).encode()
    lines = (
        f"POST {PAYMENT_PATH} HTTP/1.1",
        "Host: gateway",
        "Content-Type: application/json",
        f"Authorization: Bearer {token}",
        f"Idempotency-Key: {new_id('key')}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _provision(market: Market) -> list[Payer]:
    """Give some of the cards users of their own."""
    settings = GatewaySettings.load(market.stack.gateway_config)
    tokens = Tokens.load(settings.jwt_secret_file)
    now_ms = SystemClock().now_ms()
    card = schema.cards.c
    # As they were issued; the bench's ledger is SQLite.
    some = (
        select(card.uuid)
        .where(card.user_id == "crowd")
        .order_by(literal_column("rowid"))
        .limit(USERS)
    )

    def own(connection: Connection) -> dict[str, str]:
        cards = {f"payer-{n}": str(uuid) for n, uuid in enumerate(connection.scalars(some))}
        for user_id, uuid in cards.items():
            registry.add_user(connection, user_id, "One of many", "customer", now_ms)
            its = update(schema.cards).where(card.uuid == uuid)
            connection.execute(its.values(user_id=user_id))
        return cards

    ledger = market.ledger()
    try:
        cards = ledger.write_now(own)
    finally:
        ledger.dispose()
    return [(tokens.issue(user_id, now_ms=now_ms, days=1), uuid) for user_id, uuid in cards.items()]

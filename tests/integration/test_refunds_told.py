"""What others hear of refunds: the push, webhooks, and who is rewarded for none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select

from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_gateway.callbacks.webhook import WebhookHandler
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger import floats, mints, outbox, refunds, transitions, webhooks
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.schema import webhook_deliveries
from tests.support.gateway_fixtures import MERCHANT, UNIT, TestGateway, running_gateway
from tests.support.ledger_fixtures import NOW_MS, Registry, seed_registry
from tests.support.ledger_payments import completed
from tests.support.ledger_refunds import FLOAT, asked, open_float, paid_back, step, wanted
from tests.support.push_clients import Heard, complete, connected, send, user_auth

ENDPOINT = "whk_1"
CHAIN = {"rpc_urls": ["http://127.0.0.1:9"], "chain_id": 1, "token": "0x" + "ab" * 20}


@pytest.fixture
def registry(ledger: Ledger) -> Registry:
    """A merchant with a float, who wants to be told of everything."""
    registry = seed_registry(ledger)
    open_float(ledger, registry)
    ledger.write_now(
        lambda c: webhooks.add_endpoint(
            c, ENDPOINT, registry.merchant_id, "https://shop.example/hooks", b"\1", NOW_MS
        )
    )
    ledger.write_now(partial(outbox.enable, wanted={"webhook": outbox.TOLD}))
    return registry


async def told(ledger: Ledger) -> list[tuple[str, str, str | None]]:
    """The events that were written for the endpoint, each with whose order it keeps, and the sale
    that it says it gives back."""
    handler = WebhookHandler(GatewaySettings.model_validate({"chain": CHAIN}))
    due = ledger.read_now(partial(outbox.due, kind="webhook", now_ms=NOW_MS, limit=10))
    for callback in due:
        ledger.write_now(await handler.handle(callback))
    d = webhook_deliveries.c
    statement = select(d.about, d.event, d.body).order_by(d.id)
    rows = ledger.read_now(lambda c: c.execute(statement).all())
    return [(row.event, row.about, json.loads(row.body)["data"].get("refundOf")) for row in rows]


async def test_a_merchant_hears_of_a_refund_as_of_its_sale(
    ledger: Ledger, registry: Registry
) -> None:
    (sale,) = completed(ledger, registry)
    done, failed = asked(ledger, sale, 10), asked(ledger, sale, 20)
    paid_back(ledger, done.id)
    step(ledger, PaymentEvent.REJECT, failed.id)
    assert await told(ledger) == [
        ("payment.completed", sale, None),
        ("payment.refunded", sale, sale),
        ("payment.refund_failed", sale, sale),
    ]


async def test_nobody_is_rewarded_for_a_refund(ledger: Ledger, registry: Registry) -> None:
    (sale,) = completed(ledger, registry)
    refund = asked(ledger, sale, 10)
    paid_back(ledger, refund.id)
    ledger.write_now(partial(mints.enqueue, payment_id=refund.id, rate=Fraction(1), at_ms=NOW_MS))
    assert ledger.read_now(mints.counts) == {}
    ledger.write_now(partial(mints.enqueue, payment_id=sale, rate=Fraction(1), at_ms=NOW_MS))
    assert ledger.read_now(mints.counts) == {PaymentState.PENDING: 1}


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as gateway:
        yield gateway


async def test_the_push_tells_both_sides_that_the_money_goes_the_other_way(
    gateway: TestGateway,
) -> None:
    card = gateway.card()
    sale = (await gateway.pay(card)).json["transactionId"]
    await send(gateway, sale)
    await complete(gateway, sale, card.issued.account)
    gateway.ledger.write_now(lambda c: floats.open_float(c, MERCHANT, FLOAT, b"\1", NOW_MS))
    gateway.ledger.write_now(lambda c: transitions.refresh_balances(c, {FLOAT: UNIT}, 1))
    ask = partial(refunds.ask, wanted=wanted(sale, UNIT))
    refund = gateway.ledger.write_now(ask)
    async with (
        connected(gateway, user_auth(gateway, "alice")) as alice,
        connected(gateway, user_auth(gateway, "bob")) as bob,
    ):
        await alice.client.emit("subscribe:transaction", {"transactionId": refund.id})
        [(_, data)] = await until(alice, "transaction:update")
        assert (data["transactionId"], data["status"]) == (refund.id, "pending")
        await complete(gateway, refund.id, FLOAT)
        gained = await until(alice, "balance:update")
        lost = await until(bob, "balance:update")
        assert {event for event, _ in gained} == {
            "transaction:update",
            "transaction:completed",
            "balance:update",
        }
        moved = [dict(told)["balance:update"]["balance"] for told in (gained, lost)]
        assert [each["lastTransaction"]["amount"] for each in moved] == [UNIT, -UNIT]


async def until(heard: Heard, wanted_event: str) -> list[tuple[str, dict[str, Any]]]:
    """All that is heard of refunds, up to such an event: the sale's own may come before."""
    told: list[tuple[str, dict[str, Any]]] = []
    while not told or told[-1][0] != wanted_event:
        event, data = await heard.next()
        if "refundOf" in json.dumps(data):
            told.append((event, data))
    return told

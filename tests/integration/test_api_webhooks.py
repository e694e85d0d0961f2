"""Webhooks over HTTP: whose they are, and sending again what was given up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest_asyncio

from taprail_gateway import registry
from taprail_gateway.ledger import webhooks
from taprail_gateway.tokens import Scope
from tests.support.gateway_fixtures import MERCHANT, TestGateway, running_gateway
from tests.support.office_desk import Desk, notes

HOUR_MS = 3_600_000
REPLAY = "/api/webhooks/whk_1/replay"


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    """With a merchant's webhook that was not taken an hour ago, and four days ago."""
    async with running_gateway(tmp_path) as running:
        now_ms = running.now_ms()
        add = partial(webhooks.add_endpoint, endpoint_id="whk_1", merchant_id=MERCHANT)
        add = partial(add, url="https://shop.example/hook", secret=b"wrapped", at_ms=now_ms)
        running.ledger.write_now(add)
        tell = partial(webhooks.enqueue, endpoint_ids=["whk_1"], event="e", body=b"{}")
        for hours in (1, 96):
            at_ms = now_ms - hours * HOUR_MS
            running.ledger.write_now(partial(tell, about=f"0x{hours}", at_ms=at_ms))
        for each in running.ledger.read_now(partial(webhooks.due, now_ms=now_ms, limit=9)):
            bury = partial(webhooks.bury, delivery=each, at_ms=now_ms, error="answered 500")
            running.ledger.write_now(bury)
        yield running


async def test_a_merchant_has_given_up_deliveries_sent_again(gateway: TestGateway) -> None:
    bob = Desk(gateway, "bob", Scope.MERCHANT)
    (shown,) = (await bob.get("/api/webhooks"))["webhooks"]
    assert (shown["id"], shown["url"]) == ("whk_1", "https://shop.example/hook")
    assert "secret" not in str(shown).lower()
    status, answer = await bob("POST", REPLAY)
    assert (status, answer["deliveries"]) == (200, 1)
    assert gateway.ledger.read_now(webhooks.counts) == {"waiting": 1, "dead": 1}
    status, answer = await bob("POST", REPLAY, {"since": "2020-01-01T00:00:00Z", "reason": "all"})
    assert (status, answer["deliveries"]) == (200, 1)
    assert gateway.ledger.read_now(webhooks.counts) == {"waiting": 2}
    assert notes(gateway) == [("user:bob", "webhook-replay", "whk_1")] * 2


async def test_another_merchants_webhook_is_not_there(gateway: TestGateway) -> None:
    rita = partial(registry.add_user, user_id="rita", name="R", role="merchant", now_ms=1)
    await gateway.ledger.write(rita)
    desk = Desk(gateway, "rita", Scope.MERCHANT)
    assert (await desk.get("/api/webhooks"))["webhooks"] == []
    assert (await desk("POST", REPLAY))[0] == 404
    assert (await Desk(gateway, "alice", Scope.CUSTOMER)("POST", REPLAY))[0] == 403
    assert gateway.ledger.read_now(webhooks.counts) == {"dead": 2}
    olga = Desk(gateway, "olga")
    assert len((await olga.get("/api/webhooks"))["webhooks"]) == 1
    assert (await olga("POST", REPLAY))[0] == 200

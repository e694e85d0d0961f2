"""How the queues and the sockets are doing: measured, of now, the same after a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, update

from taprail_common.payment_state import PaymentEvent
from taprail_gateway.ledger import queue_rates, schema, transitions
from taprail_gateway.queue_health import QueueHealth, Report
from taprail_gateway.settle.live import QueueMode
from tests.support.gateway_fixtures import TestCard, TestGateway, running_gateway
from tests.support.push_clients import complete, connected, user_auth

STATUS = "/api/payment/queue-status"
SOCKETS = "/api/payment/ws-status"
GROWS = ("payments", "payment_events", "callbacks", "webhook_deliveries", "mints", "accounts")
OF_WHAT_IS_OPEN = ("_open", "_waiting", "_unread", "_order")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


async def get(gateway: TestGateway, path: str, user: str = "alice") -> Any:
    async with gateway.http.get(path, headers=gateway.bearer(user)) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def look(gateway: TestGateway) -> Report:
    """What somebody is told who asks for the first time, as after a restart."""
    return await QueueHealth(gateway.ledger, gateway.services.health.sources).report()


async def pay(gateway: TestGateway, card: TestCard, count: int = 1) -> list[str]:
    return [(await gateway.pay(card)).json["transactionId"] for _ in range(count)]


async def test_the_answer_has_every_queue_with_every_number(gateway: TestGateway) -> None:
    card = gateway.card()
    await pay(gateway, card, 2)
    told = await get(gateway, STATUS)
    assert told["success"] is True
    assert list(told["queues"]) == ["payment", "mint", "notification", "webhook", "cache"]
    for queue in told["queues"].values():
        assert queue["status"] in {"healthy", "degraded", "stopped"}
        assert {"waiting", "active", "completed", "failed", "delayed", "perMinute"} <= queue.keys()
    payment = told["queues"]["payment"]
    assert (payment["status"], payment["waiting"], payment["completed"]) == ("healthy", 2, 0)
    assert payment["oldestSeconds"] >= 0
    assert told["states"] == {
        "pending": 2,
        "processing": 0,
        "sent": 0,
        "completed": 0,
        "failed": 0,
        "confirmation_failed": 0,
    }
    assert (told["avgSeconds"], told["perSecond"], told["failuresByReason"]) == (None, 0, {})
    assert told["timestamp"].endswith("Z")


async def test_what_was_done_lately_is_counted_and_forgotten_with_time(
    gateway: TestGateway,
) -> None:
    card = gateway.card()
    first, second, third = await pay(gateway, card, 3)
    gateway.clock.ahead_ms = 4_000
    await complete(gateway, first, card.issued.account)
    await gateway.ledger.write(
        lambda connection: transitions.apply(
            connection,
            PaymentEvent.REJECT,
            [second],
            gateway.now_ms(),
            failure_reason="cancelled by operator: the till was wrong",
        )
    )
    report = await look(gateway)
    payment = report.queues["payment"]
    assert (payment.completed, payment.failed, payment.waiting) == (1, 1, 1)
    assert (report.states["completed"], report.states["failed"]) == (1, 1)
    assert report.average_s == pytest.approx(4, abs=2)
    assert report.per_s == pytest.approx(1 / 60, abs=0.001)
    assert payment.per_minute == 1
    assert report.failures == {"cancelled by operator": 1}
    gateway.clock.ahead_ms += 61_000
    later = await look(gateway)
    assert (later.per_s, later.queues["payment"].per_minute) == (0, 0)
    assert later.queues["payment"].completed == 1
    gateway.clock.ahead_ms += queue_rates.WINDOW_S * 1000
    much_later = await look(gateway)
    assert (much_later.queues["payment"].completed, much_later.failures) == (0, {})
    assert much_later.states["pending"] == 1, third
    assert much_later.queues["payment"].status == "degraded"


async def test_it_says_what_keeps_a_queue(gateway: TestGateway) -> None:
    sources = gateway.services.health.sources
    assert {name: str(each.status) for name, each in (await look(gateway)).queues.items()} == {
        "payment": "healthy",
        "mint": "healthy",
        "notification": "healthy",
        "webhook": "healthy",
        "cache": "healthy",
    }
    sources.obstacles = lambda: ["confirmer: the node does not answer"]
    sources.works_on = frozenset()
    sources.told = lambda: None
    report = await look(gateway)
    assert report.queues["payment"].status == "degraded"
    for name in ("mint", "webhook", "notification"):
        assert report.queues[name].status == "stopped"
    gateway.services.live.queue_mode = QueueMode.PAUSED
    assert (await look(gateway)).queues["payment"].status == "stopped"


async def test_accounts_that_were_never_read_wait_in_the_cache(gateway: TestGateway) -> None:
    card = gateway.card()
    await pay(gateway, card)
    before = (await look(gateway)).queues["cache"]
    assert (before.waiting, before.status) == (0, "healthy")
    assert before.completed > 0
    await gateway.ledger.write(
        lambda connection: connection.execute(update(schema.accounts).values(balance_block=0))
    )
    gateway.clock.ahead_ms = 120_000
    after = (await look(gateway)).queues["cache"]
    assert (after.waiting, after.status) == (1, "degraded")
    assert after.oldest_s is not None
    assert after.oldest_s >= 119


async def test_who_asks_often_is_given_what_was_read_a_moment_ago(gateway: TestGateway) -> None:
    await get(gateway, STATUS)
    await pay(gateway, gateway.card())
    reads: list[str] = []

    def note(_c: Any, _cursor: Any, text: str, *_: Any) -> None:
        reads.append(text)

    event.listen(gateway.ledger.read_engine, "before_cursor_execute", note)
    for _ in range(5):
        await gateway.services.health.report()
    assert len({id(await gateway.services.health.report()) for _ in range(5)}) == 1
    event.remove(gateway.ledger.read_engine, "before_cursor_execute", note)
    assert len([text for text in reads if "GROUP BY payments.state" in text]) <= 1


async def test_no_question_goes_over_history(gateway: TestGateway) -> None:
    card = gateway.card()
    for payment in await pay(gateway, card, 2):
        await complete(gateway, payment, card.issued.account)
    seen: dict[str, Any] = {}

    def note(_c: Any, _cursor: Any, text: str, given: Any, *_: Any) -> None:
        seen[text] = given

    event.listen(gateway.ledger.read_engine, "before_cursor_execute", note)
    await look(gateway)
    event.remove(gateway.ledger.read_engine, "before_cursor_execute", note)
    assert len(seen) > 8
    with gateway.ledger.read_engine.begin() as connection:
        plans = [
            plan
            for text, given in seen.items()
            if text.startswith("SELECT") and "max(" not in text
            for *_, plan in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given)
        ]
    scans = [plan for plan in plans if plan.startswith(tuple(f"SCAN {name}" for name in GROWS))]
    assert [plan for plan in scans if not plan.endswith(OF_WHAT_IS_OPEN)] == []


async def test_sockets_are_counted_and_named_to_operators_alone(gateway: TestGateway) -> None:
    async with (
        connected(gateway, user_auth(gateway, "alice")) as one,
        connected(gateway, user_auth(gateway, "alice")) as two,
        connected(gateway, user_auth(gateway, "bob")) as bob,
    ):
        for each in (one, two, bob):
            assert (await each.next())[0] == "connected"
        for user, named in (("alice", ["alice"]), ("mallory", []), ("olga", ["alice", "bob"])):
            told = (await get(gateway, SOCKETS, user))["websocket"]
            assert (told["status"], told["totalConnections"], told["uniqueUsers"]) == (
                *("active", 3),
                2,
            )
            assert told["connectedUsers"] == named


async def test_both_want_to_know_who_asks(gateway: TestGateway) -> None:
    for path in (STATUS, SOCKETS):
        async with gateway.http.get(path) as response:
            assert response.status == 401
        async with gateway.http.get(path, headers=gateway.query_headers(path)) as response:
            assert response.status == 200
        async with gateway.http.get(f"{path}?x=1", headers=gateway.bearer("alice")) as response:
            assert (response.status, (await response.json())["field"]) == (400, "x")

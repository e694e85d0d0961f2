"""Two gateways on one ledger, with a real Redis between them, and without it when it is gone."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from redis import asyncio as redis

from taprail_gateway import push_watch
from taprail_gateway.push_settings import PushSettings
from tests.support.gateway_fixtures import TERMINAL, TestGateway, gateway_beside, running_gateway
from tests.support.ledger_fixtures import on_postgres
from tests.support.push_clients import (
    WAIT_S,
    Heard,
    complete,
    connected,
    send,
    terminal_auth,
    user_auth,
)
from tests.support.redis_server import PASSWORD, NoRedisError, RedisServer

pytestmark = on_postgres


@pytest.fixture
def server() -> Iterator[RedisServer]:
    try:
        server = RedisServer()
    except NoRedisError as exc:
        if os.environ.get("CI") == "1":
            raise
        pytest.skip(str(exc))
    with server:
        yield server


class Joined:
    """Counts the gateways' joining and parting, and keeps all that they log."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self._bell = asyncio.Event()

    def __call__(self, _: object, __: str, line: MutableMapping[str, Any]) -> dict[str, Any]:
        self.lines.append(dict(line))
        self._bell.set()
        raise structlog.DropEvent

    async def until(self, event: str, times: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while sum(line["event"] == event for line in self.lines) < times:
                self._bell.clear()
                await self._bell.wait()


@pytest.fixture
def joined() -> Iterator[Joined]:
    joined = Joined()
    before = structlog.get_config()
    structlog.configure(
        processors=[joined], wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=False
    )
    yield joined
    structlog.configure(**before)


@pytest.fixture
async def gateways(
    tmp_path: Path, ledger_url: str, server: RedisServer, joined: Joined
) -> AsyncIterator[tuple[TestGateway, TestGateway]]:
    settings = PushSettings(redis_url=SecretStr(server.url))
    async with (
        running_gateway(tmp_path, ledger_url=ledger_url, push=settings) as first,
        gateway_beside(first, ledger_url, push=settings) as second,
    ):
        await joined.until("push.joined", 2)
        yield first, second


@asynccontextmanager
async def terminal_at(gateway: TestGateway) -> AsyncIterator[Heard]:
    async with connected(gateway, terminal_auth(gateway)) as terminal:
        await terminal.client.call("terminal:sync", {"requestIds": []}, timeout=WAIT_S)
        yield terminal


async def rest(heard: Heard, until: Callable[[str], bool]) -> list[str]:
    """The events that it hears up to one, which is the last of them."""
    events = [(await heard.next())[0]]
    while not until(events[-1]):
        events.append((await heard.next())[0])
    return events


async def follow_one_payment(at: TestGateway, done_at: TestGateway, uid: str) -> None:
    """Each step of a payment is told once at one gateway, that was taken at the other."""
    card = done_at.card(uid)
    async with connected(at, user_auth(at, "alice")) as alice:
        await alice.next()
        payment = (await done_at.pay(card)).json["transactionId"]
        await alice.client.emit("subscribe:transaction", payment)
        await alice.next()
        await send(done_at, payment)
        await complete(done_at, payment, card.issued.account)
        events = await rest(alice, lambda event: event == "balance:update")
        assert events == ["transaction:update"] * 3 + ["transaction:completed", "balance:update"]
        await alice.client.emit("ping")
        assert await rest(alice, lambda _: True) == ["pong"]


async def test_what_happens_at_one_gateway_is_told_once_at_each(
    gateways: tuple[TestGateway, TestGateway],
) -> None:
    first, second = gateways
    async with terminal_at(first) as here, terminal_at(second) as there:
        await follow_one_payment(second, first, "04AABBCCDDEE01")
        for terminal in (here, there):
            told = [await terminal.next(), await terminal.next()]
            assert [json.loads(data["body"])["status"] for _, data in told] == ["sent", "completed"]
            await terminal.client.call("terminal:sync", {"requestIds": []}, timeout=WAIT_S)
            assert terminal.events.empty()


async def test_a_terminal_is_reached_at_whichever_gateway_it_is(
    gateways: tuple[TestGateway, TestGateway],
) -> None:
    first, second = gateways
    async with terminal_at(second) as terminal:
        await first.push.to_terminal(TERMINAL, "charge:request", {"amount": 5})
        event, data = await terminal.next()
        assert (event, json.loads(data["body"])["amount"]) == ("charge:request", 5)
        await second.push.to_terminal(TERMINAL, "charge:cancel", {"amount": 5})
        assert (await terminal.next())[0] == "charge:cancel"
        await terminal.client.call("terminal:sync", {"requestIds": []}, timeout=WAIT_S)
        assert terminal.events.empty()


async def test_a_charge_of_one_gateway_is_told_once_at_the_other(
    gateways: tuple[TestGateway, TestGateway],
) -> None:
    first, second = gateways
    path, bob = f"/api/terminals/{TERMINAL}/charges", first.bearer("bob")
    wanted = {"amount": 5, "currency": "TUSD", "reference": "table-4", "deadlineSeconds": 60}
    async with terminal_at(second) as terminal:
        async with first.http.post(path, json=wanted, headers=bob) as answer:
            assert answer.status in {200, 201}, await answer.text()
            charge = (await answer.json())["charge"]["chargeId"]
        assert (await terminal.next())[0] == "charge:request"
        async with first.http.post(f"{path}/{charge}/cancel", headers=bob) as answer:
            assert answer.status == 200, await answer.text()
        assert (await terminal.next())[0] == "charge:cancel"
        await terminal.client.call("terminal:sync", {"requestIds": []}, timeout=WAIT_S)
        assert terminal.events.empty()


@pytest.mark.parametrize(
    ("path", "change"),
    [("/api/users/alice", "frozen"), (f"/api/terminals/{TERMINAL}", "frozen")],
)
async def test_who_is_shut_out_at_one_gateway_is_out_at_the_other_at_once(
    gateways: tuple[TestGateway, TestGateway],
    path: str,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = gateways
    monkeypatch.setattr(push_watch, "LOOK_EVERY_MS", 3_600_000)  # from the next wait on
    second.services.wakeups.access.ring()
    alice = second.bearer("alice")
    async with (
        connected(second, user_auth(second, "alice")) as app,
        terminal_at(second) as terminal,
        second.http.get("/api/cards", headers=alice) as answer,
    ):
        assert answer.status == 200
        out, stays = (app, terminal) if "users" in path else (terminal, app)
        olga = first.bearer("olga")
        async with first.http.patch(path, json={"status": change}, headers=olga) as done:
            assert done.status == 200, await done.text()
        async with asyncio.timeout(WAIT_S):
            await out.client.wait()
        assert stays.client.connected
        async with second.http.get("/api/cards", headers=alice) as again:
            assert again.status == (403 if out is app else 200), (
                "what was known of her is forgotten"
            )


async def test_each_goes_on_alone_when_redis_is_gone_and_joins_again(
    gateways: tuple[TestGateway, TestGateway], server: RedisServer, joined: Joined
) -> None:
    first, second = gateways
    server.stop()
    await joined.until("push.alone", 2)
    await follow_one_payment(second, first, "04AABBCCDDEE01")
    async with terminal_at(first) as terminal:
        await first.push.to_terminal(TERMINAL, "charge:request", {"amount": 5})
        assert (await terminal.next())[0] == "charge:request"
    server.start()
    await joined.until("push.joined", 4)
    async with terminal_at(second) as terminal:
        await first.push.to_terminal(TERMINAL, "charge:request", {"amount": 6})
        assert (await terminal.next())[0] == "charge:request"
    assert PASSWORD not in str(joined.lines)
    assert server.url not in str(joined.lines)


async def test_a_redis_that_hangs_keeps_nobody_waiting(
    gateways: tuple[TestGateway, TestGateway], server: RedisServer
) -> None:
    first, second = gateways
    server.hang()
    async with terminal_at(first) as terminal:
        await first.push.to_terminal(TERMINAL, "charge:request", {"amount": 5})
        assert (await terminal.next())[0] == "charge:request"
        await follow_one_payment(second, first, "04AABBCCDDEE01")


async def test_redis_is_believed_in_nothing_but_where_terminals_are(
    gateways: tuple[TestGateway, TestGateway], server: RedisServer
) -> None:
    first, _ = gateways
    channel = f"taprail/{first.services.gateway_id}/push"
    said = {"body": "{}", "signature": ""}
    false = [
        {"terminal": "user:alice", "event": "balance:update", "said": said},
        {"terminal": None, "event": "system:alert", "said": said},
        {"terminal": TERMINAL, "event": 7, "said": said},
        {"terminal": TERMINAL, "event": "first", "said": "no envelope"},
        {"terminal": {}, "event": [], "said": None},
        {"method": "disconnect", "sid": "x", "namespace": "/"},
        ["no", "object"],
    ]
    async with (
        connected(first, user_auth(first, "alice")) as alice,
        terminal_at(first) as terminal,
        redis.Redis.from_url(server.url) as client,
    ):
        await alice.next()
        for each in false:
            await client.publish(channel, json.dumps(each))
        await client.publish(channel, b"\xff{")
        await client.publish(channel, "[" * 50_000)
        await client.publish(channel, json.dumps({"ring": True}))
        true = {"terminal": TERMINAL, "event": "last", "said": said}
        await client.publish(channel, json.dumps(true))
        assert await rest(terminal, lambda _: True) == ["last"]
        await alice.client.emit("ping")
        assert await rest(alice, lambda _: True) == ["pong"]

"""A frozen user: no card of theirs pays, no token of theirs is taken, at every gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from socketio.exceptions import ConnectionError as Refused
from sqlalchemy import select

from taprail_gateway import push_watch, user_life
from taprail_gateway.directory import USER_GOOD_FOR_S
from taprail_gateway.ledger import actions, schema
from taprail_gateway.ledger.actions import By
from tests.support.gateway_fixtures import UNIT, TestGateway, gateway_beside, running_gateway
from tests.support.ledger_fixtures import on_both_engines
from tests.support.push_clients import connected, user_auth

WAIT_S = 20.0
ALICE = "/api/users/alice"


@pytest_asyncio.fixture
async def gateways(tmp_path: Path, ledger_url: str, ledger_engine: str) -> AsyncIterator[Any]:
    """One on a file; on a server two, which know nothing of each other."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running_gateway(tmp_path, ledger_url=ledger_url))
        if ledger_engine == "sqlite":
            yield [first]
            return
        yield [first, await stack.enter_async_context(gateway_beside(first, ledger_url))]


def from_outside(gateway: TestGateway, status: str) -> None:
    """As `taprail admin user freeze` does, on a connection of its own."""
    by = By("cli:root", gateway.now_ms(), "phone stolen")
    gateway.ledger.write_now(partial(user_life.set_status, user_id="alice", status=status, by=by))


async def ask(
    gateway: TestGateway, path: str, user: str, *, method: str = "GET", **body: Any
) -> tuple[int, dict[str, Any]]:
    headers = gateway.bearer(user)
    async with gateway.http.request(method, path, json=body or None, headers=headers) as answer:
        return answer.status, await answer.json()


@on_both_engines
async def test_no_card_of_theirs_pays_at_the_very_next_tap(gateways: list[TestGateway]) -> None:
    first = gateways[0]
    cards = [first.card(), first.card("04AABBCCDDEE02")]
    other = first.card("04AABBCCDDEE03", user_id="mallory")
    for gateway in gateways * 2:
        for status, code in (("frozen", "user_frozen"), ("active", None)):
            from_outside(first, status)
            for card in cards:
                reply = await gateway.pay(card, amount=UNIT)
                assert reply.json.get("reasonCode") == code
                reply.verify(gateway.public_key)
        assert (await gateway.pay(other, amount=UNIT)).status == 200


@on_both_engines
async def test_no_token_of_theirs_is_taken_wherever_it_was_known(
    gateways: list[TestGateway],
) -> None:
    for gateway in gateways:
        assert (await ask(gateway, ALICE, "alice"))[0] == 200
    from_outside(gateways[0], "frozen")
    await asyncio.sleep(USER_GOOD_FOR_S)  # what is bounded here is a time
    for gateway in gateways:
        status, answer = await ask(gateway, ALICE, "alice")
        assert (status, answer["reasonCode"]) == (403, "user_frozen")
        assert (await ask(gateway, ALICE, "olga"))[1]["user"]["status"] == "frozen"


@on_both_engines
async def test_their_sockets_are_closed_and_none_is_opened(gateways: list[TestGateway]) -> None:
    last = gateways[-1]
    async with connected(last, user_auth(last, "alice")) as alice:
        gone = asyncio.Event()
        alice.client.on("disconnect", lambda *_: gone.set())
        from_outside(gateways[0], "frozen")
        async with asyncio.timeout(WAIT_S):
            await gone.wait()
    await asyncio.sleep(USER_GOOD_FOR_S)  # one that comes sooner is closed as the first was
    with pytest.raises(Refused):
        async with connected(last, user_auth(last, "alice")):
            pass


@on_both_engines
async def test_a_gateway_that_could_not_look_for_long_closes_their_sockets_when_it_can(
    gateways: list[TestGateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = gateways[-1]
    monkeypatch.setattr(push_watch, "LOOK_EVERY_MS", 3_600_000)  # from the next wait on
    looked = _looks_of(last, monkeypatch)
    last.services.wakeups.access.ring()
    async with asyncio.timeout(WAIT_S):
        await looked.wait()  # before the first one there was nobody to be shut out late
    async with connected(last, user_auth(last, "alice")) as alice:
        gone = asyncio.Event()
        alice.client.on("disconnect", lambda *_: gone.set())
        from_outside(gateways[0], "frozen")
        last.clock.ahead_ms = 60_000
        last.services.wakeups.access.ring()
        async with asyncio.timeout(WAIT_S):
            await gone.wait()


def _looks_of(gateway: TestGateway, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when this gateway has looked from its beginning to its end."""
    looked, look = asyncio.Event(), push_watch.Watch._look

    async def noted(watch: push_watch.Watch) -> None:
        await look(watch)
        if watch._ledger is gateway.ledger:
            looked.set()

    monkeypatch.setattr(push_watch.Watch, "_look", noted)
    return looked


@on_both_engines
async def test_an_operator_freezes_over_http_and_it_is_on_record(
    gateways: list[TestGateway],
) -> None:
    gateway = gateways[0]
    assert (await ask(gateway, ALICE, "alice"))[0] == 200
    change = partial(ask, gateway, ALICE, method="PATCH", reason="called us")
    assert (await change("bob", status="frozen"))[0] == 403
    status, answer = await change("olga", status="frozen")
    assert (status, answer["user"]["status"]) == (200, "frozen")
    assert (await ask(gateway, ALICE, "alice"))[0] == 403, "at once where it was said"
    assert (await change("olga", status="active"))[1]["user"]["status"] == "active"
    assert (await ask(gateway, ALICE, "alice"))[0] == 200
    unknown = "/api/users/nobody"
    assert (await ask(gateway, unknown, "olga", method="PATCH", status="frozen"))[0] == 404
    done = gateway.ledger.read_now(partial(actions.history, limit=10))
    assert [(each.action, each.actor, each.before, each.after) for each in done] == [
        ("user-unfreeze", "user:olga", "frozen", "active"),
        ("user-freeze", "user:olga", "active", "frozen"),
    ]
    assert {each.reason for each in done} == {"called us"}
    frozen_at = select(schema.users.c.frozen_at_ms).where(schema.users.c.id == "alice")
    assert gateway.ledger.read_now(lambda c: c.scalar(frozen_at)) is None

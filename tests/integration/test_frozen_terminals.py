"""A frozen terminal: nothing is taken of it, at every gateway, until it is thawed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from taprail_common.errors import OperatorError
from taprail_gateway import registry, terminal_keys, terminal_life
from taprail_gateway.ledger.actions import By
from tests.support.gateway_fixtures import (
    TERMINAL,
    UNIT,
    TestGateway,
    gateway_beside,
    running_gateway,
)
from tests.support.ledger_fixtures import on_both_engines
from tests.support.office_desk import Desk, notes
from tests.support.push_clients import connected, refusal_of, terminal_auth

WAIT_S = 20.0
PATH = f"/api/terminals/{TERMINAL}"
HELLO = "/api/terminals/hello"
CHARGE = {"amount": 5, "currency": "TUSD", "reference": "table-4"}


@pytest_asyncio.fixture
async def gateways(tmp_path: Path, ledger_url: str, ledger_engine: str) -> AsyncIterator[Any]:
    """One on a file; on a server two, which know nothing of each other."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running_gateway(tmp_path, ledger_url=ledger_url))
        if ledger_engine == "sqlite":
            yield [first]
            return
        yield [first, await stack.enter_async_context(gateway_beside(first, ledger_url))]


def by(gateway: TestGateway) -> By:
    return By("cli:root", gateway.now_ms())


def from_outside(gateway: TestGateway, status: str) -> None:
    """As `taprail admin terminal freeze` does, on a connection of its own."""
    work = partial(terminal_life.set_status, terminal_id=TERMINAL, status=status, by=by(gateway))
    gateway.ledger.write_now(work)


@on_both_engines
async def test_it_is_refused_at_its_very_next_tap_and_taken_when_it_is_thawed(
    gateways: list[TestGateway],
) -> None:
    first = gateways[0]
    card = first.card()
    for gateway in gateways * 2:
        for status, code in (("frozen", "terminal_frozen"), ("active", None)):
            from_outside(first, status)
            reply = await gateway.pay(card, amount=UNIT)
            assert reply.json.get("reasonCode") == code
            reply.verify(gateway.public_key)
            async with gateway.http.get(HELLO, headers=gateway.query_headers(HELLO)) as answer:
                assert (await answer.json())["status"] == status


@on_both_engines
async def test_its_socket_is_closed_and_it_cannot_be_armed(gateways: list[TestGateway]) -> None:
    first, last = gateways[0], gateways[-1]
    async with connected(last, terminal_auth(last)) as terminal:
        from_outside(first, "frozen")
        async with asyncio.timeout(WAIT_S):
            await terminal.client.wait()
    assert (await refusal_of(last, terminal_auth(last)))["message"] == "Authentication failed"
    status, answer = await Desk(last, "bob")("POST", f"{PATH}/charges", CHARGE)
    assert (status, answer["reasonCode"]) == (409, "terminal_frozen")
    announce = partial(terminal_keys.announce, terminal_id=TERMINAL, public_key="ab" * 32)
    with pytest.raises(OperatorError, match="the terminal is frozen"):
        first.ledger.write_now(partial(announce, by=by(first)))
    from_outside(first, "active")
    async with connected(last, terminal_auth(last)):
        pass


@on_both_engines
async def test_its_merchant_may_freeze_it_and_an_operator_thaws_it(
    gateways: list[TestGateway],
) -> None:
    gateway = gateways[0]
    bob, olga = Desk(gateway, "bob"), Desk(gateway, "olga")
    status, answer = await bob("PATCH", PATH, {"status": "frozen", "reason": "left open"})
    assert (status, answer["terminal"]["status"]) == (200, "frozen")
    assert (await bob("PATCH", PATH, {"status": "active"}))[0] == 403
    assert (await bob.get("/api/terminals"))["terminals"][0]["status"] == "frozen"
    status, answer = await olga("PATCH", PATH, {"status": "active"})
    assert (status, answer["terminal"]["status"]) == (200, "active")
    await bob("PATCH", PATH, {"status": "frozen"})
    status, answer = await bob("PATCH", PATH, {"status": "revoked"})
    assert (status, answer["terminal"]["status"]) == (200, "revoked")
    for changed in ("active", "frozen"):
        status, answer = await olga("PATCH", PATH, {"status": changed})
        assert (status, answer["reasonCode"]) == (409, "wrong_state"), "it is revoked for good"
    assert notes(gateway) == [
        ("user:bob", "freeze-terminal", TERMINAL),
        ("user:olga", "unfreeze-terminal", TERMINAL),
        ("user:bob", "freeze-terminal", TERMINAL),
        ("user:bob", "revoke-terminal", TERMINAL),
    ]


async def test_another_device_in_its_place_is_frozen_too(tmp_path: Path) -> None:
    """Pairing says which device it is, and not that nothing is wrong with it any more."""
    async with running_gateway(tmp_path) as gateway:
        from_outside(gateway, "frozen")
        pair = partial(registry.pair_terminal, terminal_id=TERMINAL, merchant_id="", name="new")
        key = gateway.terminal_key.verify_key.encode().hex()
        gateway.ledger.write_now(partial(pair, public_key=key, now_ms=gateway.now_ms()))
        assert (await gateway.pay(gateway.card())).json["reasonCode"] == "terminal_frozen"

"""A token that was revoked is good for nothing, at every gateway; others of its user go on."""

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
from taprail_gateway.directory import USER_GOOD_FOR_S
from taprail_gateway.ledger import actions, issued_tokens
from taprail_gateway.ledger.actions import By
from tests.support.gateway_fixtures import TestGateway, gateway_beside, running_gateway
from tests.support.ledger_fixtures import on_both_engines
from tests.support.push_clients import Heard, connected, refusal_of

WAIT_S = 20.0
CARDS = "/api/cards"
DAY_MS = 86_400_000


@pytest_asyncio.fixture
async def gateways(tmp_path: Path, ledger_url: str, ledger_engine: str) -> AsyncIterator[Any]:
    """One on a file; on a server two, which know nothing of each other."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running_gateway(tmp_path, ledger_url=ledger_url))
        if ledger_engine == "sqlite":
            yield [first]
            return
        yield [first, await stack.enter_async_context(gateway_beside(first, ledger_url))]


def token(gateway: TestGateway, token_id: str | None) -> str:
    """As `taprail admin token issue` makes one; without an id it is somebody else's."""
    if token_id is not None:
        note = partial(issued_tokens.note_issued, token_id=token_id, user_id="alice", scopes=[])
        gateway.ledger.write_now(partial(note, days=1, by=by(gateway)))
    now_ms = gateway.now_ms()
    return gateway.services.tokens.issue("alice", now_ms=now_ms, days=1, token_id=token_id)


def by(gateway: TestGateway) -> By:
    return By("cli:root", gateway.now_ms(), "phone stolen")


def revoke(gateway: TestGateway, token_id: str, **options: Any) -> None:
    """From outside, on a connection of its own."""
    work = partial(issued_tokens.revoke, token_id=token_id, by=by(gateway), **options)
    gateway.ledger.write_now(work)


async def asked(gateway: TestGateway, text: str) -> tuple[int, str | None]:
    headers = {"Authorization": f"Bearer {text}"}
    async with gateway.http.get(CARDS, headers=headers) as answer:
        return answer.status, (await answer.json()).get("reasonCode")


@on_both_engines
async def test_it_is_taken_nowhere_and_the_users_others_are(gateways: list[TestGateway]) -> None:
    lost, other, no_id = (token(gateways[0], token_id) for token_id in ("tok_1", "tok_2", None))
    for gateway in gateways:
        for each in (lost, other, no_id):
            assert await asked(gateway, each) == (200, None)
    revoke(gateways[0], "tok_1")
    await asyncio.sleep(USER_GOOD_FOR_S)  # what is bounded here is a time
    for gateway in gateways:
        assert await asked(gateway, lost) == (401, "token_revoked")
        assert (await refusal_of(gateway, {"token": lost}))["message"] == "Authentication failed"
        for each in (other, no_id):
            assert await asked(gateway, each) == (200, None)


@on_both_engines
async def test_the_sockets_that_it_opened_are_closed_and_no_others(
    gateways: list[TestGateway],
) -> None:
    last = gateways[-1]
    lost, other = (token(last, token_id) for token_id in ("tok_1", "tok_2"))
    async with (
        connected(last, {"token": lost}) as thief,
        connected(last, {"token": lost}) as second,
        connected(last, {"token": other}) as alice,
    ):
        gone = [told_to_go(each) for each in (thief, second)]
        revoke(gateways[0], "tok_1")
        async with asyncio.timeout(WAIT_S):
            for each in gone:
                await each.wait()
        assert last.push.presence().users == ["alice"]
        await alice.next()
        await alice.client.emit("ping")
        assert (await alice.next())[0] == "pong"


def told_to_go(heard: Heard) -> asyncio.Event:
    gone = asyncio.Event()
    heard.client.on("disconnect", lambda *_: gone.set())
    return gone


@on_both_engines
async def test_one_that_was_issued_elsewhere_is_revoked_by_its_id_and_user(
    gateways: list[TestGateway],
) -> None:
    first = gateways[0]
    now_ms = first.now_ms()
    text = first.services.tokens.issue("alice", now_ms=now_ms, days=1, token_id="idp-77")
    assert await asked(first, text) == (200, None)
    with pytest.raises(OperatorError, match="no token 'idp-77' was issued here"):
        revoke(first, "idp-77")
    with pytest.raises(OperatorError, match="no user 'nobody'"):
        revoke(first, "idp-77", issued_to="nobody")
    revoke(first, "idp-77", issued_to="alice")
    with pytest.raises(OperatorError, match="is alice's"):
        revoke(first, "idp-77", issued_to="bob")
    revoke(first, "idp-77")
    first.services.directory.look_again("token:idp-77")
    assert await asked(first, text) == (401, "token_revoked")


@on_both_engines
async def test_what_is_known_of_tokens_is_who_when_and_until_when(
    gateways: list[TestGateway],
) -> None:
    first = gateways[0]
    texts = [token(first, token_id) for token_id in ("tok_1", "tok_2")]
    revoke(first, "tok_1")
    revoke(first, "tok_1")
    now_ms = first.now_ms()
    look = partial(issued_tokens.listed, user_id="alice")
    rows = first.ledger.read_now(partial(look, now_ms=None))
    assert {row.id: row.status(now_ms) for row in rows} == {"tok_1": "revoked", "tok_2": "active"}
    assert {row.status(now_ms + DAY_MS) for row in rows} == {"revoked", "expired"}
    assert [row.id for row in first.ledger.read_now(partial(look, now_ms=now_ms))] == ["tok_2"]
    assert first.ledger.read_now(partial(look, now_ms=now_ms + DAY_MS)) == []
    assert not any(text.rpartition(".")[2] in str(rows) for text in texts)
    first.clock.ahead_ms = 100 * DAY_MS
    token(first, "tok_3")
    rows = first.ledger.read_now(partial(look, now_ms=None))
    assert [row.id for row in rows] == ["tok_3"], "what ended long ago is forgotten"
    done = first.ledger.read_now(partial(actions.history, limit=10, subjects=["tok_1"]))
    noted = [(each.action, each.actor, each.reason) for each in done]
    assert noted[0] == ("revoke-token", "cli:root", "phone stolen")
    assert noted[-1][0] == "issue-token"

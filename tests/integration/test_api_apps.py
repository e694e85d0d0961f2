"""Apps at the HTTP edge: whose token is good for what, and what an idempotency key is worth."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from taprail_gateway.ledger import schema
from taprail_gateway.tokens import Scope
from tests.support.gateway_fixtures import (
    MERCHANT,
    SECRET,
    TERMINAL,
    UNIT,
    TestGateway,
    running_gateway,
)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


def stored(gateway: TestGateway) -> int:
    return gateway.rows(schema.verdicts) + gateway.rows(schema.payments)


def app_payment(card_uuid: str, **changes: Any) -> dict[str, Any]:
    return {
        "cardUuid": card_uuid,
        "amount": UNIT,
        "merchantId": MERCHANT,
        "terminalId": TERMINAL,
        **changes,
    }


async def get(gateway: TestGateway, path: str, headers: dict[str, str]) -> tuple[int, Any]:
    async with gateway.http.get(path, headers=headers) as response:
        return response.status, await response.json()


async def test_an_app_pays_with_a_card_of_its_own(gateway: TestGateway) -> None:
    card = gateway.card()
    reply = await gateway.post(app_payment(card.issued.card_uuid), gateway.bearer("alice"))
    assert reply.status == 200
    assert reply.json["requestId"]
    stranger = await gateway.post(app_payment(card.issued.card_uuid), gateway.bearer("mallory"))
    assert (stranger.status, stranger.json["reasonCode"]) == (403, "not_your_card")
    assert gateway.rows(schema.verdicts) == 1


async def test_an_idempotency_key_gives_the_first_answer_again(gateway: TestGateway) -> None:
    body = app_payment(gateway.card().issued.card_uuid)
    headers = {**gateway.bearer("alice"), "Idempotency-Key": "key-1"}
    first, again = await gateway.post(body, headers), await gateway.post(body, headers)
    assert (first.status, first.json["requestId"]) == (200, "key-1")
    assert again.body == first.body
    other = await gateway.post({**body, "amount": 2 * UNIT}, headers)
    assert (other.status, other.json["reasonCode"]) == (409, "request_id_reused")
    assert other.json["field"] == "Idempotency-Key"
    named = {**body, "requestId": "key-1"}
    in_body = await gateway.post(named, gateway.bearer("alice"))
    assert (in_body.status, in_body.json["field"]) == (409, "requestId")
    malformed = await gateway.post(body, {**headers, "Idempotency-Key": "a b"})
    assert (malformed.status, malformed.json["field"]) == (400, "Idempotency-Key")
    assert gateway.rows(schema.payments) == 1


async def test_a_key_is_good_for_more_than_a_month_for_what_was_declined_too(
    gateway: TestGateway,
) -> None:
    headers = gateway.bearer("alice")
    body = app_payment(gateway.card().issued.card_uuid)
    gateway.clock.ahead_ms = -31 * 86_400_000
    for key, amount, status in (("paid", UNIT, 200), ("declined", 90 * UNIT, 400)):
        keyed = {**headers, "Idempotency-Key": key}
        wanted = {**body, "amount": amount}
        gateway.clock.ahead_ms = -31 * 86_400_000
        first = await gateway.post(wanted, keyed)
        gateway.clock.ahead_ms = 0
        again = await gateway.post(wanted, keyed)
        assert (first.status, again.status) == (status, status)
        assert (again.body, again.signature) == (first.body, first.signature)
    assert gateway.rows(schema.payments) == 1


async def test_one_that_is_still_in_flight_gives_the_same_payment(gateway: TestGateway) -> None:
    body = app_payment(gateway.card().issued.card_uuid)
    headers = {**gateway.bearer("alice"), "Idempotency-Key": "key-1"}
    replies = await asyncio.gather(*(gateway.post(body, headers) for _ in range(10)))
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert gateway.rows(schema.payments) == 1


async def test_an_app_cannot_take_a_terminals_request_id(gateway: TestGateway) -> None:
    card = gateway.card()
    of_app = app_payment(card.issued.card_uuid, requestId="req-1")
    assert (await gateway.post(of_app, gateway.bearer("alice"))).status == 200
    assert (await gateway.pay(card, requestId="req-1")).status == 200


def token(key: str | bytes = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    wanted = {"id": "alice", "exp": int(time.time()) + 3_600, **claims}
    present = {name: value for name, value in wanted.items() if value is not None}
    return jwt.encode(present, key, algorithm=algorithm)


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "token_missing"),
        ("Basic YWxpY2U6", "token_missing"),
        ("Bearer", "token_missing"),
        ("Bearer nonsense", "token_invalid"),
        (f"Bearer {token(exp=int(time.time()) - 1)}", "token_expired"),
        (f"Bearer {token(exp=None)}", "token_invalid"),
        (f"Bearer {token(id=None)}", "token_invalid"),
        (f"Bearer {token(id=7)}", "token_invalid"),
        (f"Bearer {token(id='nobody')}", "token_invalid"),
        (f"Bearer {token(key='', algorithm='none')}", "token_invalid"),
        (f"Bearer {token(key=b'another secret of thirty-two bytes!!')}", "token_invalid"),
        (f"Bearer {token(key=SECRET * 2, algorithm='HS512')}", "token_invalid"),
    ],
    # Not the tokens themselves: they hold the time, and two workers would collect other tests.
    ids=(
        *("none", "basic", "empty", "nonsense", "expired", "endless", "nobody's", "number"),
        *("stranger", "unsigned", "another key", "another algorithm"),
    ),
)
async def test_a_token_that_proves_nothing_is_refused(
    gateway: TestGateway, authorization: str | None, code: str
) -> None:
    headers = {"Content-Type": "application/json"}
    if authorization is not None:
        headers["Authorization"] = authorization
    reply = await gateway.post(app_payment(gateway.card().issued.card_uuid), headers)
    assert (reply.status, reply.json["reasonCode"]) == (401, code)
    assert stored(gateway) == 0


@pytest.mark.parametrize(
    ("user", "scopes", "status"),
    [
        ("alice", [Scope.CUSTOMER], 200),
        ("alice", [Scope.MERCHANT, Scope.OPERATOR], 404),
        ("alice", [], 404),
        ("bob", [Scope.MERCHANT], 200),
        ("bob", [Scope.CUSTOMER, Scope.OPERATOR], 404),
        ("olga", [Scope.OPERATOR], 200),
        ("olga", [Scope.CUSTOMER, Scope.MERCHANT], 404),
    ],
)
async def test_a_token_is_good_for_what_both_it_and_the_role_allow(
    gateway: TestGateway, user: str, scopes: list[Scope], status: int
) -> None:
    path = (await gateway.pay(gateway.card())).json["statusUrl"]
    headers = {"Authorization": f"Bearer {gateway.token(user, scopes)}"}
    assert (await get(gateway, path, headers))[0] == status


async def test_only_a_customers_token_pays(gateway: TestGateway) -> None:
    body = app_payment(gateway.card().issued.card_uuid)
    headers = {
        "Authorization": f"Bearer {gateway.token('alice', [Scope.OPERATOR])}",
        "Content-Type": "application/json",
    }
    reply = await gateway.post(body, headers)
    assert (reply.status, reply.json["reasonCode"]) == (403, "scope")
    assert stored(gateway) == 0

"""Users, merchants, terminals and cards over HTTP: who may, what is wrong, what is noted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from taprail_common.signing import public_key_text
from tests.support.gateway_fixtures import MERCHANT, TERMINAL, TestGateway, running_gateway
from tests.support.office_desk import Desk, notes

ACCOUNT = "0x" + "Ab" * 20


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


@pytest.fixture
def olga(gateway: TestGateway) -> Desk:
    return Desk(gateway, "olga")


async def test_operators_add_users_and_each_sees_themselves(
    gateway: TestGateway, olga: Desk
) -> None:
    status, body = await olga("POST", "/api/users", {"id": "carol", "name": "Carol C"})
    assert status == 201
    assert (body["user"]["name"], body["user"]["role"]) == ("Carol C", "customer")
    status, body = await olga("POST", "/api/users", {"id": "carol"})
    assert (status, body["reasonCode"]) == (409, "exists")
    carol = Desk(gateway, "carol")
    assert (await carol.get("/api/users/carol"))["user"]["id"] == "carol"
    assert (await carol("GET", "/api/users/alice"))[0] == 404
    assert [each["id"] for each in (await carol.get("/api/users"))["users"]] == ["carol"]
    assert (await carol("POST", "/api/users", {"id": "dave"}))[0] == 403
    page = (await olga.get("/api/users?limit=2&after=alice"))["users"]
    assert [each["id"] for each in page] == ["bob", "carol"]
    assert notes(gateway) == [("user:olga", "add-user", "carol")]


async def test_merchants_see_what_is_theirs_and_may_revoke_their_terminals(
    gateway: TestGateway, olga: Desk
) -> None:
    status, body = await olga("POST", "/api/merchants", {"id": "bakery", "account": ACCOUNT})
    assert (status, body["merchant"]["account"]) == (201, ACCOUNT.lower())
    key = public_key_text(SigningKey.generate().verify_key)
    new = {"id": "oven-1", "merchantId": "bakery", "publicKey": key}
    assert (await olga("POST", "/api/terminals", new))[0] == 201
    nowhere = await olga("POST", "/api/terminals", {**new, "id": "x", "merchantId": "none"})
    assert (nowhere[0], nowhere[1]["reasonCode"]) == (404, "not_found")
    bob = Desk(gateway, "bob")
    assert [m["id"] for m in (await bob.get("/api/merchants"))["merchants"]] == [MERCHANT]
    assert [t["id"] for t in (await bob.get("/api/terminals"))["terminals"]] == [TERMINAL]
    assert (await bob("GET", "/api/merchants/bakery"))[0] == 404
    assert (await bob("PATCH", "/api/terminals/oven-1", {"status": "revoked"}))[0] == 404
    assert (await bob("PATCH", f"/api/merchants/{MERCHANT}", {"status": "closed"}))[0] == 403
    status, body = await bob("PATCH", f"/api/terminals/{TERMINAL}", {"status": "revoked"})
    assert (status, body["terminal"]["status"]) == (200, "revoked")
    assert (await bob("PATCH", f"/api/terminals/{TERMINAL}", {"status": "active"}))[0] == 403
    assert (await Desk(gateway, "alice")("GET", "/api/terminals"))[0] == 403
    declined = await gateway.pay(gateway.card())
    assert declined.json["reasonCode"] == "terminal_revoked"
    assert ("user:bob", "revoke-terminal", TERMINAL) in notes(gateway)


async def test_a_closed_merchant_is_paid_nothing(gateway: TestGateway, olga: Desk) -> None:
    status, body = await olga("PATCH", f"/api/merchants/{MERCHANT}", {"status": "closed"})
    assert (status, body["merchant"]["status"]) == (200, "closed")
    declined = await gateway.pay(gateway.card())
    assert declined.json["reasonCode"] == "invalid_merchant"
    await olga("PATCH", f"/api/merchants/{MERCHANT}", {"status": "active"})
    assert (await gateway.pay(gateway.card(uid="04AABBCCDDEE09"))).status == 200


async def test_cards_are_issued_frozen_and_limited(gateway: TestGateway, olga: Desk) -> None:
    new = {"userId": "alice", "uid": "04AABBCCDDEE77", "singleLimit": 9, "cardUuid": "card-7"}
    status, body = await olga("POST", "/api/cards", new)
    assert status == 201
    card = body["card"]
    assert (card["uuid"], card["singleLimit"], card["dailyLimit"]) == ("card-7", 9, 2_000_000)
    assert (card["status"], card["balance"], card["held"]) == ("active", 0, 0)
    assert not any("key" in name.lower() or name == "uid" for name in card)
    again = await olga("POST", "/api/cards", {**new, "cardUuid": "card-8"})
    assert (again[0], again[1]["reasonCode"]) == (409, "exists")
    alice, path = Desk(gateway, "alice"), "/api/cards/card-7"
    assert (await alice("PATCH", path, {"singleLimit": 10}))[0] == 403
    status, body = await alice("PATCH", path, {"status": "frozen", "reason": "lost"})
    assert (status, body["card"]["status"]) == (200, "frozen")
    assert (await alice("PATCH", path, {"status": "active"}))[0] == 403
    assert (await Desk(gateway, "mallory")("PATCH", path, {"status": "frozen"}))[0] == 404
    assert (await Desk(gateway, "mallory")("GET", path))[0] == 404
    status, body = await olga("PATCH", path, {"status": "active", "dailyLimit": 50})
    assert (body["card"]["status"], body["card"]["dailyLimit"]) == ("active", 50)
    assert [each["uuid"] for each in (await alice.get("/api/cards"))["cards"]] == ["card-7"]
    assert notes(gateway) == [
        ("user:olga", "issue-card", "card-7"),
        ("user:alice", "card-status", "card-7"),
        ("user:olga", "card-status", "card-7"),
        ("user:olga", "card-daily-limit", "card-7"),
    ]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/api/users", {"id": "a b"}, "id"),
        ("/api/users", {"id": "ann", "role": "king"}, "role"),
        ("/api/users", {"id": "ann", "name": "A\u0000"}, "name"),
        ("/api/users", {"id": "\u0430nn"}, "id"),
        ("/api/merchants", {"id": "m", "account": "0x12"}, "account"),
        ("/api/merchants", {"id": "m", "account": "0x" + "0" * 40}, "account"),
        ("/api/terminals", {"id": "t", "merchantId": MERCHANT, "publicKey": "zz"}, "publicKey"),
        ("/api/cards", {"userId": "alice", "uid": "04AA"}, "uid"),
        ("/api/cards", {"userId": "alice"}, "uid"),
        ("/api/cards", {"userId": "alice", "uid": "04" * 7, "timeZone": "Mars/Base"}, "timeZone"),
        ("/api/cards", {"userId": "alice", "uid": "04" * 7, "singleLimit": 0}, "singleLimit"),
        ("/api/cards", {"userId": "alice", "uid": "04" * 7, "address": ACCOUNT}, "address"),
    ],
)
async def test_what_cannot_be_added_is_named_and_nothing_is_noted(
    gateway: TestGateway, olga: Desk, path: str, body: dict[str, Any], field: str
) -> None:
    status, answer = await olga("POST", path, body)
    assert (status, answer["field"]) == (400, field), answer
    assert notes(gateway) == []


async def test_bodies_that_mean_two_things_are_refused(gateway: TestGateway) -> None:
    headers = gateway.bearer("olga")
    nested = b'{"id":' + b"[" * 3_000
    for raw, field in (
        (b'{"id":"ann","id":"eve"}', "id"),
        (b'{"id":"ann","role":"customer","role":"operator"}', "role"),
        (nested, "body"),
        (b'{"id":NaN}', "id"),
        (b"", "body"),
    ):
        async with gateway.http.post("/api/users", data=raw, headers=headers) as response:
            assert (response.status, (await response.json())["field"]) == (400, field), raw

"""Pairing over HTTP: a real device key, a real ledger, and people in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from nacl.signing import SigningKey

from taprail_common.errors import InputError, OperatorError, SignatureError
from taprail_common.pairing import PAIR_PATH, Code, PairRequest, request_proof
from taprail_common.signing import fingerprint, public_key_text
from taprail_gateway import pairing as codes
from taprail_gateway import registry
from taprail_gateway.api.rates import LimitSettings, RateLimits
from taprail_gateway.ledger import schema_pairing
from taprail_gateway.ledger.actions import By
from taprail_gateway.pairing import Wanted
from taprail_terminal.config import load_config, place_of
from taprail_terminal.identity import Identity
from taprail_terminal.paired import Place
from taprail_terminal.pairing import pair
from tests.support.gateway_fixtures import MERCHANT, TERMINAL, TestGateway, running_gateway
from tests.support.office_desk import notes

CODE = Code.parse("k7qf 4mx9 ft2w")
KEY = CODE.key()
NEW = "till-9"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


def offer(gateway: TestGateway, terminal_id: str = NEW, merchant: str | None = MERCHANT) -> None:
    by = By("cli:olga", gateway.now_ms())
    wanted = Wanted(terminal_id, merchant)
    gateway.ledger.write_now(lambda db: codes.offer(db, CODE, KEY, wanted, by))


def place(folder: Path, url: str) -> Place:
    return Place(url, folder / "state", folder / "state" / "device.key")


def asked(**changes: Any) -> dict[str, Any]:
    request = PairRequest(
        code=CODE.name, public_key=public_key_text(SigningKey.generate().verify_key), nonce="0" * 32
    )
    proof = request_proof(KEY, request)
    return {**request.model_dump(by_alias=True, exclude_none=True), "proof": proof, **changes}


async def post(gateway: TestGateway, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with gateway.http.post(PAIR_PATH, json=body) as response:
        return response.status, await response.json()


def everything_in(folder: Path, pattern: str) -> bytes:
    return b"".join(file.read_bytes() for file in folder.glob(pattern))


async def test_a_device_becomes_a_terminal_and_both_sides_show_the_same_fingerprints(
    gateway: TestGateway, tmp_path: Path
) -> None:
    offer(gateway)
    config = tmp_path / "terminal.toml"
    config.write_text(f'[terminal]\nstate_dir = "state"\ngateway_url = "{gateway.url}"\n')
    answer = await pair(place_of(config), "k7qf-4mx9-ft2w")
    device = Identity.load(NEW, tmp_path / "state" / "device.key")
    assert answer.fingerprint == device.fingerprint
    assert answer.gateway_fingerprint == fingerprint(gateway.public_key)
    # The configuration is whole now, and the gateway knows the terminal.
    loaded = load_config(config)
    assert (loaded.terminal.id, loaded.gateway_key) == (NEW, gateway.public_key)
    query = device.query("GET", "/api/terminals/hello", gateway.now_ms())
    async with gateway.http.get("/api/terminals/hello", headers=query.headers) as response:
        assert response.status == 200
    assert [note[1] for note in notes(gateway)] == ["offer-pairing", "pair-terminal"]
    assert b"4MX9" not in everything_in(tmp_path, "ledger.db*")
    # Its answer may have been lost: the same device is told again, another one is not.
    assert await pair(place_of(config), "K7QF4MX9FT2W") == answer
    with pytest.raises(OperatorError, match="refuses"):
        await pair(place(tmp_path / "other", gateway.url), CODE.text)


async def test_a_code_dies_of_five_wrong_tries_and_of_age(gateway: TestGateway) -> None:
    offer(gateway)
    for _ in range(codes.MAX_TRIES):
        status, body = await post(gateway, asked(proof="00" * 32))
        assert (status, body["reasonCode"]) == (403, "pairing_refused")
    assert (await post(gateway, asked()))[0] == 403
    offer(gateway)
    gateway.clock.ahead_ms = codes.MAX_MINUTES * 60_000 + 1
    assert (await post(gateway, asked()))[0] == 403
    assert [note[1] for note in notes(gateway)].count("refuse-pairing") == codes.MAX_TRIES
    assert gateway.rows(schema_pairing.pairings) == 1


async def test_a_code_is_used_once_however_many_come_at_the_same_time(
    gateway: TestGateway,
) -> None:
    offer(gateway)
    answers = await asyncio.gather(*(post(gateway, asked()) for _ in range(4)))
    assert sorted(status for status, _ in answers) == [200, 403, 403, 403]


async def test_a_whole_code_over_a_trusted_line_pairs_as_well(gateway: TestGateway) -> None:
    offer(gateway)
    key = public_key_text(SigningKey.generate().verify_key)
    wrong = await post(gateway, {"code": "K7QF-4MX9-FT2X", "publicKey": key})
    assert wrong[0] == 403
    status, body = await post(gateway, {"code": CODE.text, "publicKey": key})
    assert (status, body["terminalId"]) == (200, NEW)
    assert body["gatewayPublicKey"] == public_key_text(gateway.public_key)


async def test_a_replaced_device_is_nobody_from_then_on(
    gateway: TestGateway, tmp_path: Path
) -> None:
    assert (await gateway.pay(gateway.card())).status == 200
    gateway.ledger.write_now(lambda db: registry.revoke_terminal(db, TERMINAL))
    offer(gateway, TERMINAL, None)
    await pair(place(tmp_path, gateway.url), CODE.text)
    refused = await gateway.pay(gateway.card(uid="04AABBCCDDEE02"))
    assert (refused.status, refused.json["reasonCode"]) == (401, "bad_signature")


@pytest.mark.parametrize("swapped", ["request", "answer"])
async def test_who_sits_between_can_swap_no_key(
    gateway: TestGateway, tmp_path: Path, swapped: str
) -> None:
    offer(gateway)
    theirs = public_key_text(SigningKey.generate().verify_key)

    async def between(request: web.Request) -> web.Response:
        body = await request.json()
        if swapped == "request":
            body["publicKey"] = theirs
        async with ClientSession(gateway.url) as http, http.post(PAIR_PATH, json=body) as reply:
            text = (await reply.text()).replace(public_key_text(gateway.public_key), theirs)
            proof = {name: reply.headers[name] for name in reply.headers if "Proof" in name}
            return web.Response(text=text, status=reply.status, headers=proof)

    app = web.Application()
    app.router.add_post(PAIR_PATH, between)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = "http://{}:{}".format(*runner.addresses[0][:2])
        with pytest.raises(OperatorError if swapped == "request" else SignatureError):
            await pair(place(tmp_path, url), CODE.text)
    finally:
        await runner.cleanup()
    assert not (tmp_path / "state" / "paired.json").exists()
    keys = gateway.ledger.read_now(partial(codes.used_by, name=CODE.name))
    assert keys != theirs


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "code"),
        (asked(publicKey="zz"), "publicKey"),
        (asked(code="A" * 41), "code"),
        (asked(code="ÄÖÜß"), "code"),
        (asked(proof="00"), "proof"),
        (asked(nonce=7), "nonce"),
        (asked(extra=1), "extra"),
        ({"code": "K7QF", "publicKey": "00" * 32}, "code"),
    ],
)
async def test_hostile_requests_are_named_and_cost_no_try(
    gateway: TestGateway, body: dict[str, Any], field: str
) -> None:
    offer(gateway)
    status, answer = await post(gateway, body)
    assert (status, answer["field"]) == (400, field)
    assert (await post(gateway, asked()))[0] == 200


async def test_one_address_may_not_try_all_names(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        rates = RateLimits(LimitSettings(pairing="2/minute"))
        object.__setattr__(gateway.services, "rates", rates)
        statuses = [(await post(gateway, asked(code=name)))[0] for name in ("AAAA", "BBBB", "CCCC")]
        assert statuses == [403, 403, 429]


def test_codes_are_read_as_people_type_them_and_refused_with_words() -> None:
    assert Code.parse("Oi1l-0000 zzzz") == Code("0111", "0000ZZZZ")
    assert Code.parse(Code.new().text).text != replace(CODE, secret="0" * 8).text
    assert "secret" not in repr(CODE)
    for typed in ("", "K7QF", "K7QF-4MX9-FT2", "K7QF-4MX9-FT2U", "é" * 12):
        with pytest.raises(InputError, match="12 letters and digits"):
            Code.parse(typed)

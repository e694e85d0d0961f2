"""The edge: how often somebody may ask, other web sites, and bytes that are no HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import ValidationError

from taprail_gateway.api.edge import allow_origins
from taprail_gateway.api.errors import HttpError
from taprail_gateway.api.rates import MAX_KEPT, Kind, LimitSettings, RateLimits
from taprail_gateway.api.routes import build_app
from taprail_gateway.ledger import schema
from tests.support.gateway_fixtures import MERCHANT, TERMINAL, TestGateway, running_gateway
from tests.support.manual_clock import ManualClock

SITE = "https://till.example"
STATUS = "/api/payment/queue-status"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


# --- how often ------------------------------------------------------------------------------------


async def test_a_limit_holds_for_each_by_themselves_and_ends_with_its_window() -> None:
    clock = ManualClock()
    rates = RateLimits(LimitSettings(other="3/second; 5/minute"), clock)
    for _ in range(3):
        rates.take("user:alice", Kind.OTHER)
    with pytest.raises(HttpError) as caught:
        rates.take("user:alice", Kind.OTHER)
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "1")
    rates.take("user:bob", Kind.OTHER)
    rates.take("alice", Kind.OTHER)  # a terminal of that name
    rates.take("user:alice", Kind.PAYMENT)
    await clock.advance(1)
    rates.take("user:alice", Kind.OTHER)
    rates.take("user:alice", Kind.OTHER)
    with pytest.raises(HttpError) as caught:
        rates.take("user:alice", Kind.OTHER)
    assert int(caught.value.headers["Retry-After"]) == 59
    await clock.advance(59)
    rates.take("user:alice", Kind.OTHER)


def test_counters_do_not_grow_without_end() -> None:
    rates = RateLimits(LimitSettings(other="1/minute"), ManualClock())
    for number in range(MAX_KEPT + 10):
        rates.take(f"user:{number}", Kind.OTHER)
    assert len(rates.counters) == MAX_KEPT


@pytest.mark.parametrize("text", ["often", "0/second", "-1/second", "5/fortnight", "5"])
def test_a_limit_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        LimitSettings(other=text)


async def test_one_too_many_is_told_when_to_come_again_and_stores_nothing(
    tmp_path: Path,
) -> None:
    limits = LimitSettings(process_async="2/hour", terminal_payments="1/hour", other="1/hour")
    async with running_gateway(tmp_path) as gateway:
        services = replace(gateway.services, rates=RateLimits(limits))
        async with serving(build_app(services)) as http:
            card = gateway.card()
            body = {
                "cardUuid": card.issued.card_uuid,
                "amount": 5,
                "merchantId": MERCHANT,
                "terminalId": TERMINAL,
            }
            path = "/api/payment/process-async"
            for expected in (200, 200, 429):
                async with http.post(path, json=body, headers=bearer(gateway, "alice")) as answer:
                    assert answer.status == expected, await answer.text()
            assert 0 < int(answer.headers["Retry-After"]) <= 3_600
            assert gateway.rows(schema.verdicts) == 2
            async with http.post(path, json=body, headers=bearer(gateway, "mallory")) as other:
                assert other.status == 403  # not one too many: it is another user
            for user, expected in (("alice", 200), ("alice", 429), ("bob", 200)):
                async with http.get(STATUS, headers=bearer(gateway, user)) as answer:
                    assert answer.status == expected
            for expected in (200, 429):
                async with http.get(STATUS, headers=gateway.query_headers(STATUS)) as answer:
                    assert answer.status == expected


def bearer(gateway: TestGateway, user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {gateway.token(user)}"}


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[aiohttp.ClientSession]:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as http:
        yield http
    await runner.cleanup()


# --- other web sites ------------------------------------------------------------------------------

PREFLIGHT = {
    "Origin": SITE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
}


async def test_scripts_of_named_sites_may_ask_and_of_no_others(gateway: TestGateway) -> None:
    app = build_app(gateway.services)
    allow_origins(app, [SITE])
    async with serving(app) as http:
        async with http.options("/api/users", headers=PREFLIGHT) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == SITE
            assert "Idempotency-Key" in answer.headers["Access-Control-Allow-Headers"]
            assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
        for origin, expected in ((SITE, SITE), ("https://evil.example", None), (None, None)):
            headers = bearer(gateway, "alice") | ({"Origin": origin} if origin else {})
            async with http.get(STATUS, headers=headers) as answer:
                assert answer.headers.get("Access-Control-Allow-Origin") == expected
                assert "Access-Control-Allow-Credentials" not in answer.headers
                assert answer.headers["Vary"] == "Origin"
        # An error is told to the site as well, or its script could not show it.
        async with http.get(STATUS, headers={"Origin": SITE}) as answer:
            assert answer.status == 401
            assert answer.headers["Access-Control-Allow-Origin"] == SITE
        strange = PREFLIGHT | {"Origin": "https://till.example.evil.example"}
        async with http.options("/api/users", headers=strange) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_by_default_no_site_may(gateway: TestGateway) -> None:
    async with gateway.http.options("/api/users", headers=PREFLIGHT) as answer:
        assert answer.status == 405
    headers = bearer(gateway, "alice") | {"Origin": SITE}
    async with gateway.http.get(STATUS, headers=headers) as answer:
        assert not [name for name in answer.headers if name.startswith("Access-Control")]


# --- bytes that are no HTTP -----------------------------------------------------------------------

GARBAGE = [
    b"GARBAGE\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50,
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"s3cret" * 4_000,
    b"GET /" + b"s3cret" * 4_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(2_000)) + b"\r\n",
    b"POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /api/users HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nAuthorization : Bearer s3cret\r\n\r\n",
    b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
]


@pytest.mark.parametrize("raw", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_is_refused_and_leaves_no_trace(
    gateway: TestGateway, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        answer = await raw_answer(gateway, raw)
    assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
    assert "Traceback" not in caplog.text
    assert "s3cret" not in caplog.text
    async with gateway.http.get("/healthz") as healthy:
        assert healthy.status == 200


async def raw_answer(gateway: TestGateway, raw: bytes) -> bytes:
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(raw)
    answer: Any = await asyncio.wait_for(reader.read(100), 10)
    writer.close()
    return bytes(answer)

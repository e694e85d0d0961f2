"""The HTTP edge: who may ask, what is malformed, what is told to whom; nothing bad is stored."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey
from pytest_mock import MockerFixture

from taprail_common.signing import Domain, sign, verify
from taprail_common.wire import MAX_BODY_BYTES, SIGNATURE_HEADER, TERMINAL_HEADER
from taprail_gateway.api import bodies
from taprail_gateway.ledger import schema
from tests.support.gateway_fixtures import (
    MERCHANT,
    PATH,
    TERMINAL,
    UNIT,
    Reply,
    TestGateway,
    running_gateway,
)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


def stored(gateway: TestGateway) -> int:
    return gateway.rows(schema.verdicts) + gateway.rows(schema.payments)


# --- malformed requests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": None}, "amount"),
        ({"amount": 0}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": 1.5}, "amount"),
        ({"amount": "100"}, "amount"),
        ({"amount": 2**53}, "amount"),
        ({"amount": True}, "amount"),
        ({"requestId": ""}, "requestId"),
        ({"requestId": "../../etc"}, "requestId"),
        ({"requestId": "x" * 65}, "requestId"),
        ({"terminalId": "another"}, "terminalId"),
        ({"merchantId": 7}, "merchantId"),
        ({"currency": "tusd"}, "currency"),
        ({"tappedAt": "yesterday"}, "tappedAt"),
        ({"tappedAt": "2027-01-15T08:00:00"}, "tappedAt"),
        ({"acceptUntil": None}, "acceptUntil"),
        ({"acceptUntil": 1795305435}, "acceptUntil"),
        ({"acceptUntil": "1795305435"}, "acceptUntil"),
        ({"counter": "1"}, "counter"),
        ({"offline": "no"}, "offline"),
        ({"cardUuid": None, "card_uuid": "card-1"}, "card_uuid"),
        ({"proof": None}, "proof"),
        ({"proof": {"profile": "magic"}}, "proof"),
        ({"proof": {"profile": "sun", "piccData": "00", "mac": "0" * 16}}, "proof.sun.piccData"),
        ({"counter": -1}, "counter"),
        ({"amout": 5}, "amout"),
    ],
)
async def test_what_is_malformed_is_named_and_nothing_is_stored(
    gateway: TestGateway, change: dict[str, Any], field: str
) -> None:
    card = gateway.card()
    reply = await gateway.post({**gateway.request(card.tap()), **change})
    assert (reply.status, reply.json["field"]) == (400, field)
    assert reply.json["success"] is False
    assert "verdict" not in reply.json
    assert reply.signature is None
    assert stored(gateway) == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"[" * 5000])
async def test_what_is_no_json_object_is_refused(gateway: TestGateway, body: bytes) -> None:
    reply = await gateway.post(body)
    assert (reply.status, reply.json["field"]) == (400, "body")
    assert stored(gateway) == 0


async def test_a_name_that_stands_there_twice_is_refused(gateway: TestGateway) -> None:
    request = gateway.request(gateway.card().tap())
    twice = json.dumps(request)[:-1] + ', "amount": 1}'
    reply = await gateway.post(twice.encode())
    assert (reply.status, reply.json["field"]) == (400, "amount")
    inside = json.dumps(request).replace('"profile"', '"mac": "' + "0" * 16 + '", "profile"')
    reply = await gateway.post(inside.encode())
    assert (reply.status, reply.json["field"]) == (400, "mac")
    assert stored(gateway) == 0


async def test_a_body_that_is_too_large_is_not_read(gateway: TestGateway) -> None:
    reply = await gateway.post(b"{" + b" " * MAX_BODY_BYTES + b"}")
    assert (reply.status, reply.json["field"]) == (413, "body")
    assert stored(gateway) == 0


async def test_only_json_is_taken(gateway: TestGateway) -> None:
    body = json.dumps(gateway.request(gateway.card().tap())).encode()
    headers = {**gateway.headers(body), "Content-Type": "text/plain"}
    reply = await gateway.post(body, headers)
    assert (reply.status, reply.json["field"]) == (415, "Content-Type")
    headers = {**gateway.headers(body), "Content-Encoding": "gzip"}
    reply = await gateway.post(body, headers)
    assert (reply.status, reply.json["field"]) == (415, "Content-Encoding")


async def test_a_body_that_comes_too_slowly_is_the_senders_fault(
    gateway: TestGateway, mocker: MockerFixture
) -> None:
    mocker.patch.object(bodies, "_READ_TIMEOUT_S", 0.05)
    head = f"POST {PATH} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n".encode()
    rest = b"Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    answer = await raw_answer(gateway, head + rest, until=b'"field": "body"')
    assert answer.startswith(b"HTTP/1.1 408 ")


# --- terminals ------------------------------------------------------------------------------------


async def test_unsigned_and_wrongly_signed_requests_are_errors_and_not_verdicts(
    gateway: TestGateway,
) -> None:
    body = json.dumps(gateway.request(gateway.card().tap())).encode()
    good = gateway.headers(body)
    unsigned = {k: v for k, v in good.items() if k != SIGNATURE_HEADER}
    other_purpose = sign(gateway.terminal_key, Domain.QUERY, body)
    cases: list[tuple[dict[str, str], str]] = [
        (unsigned, "signature_missing"),
        (gateway.headers(body, key=SigningKey.generate()), "bad_signature"),
        ({**good, SIGNATURE_HEADER: other_purpose}, "bad_signature"),
        ({**good, SIGNATURE_HEADER: "????"}, "bad_signature"),
        ({**good, SIGNATURE_HEADER: base64.b64encode(b"x" * 63).decode()}, "bad_signature"),
        ({**good, TERMINAL_HEADER: "nobody"}, "terminal_unknown"),
    ]
    for headers, code in cases:
        reply = await gateway.post(body, headers)
        assert (reply.status, reply.json["reasonCode"]) == (401, code)
        assert reply.signature is None
    altered = await gateway.post(body.replace(b"3000000", b"3000001"), good)
    assert (altered.status, altered.json["reasonCode"]) == (401, "bad_signature")
    assert stored(gateway) == 0
    assert (await gateway.post(body, good)).status == 200


async def test_hello_proves_the_gateway_and_tells_the_terminal_who_it_is(
    gateway: TestGateway,
) -> None:
    path = "/api/terminals/hello"
    headers = gateway.query_headers(path)
    async with gateway.http.get(path, headers=headers) as response:
        body = await response.read()
        signature = response.headers[SIGNATURE_HEADER]
    about = f"GET {path}\n{TERMINAL}\n{headers['TapRail-Timestamp']}".encode()
    verify(gateway.public_key, Domain.ANSWER, body, signature, about=about)
    told = json.loads(body)
    assert told["gatewayId"] == gateway.services.gateway_id
    assert (told["terminalId"], told["status"]) == (TERMINAL, "active")
    assert (told["merchantId"], told["merchantName"]) == (MERCHANT, "Kiosk")
    assert (told["currency"], told["decimals"]) == ("TUSD", 6)


@pytest.mark.parametrize("late_ms", [-31_000, 31_000])
async def test_an_old_or_future_question_is_not_answered(
    gateway: TestGateway, late_ms: int
) -> None:
    path = "/api/terminals/hello"
    headers = gateway.query_headers(path, at_ms=gateway.now_ms() + late_ms)
    async with gateway.http.get(path, headers=headers) as response:
        assert response.status == 401
        assert (await response.json())["reasonCode"] == "timestamp"


# --- where a payment is ---------------------------------------------------------------------------


async def get(gateway: TestGateway, path: str, headers: dict[str, str]) -> tuple[int, Any]:
    async with gateway.http.get(path, headers=headers) as response:
        return response.status, await response.json()


async def test_whom_a_payment_concerns_can_look_it_up_and_nobody_else(
    gateway: TestGateway,
) -> None:
    reply: Reply = await gateway.pay(gateway.card(), requestId="req-1")
    path = reply.json["statusUrl"]
    not_found = (404, {"success": False, "error": "Transaction not found"})
    for user in ("alice", "bob", "olga"):
        status, body = await get(gateway, path, gateway.bearer(user))
        assert (status, body["success"]) == (200, True)
    status, body = await get(gateway, path, gateway.query_headers(path))
    assert status == 200
    transaction = body["transaction"]
    assert transaction == {
        "id": reply.json["transactionId"],
        "status": "pending",
        "amount": 3 * UNIT,
        "currency": "TUSD",
        "txHash": None,
        "createdAt": transaction["createdAt"],
        "processingStartedAt": None,
        "completedAt": None,
        "processingTime": None,
        "failureReason": None,
        "explorerUrl": None,
        "refundedUnits": 0,
        "refunds": [],
        "metadata": {
            "paymentMethod": "nfc",
            "terminalId": TERMINAL,
            "authCode": reply.json["authCode"],
            "processingType": "async",
            "requestId": "req-1",
        },
    }
    assert await get(gateway, path, gateway.bearer("mallory")) == not_found
    unknown = "/api/payment/status/0x" + "0" * 64
    assert await get(gateway, unknown, gateway.bearer("alice")) == not_found
    odd = "/api/payment/status/nonsense"
    assert await get(gateway, odd, gateway.bearer("alice")) == not_found
    assert (await get(gateway, path, {}))[0] == 401


# --- the house ------------------------------------------------------------------------------------


async def test_health_and_errors_are_json(gateway: TestGateway) -> None:
    assert await get(gateway, "/healthz", {}) == (200, {"status": "ok"})
    assert await get(gateway, "/readyz", {}) == (200, {"status": "ready"})
    status, body = await get(gateway, "/nothing", {})
    assert (status, body["reasonCode"]) == (404, "not_found")
    async with gateway.http.get(PATH) as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
        assert (await response.json())["reasonCode"] == "method_not_allowed"


async def test_a_fault_of_ours_is_told_without_detail(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(type(gateway.services.proofs), "evidence", broken)
    reply = await gateway.pay(gateway.card())
    assert (reply.status, reply.headers["Retry-After"]) == (500, "1")
    assert reply.json["requestId"]
    assert "again" in reply.json["error"]
    assert b"secret detail" not in reply.body
    assert b"ZeroDivision" not in reply.body


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"TapRail-Terminal: \xff\r\nTapRail-Signature: YQ==", 400),
        (b"TapRail-Terminal: counter-1\r\nTapRail-Signature: \xff", 401),
        (b"Authorization: Bearer \xff.\xfe.\xfd", 401),
    ],
)
async def test_a_header_that_is_no_text_is_the_senders_fault(
    gateway: TestGateway, lines: bytes, status: int
) -> None:
    for start in (f"POST {PATH}", "GET /api/payment/status/%ff"):
        head = f"{start} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n".encode()
        rest = b"\r\nTapRail-Timestamp: \xff\r\nContent-Type: application/json"
        answer = await raw_answer(gateway, head + lines + rest + b"\r\nContent-Length: 2\r\n\r\n{}")
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def raw_answer(gateway: TestGateway, request: bytes, until: bytes | None = None) -> bytes:
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await asyncio.wait_for(reader.readuntil(until) if until else reader.read(), 10)
    writer.close()
    return answer

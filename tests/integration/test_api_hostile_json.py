"""Bodies that mean one thing to one reader and another to the next, wherever one is taken.

Each is refused with the name of the field, before anything is stored.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from taprail_common.wire import MAX_BODY_BYTES
from taprail_gateway.api.routes import ROUTES
from taprail_gateway.api.table import Plain
from taprail_gateway.ledger import schema
from tests.support.gateway_fixtures import MERCHANT, TERMINAL, TestGateway, running_gateway
from tests.support.office_desk import paid

KEY: Final = "ab" * 32
GOOD: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("POST", "/api/payment/process-async"): {
        "cardUuid": "card-1",
        "amount": 5,
        "merchantId": MERCHANT,
        "terminalId": TERMINAL,
    },
    ("POST", "/api/payment/{id}/refund"): {"amount": 5},
    ("POST", "/api/payments/{id}/retry"): {"reason": "asked"},
    ("POST", "/api/queue/reset-stuck"): {"olderThanSeconds": 5},
    ("POST", "/api/alerts"): {"id": 1},
    ("PATCH", "/api/settings"): {"payment_batch_size": 2},
    ("POST", "/api/cards"): {"userId": "alice", "uid": "04AABBCCDDEE99"},
    ("PATCH", "/api/cards/{id}"): {"singleLimit": 5},
    ("POST", "/api/terminals/{id}/charges"): {"amount": 5, "currency": "TUSD", "reference": "r"},
    ("POST", "/api/terminals/{id}/display"): {"text": "Back at two"},
    ("POST", "/api/users"): {"id": "dave"},
    ("PATCH", "/api/users/{id}"): {"status": "frozen"},
    ("POST", "/api/merchants"): {"id": "bakery", "account": "0x" + KEY[:40]},
    ("PATCH", "/api/merchants/{id}"): {"status": "closed"},
    ("POST", "/api/terminals"): {"id": "t9", "merchantId": MERCHANT, "publicKey": KEY},
    ("PATCH", "/api/terminals/{id}"): {"status": "frozen"},
    ("POST", "/api/webhooks/{id}/replay"): {"reason": "asked"},
}
"""A body that each takes; the first name of each is the one that is played with."""

WRITTEN: Final = (schema.operator_actions, schema.verdicts, schema.charges, schema.settings)


def test_no_address_of_users_is_left_out() -> None:
    signed = {each.path for each in ROUTES if isinstance(each, Plain) and not each.users}
    taking = {
        (each.method, each.path)
        for each in ROUTES
        if (each.bodies if isinstance(each, Plain) else each.has_body)
        if each.path not in signed and not (isinstance(each, Plain) and each.is_open)
    }
    assert taking == set(GOOD)


def hostile(good: dict[str, Any]) -> Iterator[tuple[bytes, str]]:
    """Bodies, and the field that each is refused for."""
    text, (name, value) = json.dumps(good), next(iter(good.items()))
    again = json.dumps(value)
    yield f'{text[:-1]}, "{name}": {again}}}'.encode(), name
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in name)
    yield f'{{"{escaped}": {again}, {text[1:]}'.encode(), name
    for strange in (
        chr(ord(name[0]) + 0xFEE0) + name[1:],  # fullwidth
        name + "\u200b",  # a space of no width
        name[:-1] + chr(0x0430),  # ends in a Cyrillic letter
        name.upper(),
        name + "\0",
    ):
        yield json.dumps({**good, strange: value}).encode(), strange
    for deep in ("[" * 100 + "]" * 100, '{"a":' * 100 + "1" + "}" * 100):
        yield json.dumps({**good, name: None}).replace("null", deep).encode(), name
    for spoilt in (
        "[" * 4_000,
        '{"a":' * 1_000,
        text + text,
        text[:-1] + ",}",
        json.dumps([good]),
        "NaN",
        f'{{"{name}": "\\ud800"}}',
    ):
        yield spoilt.encode(), "body"
    yield b"\xef\xbb\xbf" + text.encode(), "body"
    yield text.encode("utf-16"), "body"
    yield text.encode().replace(b'"', b'"\xff', 1), "body"
    yield text.encode() + b" " * MAX_BODY_BYTES, "body"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


async def test_each_is_refused_by_the_field_and_nothing_is_stored(gateway: TestGateway) -> None:
    sale = (await paid(gateway))[0]
    before = [gateway.rows(table) for table in WRITTEN]
    for (method, path), good in GOOD.items():
        user = "alice" if path.endswith("process-async") else "olga"
        at = path.replace("{id}", sale if "payment" in path else TERMINAL)
        for body, field in hostile(good):
            headers = gateway.bearer(user)
            async with gateway.http.request(method, at, data=body, headers=headers) as answer:
                told = await answer.json()
                assert answer.status == (413 if len(body) > MAX_BODY_BYTES else 400), (at, body)
            assert (told["success"], told["field"]) == (False, field), (at, body[:200])
    assert [gateway.rows(table) for table in WRITTEN] == before

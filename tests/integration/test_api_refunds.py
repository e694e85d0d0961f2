"""`POST /api/payment/{id}/refund`: who may, how much, once for each request, and what is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from eth_account import Account
from sqlalchemy import update

from taprail_common.eip3009 import TransferAuthorization
from taprail_common.ids import payment_id
from taprail_common.wire import SIGNED_LEAST_S
from taprail_gateway.api.refunds import SIGNED_MOST_S
from taprail_gateway.ledger import floats, queries, refunds, schema, transitions
from taprail_gateway.ledger.transitions import Confirmed
from taprail_gateway.tokens import Scope
from tests.support import eip3009
from tests.support.gateway_fixtures import (
    MERCHANT,
    TERMINAL,
    TOKEN_DOMAIN,
    UNIT,
    Reply,
    TestGateway,
    running_gateway,
)
from tests.support.ledger_refunds import FLOAT

PAID = 3 * UNIT
BLOCK = 7


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as gateway:
        yield gateway


@pytest.fixture
def float_account(gateway: TestGateway) -> str:
    """The merchant's, with more in it than anything here costs."""
    now_ms = gateway.now_ms()
    gateway.ledger.write_now(lambda c: floats.open_float(c, MERCHANT, FLOAT, b"\1", now_ms))
    gateway.ledger.write_now(lambda c: transitions.refresh_balances(c, {FLOAT: 10**12}, BLOCK))
    return FLOAT


async def pay(gateway: TestGateway) -> str:
    """A pending sale of Alice's at Bob's kiosk."""
    if gateway.rows(schema.cards) == 0:
        gateway.card()
    uuid = gateway.ledger.read_now(lambda c: c.scalar(schema.cards.select().limit(1)))
    body = {
        "cardUuid": uuid,
        "amount": PAID,
        "merchantId": MERCHANT,
        "terminalId": TERMINAL,
    }
    reply = await gateway.post(body, gateway.bearer("alice"))
    assert reply.status == 200, reply.body
    return str(reply.json["transactionId"])


def complete(gateway: TestGateway, payment: str) -> None:
    """As if it had been found on the chain."""
    found = gateway.ledger.read_now(lambda c: queries.payment(c, payment))
    assert found is not None
    place = Confirmed(payment, "0x" + "aa" * 32, BLOCK, "0x" + "cc" * 32)
    balances = {found.payer: 10**12}
    gateway.ledger.write_now(
        lambda c: transitions.complete(c, [place], balances, BLOCK, gateway.now_ms())
    )


async def sold(gateway: TestGateway) -> str:
    sale = await pay(gateway)
    complete(gateway, sale)
    return sale


async def refund(
    gateway: TestGateway,
    sale: str,
    body: dict[str, Any] | bytes,
    *,
    user: str = "bob",
    key: str | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = dict(gateway.bearer(user) if headers is None else headers)
    if key is not None:
        given["Idempotency-Key"] = key
    path = f"/api/payment/{sale}/refund"
    async with gateway.http.post(path, data=raw, headers=given) as answer:
        return Reply(answer.status, await answer.read(), None, raw, dict(answer.headers))


async def status(gateway: TestGateway, payment: str, user: str = "bob") -> dict[str, Any]:
    path = f"/api/payment/status/{payment}"
    async with gateway.http.get(path, headers=gateway.bearer(user)) as answer:
        body: dict[str, Any] = (await answer.json())["transaction"]
        return body


# --- who, what and how often ------------------------------------------------------------------


@pytest.mark.parametrize("user", ["bob", "olga"])
async def test_a_merchant_or_an_operator_gives_a_sale_back(
    gateway: TestGateway, float_account: str, user: str
) -> None:
    sale = await sold(gateway)
    reply = await refund(gateway, sale, {"amount": UNIT}, user=user, key="one")
    refund_id = payment_id(f"refund:user:{user}", "one")
    assert reply.status == 200
    assert reply.json == {
        "success": True,
        "transactionId": refund_id,
        "refundOf": sale,
        "status": "pending",
        "message": "Refund initiated successfully",
        "amount": UNIT,
        "currency": "TUSD",
        "requestId": "one",
        "createdAt": reply.json["createdAt"],
        "statusUrl": f"/api/payment/status/{refund_id}",
        "websocketChannel": f"transaction:{refund_id}",
    }
    shown = await status(gateway, sale, "alice")
    assert shown["refundedUnits"] == UNIT
    [beside] = shown["refunds"]
    assert (beside["id"], beside["status"], beside["amount"]) == (refund_id, "pending", UNIT)
    own = await status(gateway, refund_id, "alice")
    assert (own["refundOf"], own["metadata"]["paymentMethod"]) == (sale, "refund")
    assert "refunds" not in own
    assert gateway.ledger.read_now(queries.check_invariants) == []


async def test_others_are_told_nothing_or_no(gateway: TestGateway, float_account: str) -> None:
    sale = await sold(gateway)
    wanted = {"amount": UNIT}
    assert (await refund(gateway, sale, wanted, headers={})).status == 401
    for user in ("alice", "mallory"):
        reply = await refund(gateway, sale, wanted, user=user)
        assert (reply.status, reply.json["reasonCode"]) == (403, "scope")
    token = gateway.token("bob", [Scope.CUSTOMER])
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    assert (await refund(gateway, sale, wanted, headers=headers)).status == 403
    assert gateway.rows(schema.refunds) == 0


async def test_another_merchants_sale_is_not_there(
    gateway: TestGateway, float_account: str
) -> None:
    sale = await sold(gateway)
    others = update(schema.merchants).values(user_id="olga")
    gateway.ledger.write_now(lambda c: c.execute(others).close())
    reply = await refund(gateway, sale, {"amount": UNIT})
    assert (reply.status, reply.json["error"]) == (404, "Transaction not found")
    for unknown in ("0x" + "0" * 64, "nonsense", "0x"):
        assert (await refund(gateway, unknown, {"amount": UNIT}, user="olga")).status == 404
    bobs = update(schema.payments).values(user_id="bob")
    gateway.ledger.write_now(lambda c: c.execute(bobs).close())
    reply = await refund(gateway, sale, {"amount": UNIT})
    assert (reply.status, reply.json["reasonCode"]) == (403, "not_your_sale"), "who paid sees it"
    assert gateway.rows(schema.refunds) == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "amount"),
        ({"amount": 0}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": 1.0}, "amount"),
        ({"amount": "1"}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": 2**53}, "amount"),
        ({"amount": 1, "to": "0x" + "57" * 20}, "to"),
        ({"amount": 1, "requestId": "no spaces"}, "requestId"),
        ({"amount": 1, "authorization": {"validBefore": 1}}, "authorization.signature"),
        (b'{"amount": 1, "amount": 2}', "amount"),
        (b"[" * 4000, "body"),
        (b"\xff", "body"),
    ],
)
async def test_what_is_malformed_names_the_field_and_leaves_nothing(
    gateway: TestGateway, float_account: str, body: dict[str, Any] | bytes, field: str
) -> None:
    sale = await sold(gateway)
    reply = await refund(gateway, sale, body)
    assert (reply.status, reply.json["field"]) == (400, field)
    assert gateway.rows(schema.refunds) == gateway.rows(schema.refunded_sales) == 0


async def test_no_more_than_was_paid(gateway: TestGateway, float_account: str) -> None:
    sale = await sold(gateway)
    over = await refund(gateway, sale, {"amount": PAID + 1})
    assert (over.status, over.json["reasonCode"], over.json["field"]) == (
        *(409, "refund_too_high"),
        "amount",
    )
    replies = await asyncio.gather(
        *(refund(gateway, sale, {"amount": 2 * UNIT}, key=f"k{i}") for i in range(6))
    )
    assert sorted(reply.status for reply in replies) == [200, 409, 409, 409, 409, 409]
    assert (await refund(gateway, sale, {"amount": UNIT})).status == 200
    rest = await refund(gateway, sale, {"amount": 1})
    assert rest.status == 409
    assert rest.json["error"].startswith(f"0 of {PAID} units")
    assert (await status(gateway, sale))["refundedUnits"] == PAID


async def test_the_same_request_gets_the_same_answer(
    gateway: TestGateway, float_account: str
) -> None:
    sale, other = await sold(gateway), await sold(gateway)
    first = await refund(gateway, sale, {"amount": UNIT}, key="once")
    complete(gateway, first.json["transactionId"])
    gateway.services.acceptor.is_draining = lambda: True
    again = await refund(gateway, sale, {"amount": UNIT}, key="once")
    assert (again.status, again.body) == (200, first.body)
    new = await refund(gateway, sale, {"amount": UNIT}, key="twice")
    assert (new.status, new.json["reasonCode"]) == (503, "draining")
    for changed, body in ((sale, {"amount": 2 * UNIT}), (other, {"amount": UNIT})):
        reused = await refund(gateway, changed, body, key="once")
        assert (reused.status, reused.json["reasonCode"]) == (409, "request_id_reused")
    assert gateway.rows(schema.refunds) == 1


async def test_a_refund_and_a_payment_may_go_by_the_same_name(
    gateway: TestGateway, float_account: str
) -> None:
    sale = await sold(gateway)
    given_back = await refund(gateway, sale, {"amount": UNIT}, user="olga", key="same")
    assert given_back.status == 200
    card = gateway.card("04AABBCCDDEE02", user_id="olga").issued.card_uuid
    body = {
        "cardUuid": card,
        "amount": UNIT,
        "merchantId": MERCHANT,
        "terminalId": TERMINAL,
        "requestId": "same",
    }
    paid = await gateway.post(body, gateway.bearer("olga"))
    assert paid.status == 200
    assert paid.json["transactionId"] != given_back.json["transactionId"]


async def test_only_a_completed_sale(gateway: TestGateway, float_account: str) -> None:
    sale = await pay(gateway)
    pending = await refund(gateway, sale, {"amount": UNIT}, key="early")
    assert (pending.status, pending.json["reasonCode"]) == (409, "not_refundable")
    complete(gateway, sale)
    later = await refund(gateway, sale, {"amount": UNIT}, key="early")
    assert later.status == 200, "a refusal is not remembered"
    given_back = later.json["transactionId"]
    complete(gateway, given_back)
    twice = await refund(gateway, given_back, {"amount": UNIT})
    assert (twice.status, twice.json["reasonCode"]) == (409, "not_refundable")


async def test_without_a_float_it_is_refused_and_with_an_empty_one_it_waits(
    gateway: TestGateway,
) -> None:
    sale = await sold(gateway)
    without = await refund(gateway, sale, {"amount": UNIT})
    assert (without.status, without.json["reasonCode"]) == (409, "no_float")
    gateway.ledger.write_now(lambda c: floats.open_float(c, MERCHANT, FLOAT, b"\1", 1))
    waits = await refund(gateway, sale, {"amount": UNIT})
    assert waits.status == 200
    shown = await status(gateway, waits.json["transactionId"])
    assert (shown["status"], shown["failureReason"]) == ("pending", floats.WAITS)


# --- by the merchant's own signature ----------------------------------------------------------


def signed_refund(
    gateway: TestGateway, sale: str, *, key: str, valid_s: int = 3_600, signer: int = 7
) -> dict[str, Any]:
    """A refund of one unit that the account of that number has signed."""
    found = gateway.ledger.read_now(lambda c: refunds.load_sale(c, sale))
    until_s = gateway.now_ms() // 1000 + valid_s
    transfer = TransferAuthorization(
        payer=found.payee,
        payee=found.payer,
        amount_units=UNIT,
        valid_after_s=0,
        valid_before_s=until_s,
        nonce=bytes.fromhex(payment_id("refund:user:bob", key)[2:]),
    )
    digest = transfer.digest(TOKEN_DOMAIN.separator)
    signature = Account.unsafe_sign_hash(digest, eip3009.account(signer).key).signature
    return {
        "amount": UNIT,
        "requestId": key,
        "authorization": {"validBefore": until_s, "signature": "0x" + signature.hex()},
    }


@pytest.fixture
def own_account(gateway: TestGateway) -> str:
    """Sales are paid to an account whose key the merchant has."""
    address = eip3009.account(7).address.lower()
    change = update(schema.merchants).values(account=address)
    gateway.ledger.write_now(lambda c: c.execute(change).close())
    return address


async def test_a_merchant_pays_it_back_by_their_own_signature(
    gateway: TestGateway, own_account: str
) -> None:
    sale = await sold(gateway)
    body = signed_refund(gateway, sale, key="own")
    reply = await refund(gateway, sale, body)
    assert reply.status == 200, reply.body
    stored = gateway.ledger.read_now(lambda c: queries.payment(c, reply.json["transactionId"]))
    assert stored is not None
    assert (stored.payer, stored.signed_until_s) == (
        own_account,
        body["authorization"]["validBefore"],
    )
    headers = gateway.bearer("bob")
    gateway.clock.ahead_ms += SIGNED_LEAST_S * 1000 + 1_000_000
    again = await refund(gateway, sale, body, headers=headers)
    assert again.body == reply.body, "though it could not be asked for any more"
    assert gateway.ledger.read_now(queries.check_invariants) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"signer": 8}, "authorization.signature"),
        ({"valid_s": SIGNED_LEAST_S - 60}, "authorization.validBefore"),
        ({"valid_s": SIGNED_MOST_S + 60}, "authorization.validBefore"),
    ],
)
async def test_a_signature_that_is_not_good_for_it_is_refused(
    gateway: TestGateway, own_account: str, changes: dict[str, int], field: str
) -> None:
    sale = await sold(gateway)
    reply = await refund(gateway, sale, signed_refund(gateway, sale, key="own", **changes))
    assert (reply.status, reply.json["field"]) == (400, field)
    assert gateway.rows(schema.refunds) == 0


async def test_a_signature_is_for_one_amount_sale_and_request(
    gateway: TestGateway, own_account: str
) -> None:
    sale = await sold(gateway)
    body = signed_refund(gateway, sale, key="own")
    for changed in ({**body, "amount": UNIT + 1}, {**body, "requestId": "other"}):
        reply = await refund(gateway, sale, changed)
        assert (reply.status, reply.json["field"]) == (400, "authorization.signature")
    nameless = {name: value for name, value in body.items() if name != "requestId"}
    reply = await refund(gateway, sale, nameless)
    assert (reply.status, reply.json["field"]) == (400, "requestId")
    assert gateway.rows(schema.refunds) == 0

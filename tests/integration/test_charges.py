"""Charges at the gateway: what a till may ask, what a tap may pay, and what both are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from taprail_common.charge_wire import (
    TEXT_EVENT,
)
from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_gateway import registry
from taprail_gateway.callbacks.webhook import WebhookHandler
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger import outbox, schema, transitions, webhooks
from taprail_gateway.ledger.invariants import check_invariants
from tests.support.charge_till import PATH, Counter, armed, look, order, till
from tests.support.gateway_fixtures import (
    MERCHANT,
    TERMINAL,
    UNIT,
    TestGateway,
    running_gateway,
)
from tests.support.push_clients import Heard, complete, connected, send, terminal_auth, user_auth

CHAIN = {"rpc_urls": ["http://127.0.0.1:9"], "chain_id": 1, "token": "0x" + "ab" * 20}
SETTINGS = GatewaySettings.model_validate({"chain": CHAIN})


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as gateway:
        yield gateway


@pytest_asyncio.fixture
async def counter(gateway: TestGateway) -> AsyncIterator[Counter]:
    async with connected(gateway, terminal_auth(gateway)) as heard:
        yield Counter(heard, gateway)


# --- one charge through all of it -----------------------------------------------------------------


async def test_a_till_arms_a_tap_pays_and_everybody_is_told(
    gateway: TestGateway, counter: Counter
) -> None:
    card = gateway.card()
    async with connected(gateway, user_auth(gateway, "bob")) as bob:
        (status, made), asked = await asyncio.gather(
            till(gateway, body=order(reference="order-7")), counter.arms()
        )
        charge = made["charge"]
        assert (status, charge["status"], charge["reference"]) == (201, "armed", "order-7")
        assert asked == {
            "chargeId": charge["chargeId"],
            "amount": 3 * UNIT,
            "currency": "TUSD",
            "deadline": charge["deadline"],
            "terminalId": TERMINAL,
        }
        paid = await gateway.pay(card, chargeId=charge["chargeId"])
        assert paid.status == 200
        paid.verify(gateway.public_key)
        told: list[str] = []
        while not told or told[-1] != "approved":
            name, data = await bob.next()
            if name == "charge:update":
                assert data["chargeId"] == charge["chargeId"]
                told.append(data["status"])
    # What came so fast that it was over before it was told is told as it is then.
    assert told[-1] == "approved"
    assert told == sorted(set(told), key=["waiting", "armed", "approved"].index)
    shown = await look(gateway, charge)
    assert shown["status"] == "approved"
    assert shown["payment"]["id"] == shown["transactionId"] == paid.json["transactionId"]


async def next_status(heard: Heard, status: str) -> dict[str, Any]:
    """The next update in which the payment of a charge is so."""
    while True:
        name, data = await heard.next()
        if name == "charge:update" and (data["payment"] or {}).get("status") == status:
            found: dict[str, Any] = data
            return found


async def test_a_till_hears_what_became_of_the_money(
    gateway: TestGateway, counter: Counter
) -> None:
    card, other = gateway.card(), gateway.card("04AABBCCDDEE02")
    charge = await armed(gateway, counter)
    async with (
        connected(gateway, user_auth(gateway, "bob")) as bob,
        connected(gateway, user_auth(gateway, "alice")) as alice,
    ):
        paid = (await gateway.pay(card, chargeId=charge["chargeId"])).json["transactionId"]
        assert (await next_status(bob, "pending"))["status"] == "approved"
        not_charged = (await gateway.pay(other)).json["transactionId"]
        gateway.ledger.write_now(
            lambda c: transitions.apply(c, PaymentEvent.REJECT, [not_charged], gateway.now_ms())
        )
        await send(gateway, paid)
        assert (await next_status(bob, "sent"))["transactionId"] == paid
        await complete(gateway, paid, card.issued.account)
        told = await next_status(bob, "completed")
        shown = await look(gateway, charge)
        assert {name: told[name] for name in shown} == alike(shown)
        assert shown["payment"]["txHash"] is not None
        seen = [name async for name in heard_so_far(alice)]
    assert "charge:update" not in seen, "it is the till's business"


def alike(shown: dict[str, Any]) -> dict[str, Any]:
    """A charge as it is polled, without what only a refund has."""
    payment = {name: value for name, value in shown["payment"].items() if name != "refundOf"}
    return {**shown, "payment": payment}


async def heard_so_far(heard: Heard) -> AsyncIterator[str]:
    await heard.client.emit("ping")
    name = ""
    while name != "pong":
        name, _ = await heard.next()
        yield name


@pytest.mark.parametrize("result", ["completed", "failed"])
async def test_webhooks_tell_of_the_end_and_then_of_the_money(
    gateway: TestGateway, counter: Counter, result: str
) -> None:
    wanted = {"webhook": [PaymentState.COMPLETED, PaymentState.FAILED]}

    def listen(connection: Any) -> None:
        outbox.enable(connection, wanted)
        url = "https://shop.example/hook"
        webhooks.add_endpoint(connection, "whk_1", MERCHANT, url, b"s", gateway.now_ms())

    await gateway.ledger.write(listen)
    charge, card = await armed(gateway, counter), gateway.card()
    paid = (await gateway.pay(card, chargeId=charge["chargeId"])).json["transactionId"]
    about = charge["chargeId"]
    (first,) = deliveries(gateway, about)
    assert first.event == "charge.approved"
    assert json.loads(first.body)["data"] == {
        name: value for name, value in (await look(gateway, charge)).items() if name != "payment"
    }
    if result == "completed":
        await send(gateway, paid)
        await complete(gateway, paid, card.issued.account)
    else:
        gateway.ledger.write_now(
            lambda c: transitions.apply(c, PaymentEvent.REJECT, [paid], gateway.now_ms())
        )
    (callback,) = gateway.ledger.read_now(lambda c: outbox.due(c, "webhook", gateway.now_ms(), 9))
    gateway.ledger.write_now(await WebhookHandler(SETTINGS).handle(callback))
    gateway.ledger.write_now(partial(webhooks.finish, delivery_ids=[first.id], at_ms=1))
    (second,) = deliveries(gateway, about)
    assert second.event == f"charge.{result}"
    told, shown = json.loads(second.body)["data"], await look(gateway, charge)
    assert told["payment"]["status"] == result
    shown["payment"]["explorerUrl"] = None  # a link is for people
    assert told == alike(shown)
    (beside,) = deliveries(gateway, paid)
    assert beside.event == f"payment.{result}"


def deliveries(gateway: TestGateway, about: str) -> list[webhooks.Delivery]:
    found = gateway.ledger.read_now(lambda c: webhooks.due(c, gateway.now_ms(), 10))
    return [each for each in found if each.about == about]


# --- what a tap may not do ------------------------------------------------------------------------


async def test_a_decline_ends_the_charge_and_the_next_one_may_come(
    gateway: TestGateway, counter: Counter
) -> None:
    poor = gateway.card(balance_units=1)
    charge = await armed(gateway, counter)
    declined = await gateway.pay(poor, chargeId=charge["chargeId"])
    assert declined.json["reasonCode"] == "insufficient_balance"
    shown = await look(gateway, charge)
    assert (shown["status"], shown["reasonCode"]) == ("declined", "insufficient_balance")
    again = await gateway.pay(gateway.card("04AABBCCDDEE02"), chargeId=charge["chargeId"])
    assert again.json["reasonCode"] == "charge_closed"
    again.verify(gateway.public_key)
    await armed(gateway, counter)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"amount": 3 * UNIT + 1}, "charge_mismatch"),
        ({"chargeId": "chg_of_nobody"}, "charge_unknown"),
    ],
)
async def test_a_tap_for_another_amount_or_charge_pays_nothing(
    gateway: TestGateway, counter: Counter, changes: dict[str, Any], code: str
) -> None:
    charge = await armed(gateway, counter)
    tap = {"chargeId": charge["chargeId"], **changes}
    declined = await gateway.pay(gateway.card(), **tap)
    assert (declined.status, declined.json["reasonCode"]) == (400, code)
    assert gateway.rows(schema.payments) == 0
    # A tap that names another charge has not used up this one.
    assert (await look(gateway, charge))["status"] == (
        "declined" if code == "charge_mismatch" else "armed"
    )


async def test_the_same_tap_again_is_answered_as_before(
    gateway: TestGateway, counter: Counter
) -> None:
    charge = await armed(gateway, counter)
    tap = gateway.request(gateway.card().tap(), chargeId=charge["chargeId"])
    first, second = await gateway.post(tap), await gateway.post(tap)
    assert (first.status, first.body) == (200, second.body)
    assert gateway.rows(schema.payments) == 1


async def test_two_taps_of_one_commit_pay_a_charge_once(
    gateway: TestGateway, counter: Counter
) -> None:
    cards = [gateway.card(f"04AABBCCDDEE{n:02X}") for n in range(6)]
    charge = await armed(gateway, counter)
    replies = await asyncio.gather(
        *(gateway.pay(card, chargeId=charge["chargeId"]) for card in cards)
    )
    codes = sorted(reply.json.get("reasonCode", "approved") for reply in replies)
    assert codes == ["approved"] + ["charge_closed"] * 5
    assert gateway.ledger.read_now(check_invariants) == []


# --- who may ask, and for what --------------------------------------------------------------------


async def test_the_same_key_gives_the_same_charge(gateway: TestGateway, counter: Counter) -> None:
    body = order()
    (status, made), _ = await asyncio.gather(till(gateway, body=body, key="k1"), counter.arms())
    again = await till(gateway, body=body, key="k1")
    assert (status, again) == (201, (200, made))
    status, answer = await till(gateway, body={**body, "amount": 5}, key="k1")
    assert (status, answer["reasonCode"]) == (409, "idempotency_reused")
    assert gateway.rows(schema.charges) == 1


@pytest.mark.parametrize("user", ["alice", "mallory"])
async def test_customers_arm_no_terminal(gateway: TestGateway, user: str) -> None:
    assert (await till(gateway, body=order(), user=user))[0] == 403
    assert gateway.rows(schema.charges) == 0


async def test_another_merchants_terminal_is_not_there(
    gateway: TestGateway, counter: Counter
) -> None:
    await gateway.ledger.write(
        partial(registry.add_user, user_id="rita", name="R", role="merchant", now_ms=1)
    )
    charge = await armed(gateway, counter)
    one = f"{PATH}/{charge['chargeId']}"
    display = f"/api/terminals/{TERMINAL}/display"
    assert (await till(gateway, body=order(), user="rita"))[0] == 404
    assert (await till(gateway, one, user="rita", method="GET"))[0] == 404
    assert (await till(gateway, f"{one}/cancel", user="rita"))[0] == 404
    assert (await till(gateway, display, {"text": "hi"}, user="rita"))[0] == 404
    assert (await look(gateway, charge))["status"] == "armed"
    assert (await till(gateway, one, user="olga", method="GET"))[0] == 200
    assert (await till(gateway, f"{PATH}/chg_other", method="GET"))[0] == 404


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": "5"}, "amount"),
        ({"amount": 2**53}, "amount"),
        ({"currency": "EURC"}, "currency"),
        ({"deadlineSeconds": 301}, "deadlineSeconds"),
        ({"deadlineSeconds": 0}, "deadlineSeconds"),
        ({"reference": "a b"}, "reference"),
        ({"tip": 5}, "tip"),
    ],
)
async def test_a_bad_order_names_its_field(
    gateway: TestGateway, changes: dict[str, Any], field: str
) -> None:
    status, answer = await till(gateway, body=order(**changes))
    assert (status, answer["field"]) == (400, field)
    assert gateway.rows(schema.charges) == 0


@pytest.mark.parametrize("text", ["x" * 65, "a\nb", "a\x1b[2J", "a\u202eb"])
async def test_a_text_that_cannot_be_shown_is_refused(gateway: TestGateway, text: str) -> None:
    status, answer = await till(gateway, f"/api/terminals/{TERMINAL}/display", {"text": text})
    assert (status, answer["field"]) == (400, "text")


async def test_a_text_reaches_the_terminal(gateway: TestGateway, counter: Counter) -> None:
    path = f"/api/terminals/{TERMINAL}/display"
    for text in ("Happy hour until six", "Café, grüß Gott", ""):
        status, answer = await till(gateway, path, {"text": text})
        assert (status, answer["text"]) == (200, text)
        assert (await counter.next(TEXT_EVENT))["text"] == text


async def test_a_text_set_while_the_terminal_was_away_is_heard_when_it_comes(
    gateway: TestGateway,
) -> None:
    path = f"/api/terminals/{TERMINAL}/display"
    for text in ("Back at two", "Back at three"):
        assert (await till(gateway, path, {"text": text}))[0] == 200
    async with connected(gateway, terminal_auth(gateway)) as heard:
        counter = Counter(heard, gateway)
        await counter.open()
        assert (await counter.next(TEXT_EVENT))["text"] == "Back at three"


async def test_a_terminal_may_not_ask_for_itself(gateway: TestGateway) -> None:
    body = json.dumps(order()).encode()
    async with gateway.http.post(PATH, data=body, headers=gateway.headers(body)) as response:
        assert response.status == 401

"""Charges at the gateway: what a till may ask, what the terminal is told, and who wins a race."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select

from taprail_common.charge_wire import (
    ANSWER_EVENT,
    CANCEL_EVENT,
    OPEN_EVENT,
    REQUEST_EVENT,
    TEXT_EVENT,
)
from taprail_common.ids import new_id
from taprail_common.payment_state import PaymentState
from taprail_common.signing import Domain, verify
from taprail_common.wire import SignedEnvelope
from taprail_gateway import registry
from taprail_gateway.ledger import outbox, schema, webhooks
from taprail_gateway.ledger.invariants import check_invariants
from tests.support.gateway_fixtures import (
    MERCHANT,
    TERMINAL,
    UNIT,
    TestGateway,
    gateway_beside,
    running_gateway,
)
from tests.support.ledger_fixtures import on_both_engines
from tests.support.push_clients import Heard, complete, connected, send, terminal_auth, user_auth

PATH = f"/api/terminals/{TERMINAL}/charges"


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as gateway:
        yield gateway


async def till(
    gateway: TestGateway,
    path: str = PATH,
    body: dict[str, Any] | None = None,
    *,
    user: str = "bob",
    key: str | None = None,
    method: str = "POST",
) -> tuple[int, dict[str, Any]]:
    headers = gateway.bearer(user) | ({} if key is None else {"Idempotency-Key": key})
    data = None if body is None else json.dumps(body)
    async with gateway.http.request(method, path, data=data, headers=headers) as response:
        return response.status, await response.json()


def order(**changes: Any) -> dict[str, Any]:
    return {
        "amount": 3 * UNIT,
        "currency": "TUSD",
        "reference": new_id("order"),
        "deadlineSeconds": 60,
        **changes,
    }


class Counter:
    """A terminal's socket: it hears, checks the signature, and answers as it is told to."""

    def __init__(self, heard: Heard, gateway: TestGateway) -> None:
        self.heard = heard
        self.gateway = gateway

    async def next(self, event: str) -> dict[str, Any]:
        while True:
            name, data = await self.heard.next()
            envelope = SignedEnvelope.model_validate(data)
            body = envelope.body.encode()
            key = self.gateway.public_key
            verify(key, Domain.COMMAND, body, envelope.signature, about=name.encode())
            said: dict[str, Any] = json.loads(body)
            assert said["terminalId"] == TERMINAL
            if name == event:
                return said

    async def answer(self, charge_id: str, answer: str, code: str | None = None) -> None:
        said = {"chargeId": charge_id, "answer": answer, "reasonCode": code}
        await self.heard.client.emit(ANSWER_EVENT, said)

    async def open(self, charge_id: str | None = None) -> Any:
        return await self.heard.client.call(OPEN_EVENT, {"chargeId": charge_id}, timeout=10)

    async def arms(self) -> dict[str, Any]:
        """Take the next request, as a free terminal does."""
        asked = await self.next(REQUEST_EVENT)
        await self.answer(asked["chargeId"], "armed")
        return asked


@pytest_asyncio.fixture
async def counter(gateway: TestGateway) -> AsyncIterator[Counter]:
    async with connected(gateway, terminal_auth(gateway)) as heard:
        yield Counter(heard, gateway)


async def armed(gateway: TestGateway, counter: Counter, **changes: Any) -> dict[str, Any]:
    """A charge that the terminal has taken."""
    (status, made), _ = await asyncio.gather(till(gateway, body=order(**changes)), counter.arms())
    assert status == 201, made
    charge: dict[str, Any] = made["charge"]
    assert charge["status"] == "armed"
    return charge


async def look(gateway: TestGateway, charge: dict[str, Any]) -> dict[str, Any]:
    status, shown = await till(gateway, f"{PATH}/{charge['chargeId']}", method="GET")
    assert status == 200
    found: dict[str, Any] = shown["charge"]
    return found


async def cancel(gateway: TestGateway, charge: dict[str, Any]) -> dict[str, Any]:
    status, answer = await till(gateway, f"{PATH}/{charge['chargeId']}/cancel")
    assert status == 200
    return answer


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
    await send(gateway, paid.json["transactionId"])
    await complete(gateway, paid.json["transactionId"], card.issued.account)
    assert (await look(gateway, charge))["payment"]["status"] == "completed"


async def test_webhooks_tell_of_the_end(gateway: TestGateway, counter: Counter) -> None:
    def listen(connection: Any) -> None:
        outbox.enable(connection, {"webhook": [PaymentState.COMPLETED]})
        url = "https://shop.example/hook"
        webhooks.add_endpoint(connection, "whk_1", MERCHANT, url, b"s", gateway.now_ms())

    await gateway.ledger.write(listen)
    charge = await armed(gateway, counter)
    await gateway.pay(gateway.card(), chargeId=charge["chargeId"])
    (told,) = gateway.ledger.read_now(lambda c: webhooks.due(c, gateway.now_ms(), 10))
    assert (told.event, told.about) == ("charge.approved", charge["chargeId"])
    assert json.loads(told.body)["data"] == {
        name: value for name, value in (await look(gateway, charge)).items() if name != "payment"
    }


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


# --- cancel, tap and deadline ---------------------------------------------------------------------


async def test_a_cancel_before_the_tap_wins(gateway: TestGateway, counter: Counter) -> None:
    charge = await armed(gateway, counter)
    answer = await cancel(gateway, charge)
    assert (answer["won"], answer["charge"]["status"]) == ("cancel", "cancelled")
    told = await counter.next(CANCEL_EVENT)
    assert (told["chargeId"], told["reason"]) == (charge["chargeId"], "cancelled")
    late = await gateway.pay(gateway.card(), chargeId=charge["chargeId"])
    assert (late.status, late.json["reasonCode"]) == (400, "charge_cancelled")
    late.verify(gateway.public_key)
    assert (await cancel(gateway, charge))["won"] == "cancel"
    assert gateway.rows(schema.payments) == 0


async def test_a_cancel_after_the_tap_is_told_of_the_payment(
    gateway: TestGateway, counter: Counter
) -> None:
    charge = await armed(gateway, counter)
    paid = await gateway.pay(gateway.card(), chargeId=charge["chargeId"])
    answer = await cancel(gateway, charge)
    assert answer["won"] == "tap"
    assert answer["charge"]["status"] == "approved"
    assert answer["charge"]["payment"]["id"] == paid.json["transactionId"]


@on_both_engines
async def test_when_cancel_and_tap_race_all_say_the_same(
    tmp_path: Path, ledger_url: str, ledger_engine: str
) -> None:
    """On a server the cancel comes in at another gateway than the tap."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running_gateway(tmp_path, ledger_url=ledger_url))
        other = first
        if ledger_engine == "postgresql":
            other = await stack.enter_async_context(gateway_beside(first, ledger_url))
        card, seen = first.card(balance_units=1_000 * UNIT), set()
        counter = Counter(
            await stack.enter_async_context(connected(first, terminal_auth(first))), first
        )
        for number in range(12):
            charge = await armed(first, counter, amount=UNIT)
            tap = first.pay(card, chargeId=charge["chargeId"], amount=UNIT)
            pair = [tap, cancel(other, charge)]
            results: list[Any] = await asyncio.gather(*(pair if number % 2 else pair[::-1]))
            reply, answer = results if number % 2 else results[::-1]
            won = answer["won"]
            seen.add(won)
            assert reply.json.get("reasonCode") == (None if won == "tap" else "charge_cancelled")
            assert (answer["charge"]["payment"] is not None) == (won == "tap")
        assert seen <= {"tap", "cancel"}
        assert first.ledger.read_now(check_invariants) == []


async def test_the_deadline_ends_a_charge_by_itself(gateway: TestGateway, counter: Counter) -> None:
    charge = await armed(gateway, counter, deadlineSeconds=1)
    told = await counter.next(CANCEL_EVENT)
    assert (told["chargeId"], told["reason"]) == (charge["chargeId"], "expired")
    assert (await look(gateway, charge))["status"] == "expired"
    late = await gateway.pay(gateway.card(), chargeId=charge["chargeId"])
    assert late.json["reasonCode"] == "charge_expired"
    assert (await cancel(gateway, charge))["won"] == "deadline"


# --- what the terminal says -----------------------------------------------------------------------


async def test_a_busy_terminal_is_told_to_the_till_at_once(
    gateway: TestGateway, counter: Counter
) -> None:
    async def is_busy() -> None:
        asked = await counter.next(REQUEST_EVENT)
        await counter.answer(asked["chargeId"], "busy")

    (status, answer), _ = await asyncio.gather(till(gateway, body=order()), is_busy())
    assert (status, answer["reasonCode"]) == (409, "terminal_busy")
    await armed(gateway, counter)
    status, answer = await till(gateway, body=order())
    assert (status, answer["reasonCode"]) == (409, "terminal_busy")


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        (("refused", "fixed_price"), "refused", "fixed_price"),
        (("refused", "charge_expired"), "expired", None),
        (("cancelled", None), "cancelled", "at_the_terminal"),
    ],
)
async def test_what_the_terminal_says_is_noted(
    gateway: TestGateway, counter: Counter, said: tuple[str, str | None], status: str, code: str
) -> None:
    async def says() -> None:
        asked = await counter.next(REQUEST_EVENT)
        unknown = {"chargeId": "chg_x", "answer": "armed"}
        nonsense: Any
        for nonsense in (None, 5, {"chargeId": []}, unknown):
            await counter.heard.client.emit(ANSWER_EVENT, nonsense)
        await counter.answer(asked["chargeId"], *said)

    (_, made), _ = await asyncio.gather(till(gateway, body=order()), says())
    assert (made["charge"]["status"], made["charge"]["reasonCode"]) == (status, code)


async def test_a_terminal_that_was_away_finds_its_charge(gateway: TestGateway) -> None:
    status, made = await till(gateway, body=order())
    charge = made["charge"]
    assert (status, charge["status"]) == (201, "waiting")
    await till(gateway, f"/api/terminals/{TERMINAL}/display", {"text": "Back at two"})
    async with connected(gateway, terminal_auth(gateway)) as heard:
        counter = Counter(heard, gateway)
        assert await counter.open("chg_of_yesterday") == {"open": charge["chargeId"]}
        over = await counter.next(CANCEL_EVENT)
        assert (over["chargeId"], over["reason"]) == ("chg_of_yesterday", "charge_unknown")
        assert (await counter.next(REQUEST_EVENT))["chargeId"] == charge["chargeId"]
        assert (await counter.next(TEXT_EVENT))["text"] == "Back at two"
    await cancel(gateway, charge)
    async with connected(gateway, terminal_auth(gateway)) as heard:
        counter = Counter(heard, gateway)
        assert await counter.open(charge["chargeId"]) == {"open": None}
        assert (await counter.next(CANCEL_EVENT))["reason"] == "cancelled"


async def test_only_terminals_ask_for_charges(gateway: TestGateway) -> None:
    await till(gateway, body=order())
    (charge_id,) = gateway.ledger.read_now(lambda c: c.scalars(select(schema.charges.c.id)).all())
    async with connected(gateway, user_auth(gateway, "mallory")) as mallory:
        answer = await mallory.client.call(OPEN_EVENT, {}, timeout=10)
        assert answer == {"error": "this is for terminals"}
        await mallory.client.emit(ANSWER_EVENT, {"chargeId": charge_id, "answer": "busy"})
        await mallory.client.call(OPEN_EVENT, {}, timeout=10)
    assert (await look(gateway, {"chargeId": charge_id}))["status"] == "waiting"


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


async def test_a_terminal_may_not_ask_for_itself(gateway: TestGateway) -> None:
    body = json.dumps(order()).encode()
    async with gateway.http.post(PATH, data=body, headers=gateway.headers(body)) as response:
        assert response.status == 401

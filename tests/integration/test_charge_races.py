"""Cancel, tap, deadline and the terminal's own word: of a charge each is the end only once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
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
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.invariants import check_invariants
from tests.support.charge_till import Counter, armed, cancel, look, order, till
from tests.support.gateway_fixtures import (
    TERMINAL,
    UNIT,
    TestGateway,
    gateway_beside,
    running_gateway,
)
from tests.support.ledger_fixtures import on_both_engines
from tests.support.push_clients import connected, terminal_auth, user_auth


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as gateway:
        yield gateway


@pytest_asyncio.fixture
async def counter(gateway: TestGateway) -> AsyncIterator[Counter]:
    async with connected(gateway, terminal_auth(gateway)) as heard:
        yield Counter(heard, gateway)


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

"""A PIN above a threshold: asked for before anything is sent, three tries, then the card is frozen;
and a gateway that dies while a wrong one is decided about counts it once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from taprail_common.crash import EXIT_CODE
from taprail_gateway.admin import app
from taprail_hwsim.event_log import Event
from taprail_hwsim.stack import Stack, StackOptions
from tests.e2e.books import Payment, newest_request, payments
from tests.e2e.counter import DEATH_TIMEOUT_S, restart_gateway

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
]

PIN, ABOVE, AMOUNT = "4711", "1.00", "1.50"
ABOVE_UNITS = 1_000_000
WRONG = ("0000", "0001", "0002")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Its gateway lets terminals ask for a PIN above 1.00, and its terminal has a keypad."""
    folder = tmp_path_factory.mktemp("s")
    options = StackOptions(folder, pin_above_units=ABOVE_UNITS, verdict_timeout_ms=1000)
    async with Stack(options) as stack:
        yield stack


async def admin(stack: Stack, *words: str, text: str = "") -> Any:
    given = ["--config", str(stack.gateway_config), "card", *words, "--json"]
    done = await asyncio.to_thread(CliRunner().invoke, app, given, input=text)
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout[done.stdout.index("{") :])


async def give_pin(stack: Stack, card: str) -> None:
    uuid = stack.world.card(card).card_uuid
    await admin(stack, "pin", "set", uuid, "--above", ABOVE, text=f"{PIN}\n{PIN}\n")


async def tries(stack: Stack, card: str) -> int:
    shown = await admin(stack, "pin", "show", stack.world.card(card).card_uuid)
    return int(shown["pin"]["tries_left"])


async def tap_until_asked(stack: Stack, card: str) -> asyncio.Task[Event]:
    """Tap, and wait until the PIN is asked for; what is given ends with the terminal's answer."""
    mark = stack.log.position
    tap = asyncio.create_task(stack.tap(card))
    await stack.log.wait_for("view", since=mark, where=lambda event: event.get("phase") == "pin")
    return tap


async def pay(stack: Stack, card: str, pin: str) -> Event:
    """What became of a tap with this PIN."""
    tap = await tap_until_asked(stack, card)
    stack.keypad.press(f"{pin}\n")
    return await tap


def of_card(stack: Stack, card: str) -> list[Payment]:
    account = stack.world.card(card).account.lower()
    return [each for each in payments(stack).values() if each.payer.lower() == account]


async def test_it_is_asked_for_before_anything_is_sent(stack: Stack) -> None:
    await give_pin(stack, "alice")
    assert (await stack.tap("erin", ABOVE)).get("outcome") == "approved"
    before = newest_request(stack)
    await stack.arm(AMOUNT)
    tap = await tap_until_asked(stack, "alice")
    assert newest_request(stack) == before  # nothing was stored, so nothing can have been sent
    assert of_card(stack, "alice") == []
    stack.keypad.press(f"{PIN}\n")
    assert (await tap).get("outcome") == "approved"
    assert PIN.encode() not in newest_request(stack).body
    assert await tries(stack, "alice") == 3


async def test_three_wrong_ones_freeze_the_card(stack: Stack) -> None:
    await give_pin(stack, "bob")
    await stack.arm(AMOUNT)
    told = [(await pay(stack, "bob", guess)).get("reasonCode") for guess in WRONG]
    assert told == ["pin_wrong", "pin_wrong", "pin_blocked"]
    await stack.arm(AMOUNT)
    assert (await pay(stack, "bob", PIN)).get("reasonCode") == "card_frozen"
    assert of_card(stack, "bob") == []


@pytest.mark.parametrize(
    ("point", "card"), [("accept.written", "carol"), ("accept.committed", "dan")]
)
async def test_a_gateway_that_dies_here_counts_a_wrong_one_once(
    stack: Stack, point: str, card: str
) -> None:
    await give_pin(stack, card)
    await restart_gateway(stack, crash=point)
    await stack.arm(AMOUNT)
    mark = stack.log.position
    tap = await tap_until_asked(stack, card)
    stack.keypad.press("0000\n")
    assert await stack.gateway.wait_exit(DEATH_TIMEOUT_S) == EXIT_CODE
    assert await tries(stack, card) == (3 if point == "accept.written" else 2)
    await stack.start_gateway()
    # The same bytes were posted again, by a terminal that was told nothing until now.
    await tap
    verdict = await stack.log.wait_for("verdict", since=mark)
    # Where the gateway has come back too late for a tap, it has decided nothing about the PIN.
    is_late = verdict.get("reasonCode") == "accept_until_passed"
    assert is_late or verdict.get("reasonCode") == "pin_wrong"
    assert await tries(stack, card) == (3 if is_late else 2)
    assert of_card(stack, card) == []

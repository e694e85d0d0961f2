"""Cards that are taken while the gateway is away: real agent, simulated card, real gateway, chain.

A wire that can fall silent lies between terminal and gateway. Each test leaves both of them
running, nothing waiting, and the policy in force.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.event_log import Event, command
from taprail_hwsim.gateway_wire import GatewayWire
from taprail_hwsim.stack import Stack, StackOptions
from taprail_hwsim.world import TERMINAL_ID
from tests.e2e.books import all_told, charged_units, judge, newest_request, requests
from tests.e2e.books import stored_request_body as kept_at_gateway
from tests.e2e.counter import restart_terminal, tap_until_dead
from tests.e2e.test_operator import admin

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

CARD = "keycard"
LIMITS = ("--per-tap", "5.00", "--sum", "8.00", "--count", "2", "--age", "600")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A terminal that may sell offline, as it has heard."""
    options = StackOptions(tmp_path_factory.mktemp("o"), gateway_wire=True)
    async with Stack(options) as stack:
        await admin(stack, "terminal", "offline", "set", TERMINAL_ID, *LIMITS)
        await stack.gateway.stop()
        await come_back(stack)
        yield stack


async def come_back(stack: Stack) -> None:
    """Start the gateway; its terminal greets it and hears what it may."""
    since = stack.log.position
    await stack.start_gateway()
    if (await exposure(stack))["policy"] is None:
        await stack.log.wait_for("offline_policy", since=since)


async def exposure(stack: Stack) -> dict[str, Any]:
    """What the terminal tells its operator of sales without the gateway."""
    told = await command(stack.control_socket, command="status")
    return dict(told["offline"])


def refusal(event: Event) -> object:
    """Why a card was not taken."""
    return event.get("code") if event.name == "card_refused" else event.name


async def test_a_day_without_the_gateway_is_paid_once_and_to_the_unit(
    stack: Stack, blocks: BlockWatch
) -> None:
    await stack.gateway.stop()
    assert refusal(await stack.tap("alice", "1.00")) == "offline_card"
    assert refusal(await stack.tap(CARD, "5.01")) == "offline_limit"
    assert (await stack.tap(CARD, "1.50")).name == "taken_offline"
    assert (await stack.tap(CARD, "2.25")).name == "taken_offline"
    await stack.cut_power()
    assert refusal(await stack.tap(CARD, "1.00")) == "offline_count"
    told = await exposure(stack)
    assert (told["waiting"], told["waitingUnits"], told["blockedBy"]) == (
        *(2, 3_750_000),
        "offline_count",
    )
    assert charged_units(stack, CARD) == []
    waiting = [row for row in requests(stack).values() if row.state == "stored"]
    assert [json.loads(row.body)["offline"] for row in waiting] == [True, True]

    await come_back(stack)
    await all_told(stack, blocks)
    assert sorted(charged_units(stack, CARD)) == [1_500_000, 2_250_000]
    assert [kept_at_gateway(stack, row.request_id) for row in waiting] == [
        row.body for row in waiting
    ]
    told = await exposure(stack)
    assert (told["waiting"], told["lost"], told["blockedBy"]) == (0, 0, None)
    judge(stack)


@pytest.mark.parametrize("point", ["tap.stored", "offline.taken"])
async def test_a_power_cut_before_it_was_shown_shows_it_at_the_next_start(
    stack: Stack, blocks: BlockWatch, point: str
) -> None:
    before = len(charged_units(stack, CARD))
    await stack.terminal.stop()
    await stack.start_terminal(point)
    await stack.gateway.stop()
    await tap_until_dead(stack, CARD, "0.75", stack.terminal)
    kept = newest_request(stack)
    assert (kept.state, json.loads(kept.body)["offline"]) == ("stored", True)
    since = stack.log.position
    await stack.start_terminal()
    shown = await stack.log.wait_for(
        "view", since=since, where=lambda e: e.get("phase") == "offline"
    )
    assert (shown.get("request"), shown.get("late")) == (kept.request_id, True)
    await come_back(stack)
    await all_told(stack, blocks)
    assert charged_units(stack, CARD)[before:] == [750_000]
    judge(stack)


async def test_a_gateway_that_only_falls_silent_and_then_loses_its_answer_charges_once(
    stack: Stack, blocks: BlockWatch
) -> None:
    before = len(charged_units(stack, CARD))
    wire = stack.wire
    assert isinstance(wire, GatewayWire)
    wire.fall_silent()
    await restart_terminal(stack)
    since = stack.log.position
    assert (await stack.tap(CARD, "1.10")).name == "taken_offline"
    kept = newest_request(stack)
    wire.mend()
    wire.lose_answers(3)  # of whatever it posts first
    await stack.log.wait_for(
        "verdict", since=since, where=lambda e: e.get("request") == kept.request_id
    )
    await all_told(stack, blocks)
    assert kept_at_gateway(stack, kept.request_id) == kept.body
    assert charged_units(stack, CARD)[before:] == [1_100_000]
    judge(stack)


async def test_what_is_declined_later_is_a_loss_that_everybody_sees(
    stack: Stack, blocks: BlockWatch
) -> None:
    before = charged_units(stack, CARD)
    uuid = stack.world.card(CARD).card_uuid
    await stack.gateway.stop()
    since = stack.log.position
    assert (await stack.tap(CARD, "3.00")).name == "taken_offline"
    await admin(stack, "card", "freeze", uuid, "--reason", "stolen")
    await come_back(stack)
    lost = await stack.log.wait_for("offline_loss", since=since)
    assert (lost.get("amountUnits"), lost.get("reason")) == (3_000_000, "card_frozen")
    await stack.log.wait_for("view", since=since, where=lambda e: e.get("phase") == "declined")
    told = await exposure(stack)
    assert (told["waiting"], told["lost"], told["lostUnits"]) == (0, 1, 3_000_000)
    listed = await command(stack.control_socket, command="offline")
    assert [each["request"] for each in listed["data"]["losses"]] == [lost.get("request")]
    [alert] = await admin(stack, "alert", "list", "--review")
    assert (alert["kind"], "3.00" in alert["text"]) == ("offline_loss", True)

    await stack.log.wait_for("offline_policy", since=since)  # which names the card by now
    await stack.gateway.stop()
    assert refusal(await stack.tap(CARD, "1.00")) == "offline_frozen"
    await come_back(stack)
    await all_told(stack, blocks)
    assert charged_units(stack, CARD) == before
    judge(stack)

"""Charges at the agent as a process: armed by the gateway, which is lost at each step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from taprail_common.crash import EXIT_CODE
from taprail_hwsim.cards import Ntag424
from taprail_hwsim.pn532 import Pn532Simulator
from tests.support.played_gateway import PlayedGateway
from tests.support.terminal_fixtures import (
    EVENT_LIMIT_S,
    AgentProcess,
    ControlLine,
    agent,
    make_key,
    write_config,
)

AMOUNT = 3_000_000


@pytest.fixture
def reader() -> Iterator[Pn532Simulator]:
    with Pn532Simulator() as simulator:
        yield simulator


@pytest.fixture
async def gateway() -> AsyncIterator[PlayedGateway]:
    async with PlayedGateway().serving() as gateway:
        yield gateway


@pytest.fixture
async def config(tmp_path: Path, gateway: PlayedGateway, reader: Pn532Simulator) -> Path:
    path = write_config(tmp_path, gateway, reader.path, fixed_amount=None)
    make_key(path)
    return path


def card(number: int = 1) -> Ntag424:
    return Ntag424(bytes([4, 1, 2, 3, 4, 5, number]), bytes(16), bytes(16))


async def next_of(queue: asyncio.Queue[Any]) -> Any:
    return await asyncio.wait_for(queue.get(), EVENT_LIMIT_S)


async def ask(gateway: PlayedGateway, **changes: Any) -> str:
    """Arm a terminal that is connected; the charge's id."""
    charge = gateway.ask(AMOUNT, **changes)
    await gateway.command("charge:request", charge)
    return str(charge["chargeId"])


async def connected(running: AgentProcess, gateway: PlayedGateway) -> str | None:
    """Wait until the agent has asked for its charge, and its reader works."""
    asked = await next_of(gateway.asked_open)
    await running.until_status(lambda status: bool(status["reader"]["ok"]))
    return None if asked is None else str(asked)


async def until_phase(running: AgentProcess, phase: str) -> dict[str, Any]:
    return await running.until_status(lambda status: status["phase"] == phase)


async def pays(running: AgentProcess, gateway: PlayedGateway, charge: str) -> None:
    """The tap that is going on is approved, and was for the charge."""
    # Not what is shown: it may have settled before a display has come to show the approval.
    await running.watcher.until("verdict", outcome="approved")
    sent = json.loads(gateway.bodies[-1])
    assert (sent["chargeId"], sent["amount"]) == (charge, AMOUNT)


async def test_a_charge_is_taken_tapped_and_carried_to_the_gateway(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    async with agent(config) as running:
        assert await connected(running, gateway) is None
        charge = await ask(gateway)
        assert await next_of(gateway.answers) == {"chargeId": charge, "answer": "armed"}
        status = await running.status()
        assert (status["amountUnits"], status["chargeId"]) == (AMOUNT, charge)
        await gateway.command("charge:request", gateway.charge or {})
        assert await next_of(gateway.answers) == {"chargeId": charge, "answer": "armed"}
        reader.put(card())
        await pays(running, gateway, charge)
        reader.lift()
        # The tap is used up: the same request, played again, arms nothing.
        await gateway.command("charge:request", gateway.charge or {})
        assert (await next_of(gateway.answers))["answer"] == "tapped"
        await until_phase(running, "idle")
    assert len(gateway.bodies) == 1


async def test_a_cancelled_charge_takes_no_card(config: Path, gateway: PlayedGateway) -> None:
    async with agent(config) as running:
        await connected(running, gateway)
        charge = await ask(gateway)
        await running.watcher.until("armed", charge=charge)
        over = {"terminalId": "t1", "chargeId": charge, "reason": "cancelled"}
        await gateway.command("charge:cancel", over)
        await running.watcher.until("disarmed", charge=charge)
        assert (await running.status())["phase"] == "idle"


async def test_the_deadline_disarms_without_the_gateway(
    config: Path, gateway: PlayedGateway
) -> None:
    async with agent(config) as running:
        await connected(running, gateway)
        charge = await ask(gateway, seconds=1.5)
        await running.watcher.until("armed", charge=charge)
        gateway.refuse_connects = 1_000
        await gateway.hang_up()
        await running.watcher.until("disarmed", charge=charge)
        assert (await running.status())["phase"] == "idle"


async def test_one_action_at_a_time_with_the_till_on_this_machine(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    async with agent(config) as running:
        await connected(running, gateway)
        line = await ControlLine.open(running.config)
        assert (await line.ask("arm", amount="1.00"))["ok"]
        charge = await ask(gateway)
        assert await next_of(gateway.answers) == {"chargeId": charge, "answer": "busy"}
        assert (await line.ask("cancel"))["phase"] == "idle"
        charge = await ask(gateway)
        assert (await next_of(gateway.answers))["answer"] == "armed"
        assert (await line.ask("arm", amount="1.00"))["code"] == "terminal_busy"
        assert (await line.ask("cancel"))["phase"] == "idle"
        assert await next_of(gateway.answers) == {"chargeId": charge, "answer": "cancelled"}
        line.close()


async def test_what_is_not_the_gateways_word_arms_nothing(
    config: Path, gateway: PlayedGateway
) -> None:
    async with agent(config) as running:
        await connected(running, gateway)
        charge = gateway.ask(AMOUNT)
        await gateway.command("charge:request", charge, key=SigningKey.generate())
        await gateway.command("charge:request", charge, about="charge:cancel")
        await gateway.command("charge:request", {**charge, "terminalId": "t2"})
        await gateway.command("charge:request", {**charge, "amount": -1})
        stale = gateway.ask(AMOUNT, seconds=-1)
        await gateway.command("charge:request", stale)
        assert await next_of(gateway.answers) == {
            "chargeId": stale["chargeId"],
            "answer": "refused",
            "reasonCode": "charge_expired",
        }
        assert (await running.status())["phase"] == "idle"
        assert gateway.answers.empty()


async def test_the_idle_display_shows_the_merchants_words(
    config: Path, gateway: PlayedGateway
) -> None:
    async with agent(config) as running:
        await connected(running, gateway)
        said = {"terminalId": "t1", "text": "Back at two", "at": gateway.now()}
        await gateway.command("terminal:display", said)
        await running.watcher.until("view", idleText="Back at two")


# --- the gateway is lost --------------------------------------------------------------------------


async def test_a_charge_asked_for_while_the_terminal_was_away_is_taken_at_the_connect(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    charge = str(gateway.ask(AMOUNT)["chargeId"])
    async with agent(config) as running:
        assert (await next_of(gateway.answers))["answer"] == "armed"
        await running.until_status(lambda status: status["chargeId"] == charge)
        reader.put(card())
        await pays(running, gateway, charge)


async def test_a_gateway_lost_before_it_heard_the_answer_hears_it_at_the_connect(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    async with agent(config) as running:
        await connected(running, gateway)
        charge = await ask(gateway)
        await gateway.hang_up()
        assert await next_of(gateway.asked_open) in {None, charge}
        while not gateway.answers.empty():
            gateway.answers.get_nowait()
        await gateway.hang_up()
        assert await next_of(gateway.asked_open) in {None, charge}
        assert await next_of(gateway.answers) == {"chargeId": charge, "answer": "armed"}
        reader.put(card())
        await pays(running, gateway, charge)
    assert len(gateway.bodies) == 1


async def test_a_gateway_lost_while_armed_finds_the_same_charge(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    async with agent(config) as running:
        await connected(running, gateway)
        charge = await ask(gateway)
        assert (await next_of(gateway.answers))["answer"] == "armed"
        await gateway.hang_up()
        assert await next_of(gateway.asked_open) == charge
        assert await next_of(gateway.answers) == {"chargeId": charge, "answer": "armed"}
        reader.put(card())
        await pays(running, gateway, charge)
    assert len(gateway.bodies) == 1


async def test_a_cancel_while_the_gateway_was_lost_is_heard_at_the_connect(
    config: Path, gateway: PlayedGateway
) -> None:
    async with agent(config) as running:
        await connected(running, gateway)
        charge = await ask(gateway)
        await running.watcher.until("armed", charge=charge)
        gateway.charge = None
        await gateway.hang_up()
        assert await next_of(gateway.asked_open) == charge
        await running.watcher.until("disarmed", charge=charge)


async def test_what_staff_took_back_while_the_gateway_was_lost_is_told_at_the_connect(
    config: Path, gateway: PlayedGateway
) -> None:
    async with agent(config) as running:
        await connected(running, gateway)
        charge = await ask(gateway)
        assert (await next_of(gateway.answers))["answer"] == "armed"
        gateway.refuse_connects = 1
        await gateway.hang_up()
        line = await ControlLine.open(running.config)
        assert (await line.ask("cancel"))["phase"] == "idle"
        line.close()
        assert await next_of(gateway.asked_open) is None
        assert await next_of(gateway.answers) == {"chargeId": charge, "answer": "cancelled"}


async def test_a_tap_while_the_gateway_is_lost_is_not_armed_again(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    gateway.plays = ["lost", "lost"]
    async with agent(config) as running:
        await connected(running, gateway)
        charge = await ask(gateway)
        await running.watcher.until("armed", charge=charge)
        assert (await next_of(gateway.answers))["answer"] == "armed"
        reader.put(card())
        await running.watcher.until("stored")
        await gateway.hang_up()
        # The gateway has not seen the tap and still asks for one.
        assert await next_of(gateway.asked_open) is None
        assert await next_of(gateway.answers) == {"chargeId": charge, "answer": "tapped"}
        await pays(running, gateway, charge)
    assert len(set(gateway.bodies)) == 1


async def test_a_terminal_killed_while_armed_is_armed_again(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    async with agent(config) as running:
        await connected(running, gateway)
        charge = await ask(gateway)
        await running.watcher.until("armed", charge=charge)
        running.process.kill()
        await running.ended()
    async with agent(config) as running:
        await running.until_status(lambda status: status["chargeId"] == charge)
        reader.put(card())
        await pays(running, gateway, charge)


async def test_a_terminal_killed_after_the_tap_does_not_ask_for_another_card(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    async with agent(config, crash="tap.stored") as running:
        await connected(running, gateway)
        charge = await ask(gateway)
        await running.watcher.until("armed", charge=charge)
        assert (await next_of(gateway.answers))["answer"] == "armed"
        reader.put(card())
        assert await running.ended() == EXIT_CODE
        reader.lift()
    async with agent(config) as running:
        assert await next_of(gateway.answers) == {"chargeId": charge, "answer": "tapped"}
        await running.until_status(lambda status: status["outbox"]["unresolved"] == 0)
        await until_phase(running, "idle")
    (body,) = {bytes(body) for body in gateway.bodies}
    assert json.loads(body)["chargeId"] == charge

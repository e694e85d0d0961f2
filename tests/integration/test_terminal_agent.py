"""The agent as a process: real reader driver, real outbox, real HTTP; the gateway is the test's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from taprail_common.crash import EXIT_CODE
from taprail_common.signing import Domain, parse_public_key, verify
from taprail_hwsim.cards import Ntag21x, Ntag424
from taprail_hwsim.pn532 import Pn532Simulator
from taprail_terminal.config import load_config
from taprail_terminal.outbox import Outbox
from taprail_terminal.storage import DeviceStore
from tests.support.played_gateway import PlayedGateway
from tests.support.terminal_fixtures import (
    EVENT_LIMIT_S,
    TAPRAIL,
    AgentProcess,
    ControlLine,
    agent,
    init,
    make_key,
    write_config,
)

PRICE = 2_500_000


def card(number: int = 1) -> Ntag424:
    return Ntag424(bytes([4, 1, 2, 3, 4, 5, number]), bytes(16), bytes(16))


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
    path = write_config(tmp_path, gateway, reader.path)
    make_key(path)
    return path


async def ready(running: AgentProcess) -> None:
    await running.until_status(lambda status: bool(status["armed"]))


async def test_a_tap_is_approved_and_settles(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    async with agent(config) as running:
        await ready(running)
        await asyncio.wait_for(gateway.connected.wait(), EVENT_LIMIT_S)
        reader.put(card())
        order = [
            (await running.watcher.until(name))["event"]
            for name in ("field", "read", "stored", "request_sent", "verdict")
        ]
        await running.watcher.until("shown", phase="approved")
        reader.lift()
        await running.watcher.until("card_removed")
        await gateway.notify("sent", gateway.bodies[0])
        await running.watcher.until("sent")
        await gateway.notify("completed", gateway.bodies[0])
        assert (await running.watcher.until("settled"))["txHash"].startswith("0x")
        await running.watcher.until("shown", phase="settled")
        status = await running.status()
    assert order == ["field", "read", "stored", "request_sent", "verdict"]
    assert status["outbox"] == {"unresolved": 0, "unsettled": 0}
    (trace,) = DeviceStore(load_config(config).device_file).traces()
    stages = trace["stagesMs"]
    assert list(stages) == [
        "field",
        "read",
        "stored",
        "request_sent",
        "verdict",
        "shown",
        "settled",
    ]
    assert list(stages.values()) == sorted(stages.values())


async def test_the_request_is_signed_by_the_key_that_init_printed(
    tmp_path: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    path = write_config(tmp_path, gateway, reader.path)
    facts = await init(path)
    async with agent(path) as running:
        await ready(running)
        reader.put(card())
        await running.watcher.until("verdict")
    signature = gateway.headers[0]["TapRail-Signature"]
    body = gateway.bodies[0]
    verify(parse_public_key(facts["publicKey"]), Domain.PAYMENT_REQUEST, body, signature)
    sent = json.loads(body)
    assert sent["amount"] == PRICE
    assert sent["proof"]["profile"] == "sun"


async def test_a_decline_says_why(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    gateway.decline = {"reason": "3.20 left today", "reasonCode": "daily_limit", "leftUnits": 32}
    async with agent(config) as running:
        await ready(running)
        reader.put(card())
        view = await running.watcher.until("view", phase="declined")
    assert (view["reason"], view["leftUnits"], view["cardPresent"]) == ("3.20 left today", 32, True)


async def test_ten_quick_taps_are_ten_requests(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    async with agent(config) as running:
        await ready(running)
        for number in range(10):
            reader.put(card(number))
            await running.watcher.until("view", phase="approved", cardPresent=True)
            reader.lift()
            await running.watcher.until("card_removed")
    assert len({json.loads(body)["requestId"] for body in gateway.bodies}) == 10


async def test_a_card_torn_away_is_told_and_may_come_again(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    async with agent(config) as running:
        await ready(running)
        same = card()
        reader.put(same, tear_after_apdus=2)
        view = await running.watcher.until("view", phase="try_again")
        assert view["reason"] == "card removed too early"
        reader.put(same)
        await running.watcher.until("shown", phase="approved")
    assert len(gateway.bodies) == 1


async def test_a_till_arms_and_cancels(
    tmp_path: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    path = write_config(tmp_path, gateway, reader.path, fixed_amount=None)
    make_key(path)
    async with agent(path) as running:
        await running.until_status(lambda status: status["phase"] == "idle")
        line = await ControlLine.open(running.config)
        assert (await line.ask("arm", amount="12.50"))["amountUnits"] == 12_500_000
        assert (await line.ask("arm", amount="1.00"))["code"] == "terminal_busy"
        assert (await line.ask("cancel"))["phase"] == "idle"
        assert (await line.ask("arm", amount="0.0000001"))["code"] == "bad_request"
        assert (await line.ask("arm", amount=5))["code"] == "bad_request"
        assert (await line.ask("arm", amount="3.00"))["ok"]
        line.close()
        reader.put(Ntag21x(bytes.fromhex("04A1B2C3D4E5F6")))
        await running.watcher.until("shown", phase="approved")
        reader.lift()
        await running.watcher.until("card_removed")
    sent = json.loads(gateway.bodies[0])
    assert (sent["amount"], sent["proof"]["profile"]) == (3_000_000, "uid")


async def test_the_control_socket_bears_nonsense(config: Path, gateway: PlayedGateway) -> None:
    async with agent(config) as running:
        for nonsense in (
            b"\n",
            b"{\n",
            b"[]\n",
            b'{"command": 5}\n',
            b"\xff\xfe\n",
            b"[" * 4_000 + b"\n",
        ):
            line = await ControlLine.open(running.config)
            await line.say(nonsense)
            assert (await line.hear())["ok"] is False
            line.close()
        line = await ControlLine.open(running.config)
        await line.say(b"x" * 100_000)
        assert (await line.hear())["code"] == "bad_request"
        with pytest.raises((EOFError, ConnectionError)):
            await line.hear()
        assert (await running.arm("5.00"))["code"] == "fixed_price"
        assert (await running.status())["ok"]


async def test_a_lost_answer_is_unknown_and_resolves_without_a_second_charge(
    tmp_path: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    path = write_config(tmp_path, gateway, reader.path, timeout_ms=200)
    make_key(path)
    gateway.plays = ["lost", "lost"]
    async with agent(path) as running:
        await ready(running)
        reader.put(card())
        await running.watcher.until("shown", phase="unknown")
        assert not (await running.status())["armed"]
        assert (await running.watcher.until("resolved"))["outcome"] == "approved"
        await running.watcher.until("shown", phase="approved")
        reader.lift()
        await ready(running)
    assert len(gateway.bodies) == 3
    assert len(set(gateway.bodies)) == 1


@pytest.mark.parametrize("point", ["tap.stored", "tap.sent", "tap.believed", "tap.verdict"])
async def test_kill_9_in_the_middle_of_a_tap_loses_nothing(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator, point: str
) -> None:
    async with agent(config, crash=point) as running:
        await ready(running)
        reader.put(card())
        assert await running.ended() == EXIT_CODE
        reader.lift()
    before = list(gateway.bodies)
    assert len(before) == (0 if point == "tap.stored" else 1)
    async with agent(config) as running:
        await running.until_status(lambda status: status["outbox"]["unresolved"] == 0)
        await ready(running)
    requests = {json.loads(body)["requestId"] for body in gateway.bodies}
    assert len(requests) == 1
    assert len(set(gateway.bodies)) == 1
    # With the verdict on the disk nothing has to be asked again.
    posts = {"tap.stored": 1, "tap.sent": 2, "tap.believed": 2, "tap.verdict": 1}
    assert len(gateway.bodies) == posts[point]


async def unseen(config: Path) -> list[str]:
    """What the next start would show, as long as no agent runs."""
    outbox = Outbox(load_config(config).outbox_file)
    try:
        return [row.request_id for row in await outbox.unseen()]
    finally:
        await outbox.close()


async def late_yes(running: AgentProcess, request: str) -> None:
    """Wait until the request is shown as an earlier sale that was approved, or settled by now."""
    phase = "unknown"
    while phase == "unknown":
        phase = (await running.watcher.until("view", late=True, request=request))["phase"]
    assert phase in {"approved", "settled"}


async def test_a_yes_that_nobody_may_have_seen_is_shown_at_the_next_start(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    async with agent(config, crash="tap.shown") as running:
        await ready(running)
        reader.put(card())
        assert await running.ended() == EXIT_CODE
        reader.lift()
    (request,) = await unseen(config)
    async with agent(config) as running:
        await late_yes(running, request)
        await running.watcher.until("shown", phase="ready")
    assert await unseen(config) == []
    assert len(set(gateway.bodies)) == 1


async def test_a_late_yes_that_waits_behind_another_sale_survives_a_power_cut(
    tmp_path: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    path = write_config(tmp_path, gateway, reader.path, fixed_amount=None, timeout_ms=200)
    make_key(path)
    gateway.plays = ["hang"]
    async with agent(path, crash="tap.verdict@2") as running:
        await running.until_status(lambda status: status["phase"] == "idle")
        await running.arm("1.00")
        reader.put(card(1))
        await running.watcher.until("shown", phase="unknown")
        reader.lift()
        await running.watcher.until("card_removed")
        await running.arm("2.00")
        reader.put(card(2))  # and lies there: the second yes stays on the display
        await running.watcher.until("shown", phase="approved")
        assert await running.ended() == EXIT_CODE
        reader.lift()
    first = json.loads(gateway.bodies[0])["requestId"]
    assert await unseen(path) == [first]
    async with agent(path) as running:
        await late_yes(running, first)
        await running.watcher.until("shown", phase="idle")
    assert await unseen(path) == []


async def test_what_settled_while_the_terminal_was_off_is_learnt_at_its_start(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    async with agent(config, crash="tap.verdict") as running:
        await ready(running)
        reader.put(card())
        await running.ended()
    async with agent(config) as running:
        await running.until_status(lambda status: status["outbox"]["unsettled"] == 0)
    assert len(gateway.synced) == 1


async def test_what_settled_before_its_verdict_came_is_learnt_too(
    config: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    async with agent(config, crash="tap.sent") as running:
        await ready(running)
        reader.put(card())
        await running.ended()
    gateway.plays = ["lost", "lost"]  # so the news of the settlement overtakes the verdict
    async with agent(config) as running:
        await running.until_status(
            lambda status: status["outbox"] == {"unresolved": 0, "unsettled": 0}
        )


async def test_a_reader_pulled_in_mid_sale_is_out_of_service_and_back(
    tmp_path: Path, gateway: PlayedGateway
) -> None:
    port = tmp_path / "reader"
    with Pn532Simulator() as first:
        port.symlink_to(first.path)
        path = write_config(tmp_path, gateway, str(port))
        make_key(path)
        async with agent(path) as running:
            await ready(running)
            port.unlink()
            first.stop()
            await running.watcher.until("shown", phase="out_of_service")
            with Pn532Simulator() as second:
                port.symlink_to(second.path)
                await running.watcher.until("shown", phase="ready")
                second.put(card())
                await running.watcher.until("shown", phase="approved")


async def refusal(config_file: Path) -> str:
    """The one line with which the agent refuses to start."""
    process = await asyncio.create_subprocess_exec(
        TAPRAIL,
        "terminal",
        "run",
        "--config",
        str(config_file),
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await asyncio.wait_for(process.communicate(), EVENT_LIMIT_S)
    assert process.returncode == 2
    lines = err.decode().splitlines()
    assert len([line for line in lines if line.startswith("error:")]) == 1
    assert "Traceback" not in err.decode()
    return lines[-1]


async def test_a_reader_path_that_does_not_exist_is_one_line(
    tmp_path: Path, gateway: PlayedGateway
) -> None:
    path = write_config(tmp_path, gateway, "/dev/no-such-reader")
    make_key(path)
    assert "/dev/no-such-reader" in await refusal(path)


async def test_a_missing_key_is_one_line(
    tmp_path: Path, gateway: PlayedGateway, reader: Pn532Simulator
) -> None:
    assert "taprail terminal init" in await refusal(write_config(tmp_path, gateway, reader.path))


async def test_a_second_agent_on_the_same_state_is_one_line(config: Path) -> None:
    async with agent(config) as running:
        assert str(running.process.pid) in await refusal(config)


async def test_a_gateway_that_knows_this_terminal_otherwise_is_one_line(
    config: Path, gateway: PlayedGateway
) -> None:
    gateway.facts["decimals"] = 2
    assert "decimals" in await refusal(config)


async def test_init_keeps_a_key_that_is_there(config: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        TAPRAIL,
        "terminal",
        "init",
        "--config",
        str(config),
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert b"exists already" in err

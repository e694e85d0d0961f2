"""Parts that hang, stop or are pulled out while customers tap: the others go on, and all heals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.event_log import Event
from taprail_hwsim.stack import Stack
from tests.e2e.books import all_told, charged_units, judge, payments
from tests.e2e.programs import refusal, says

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
]


async def test_customers_are_answered_while_the_node_hangs(
    stack: Stack, blocks: BlockWatch
) -> None:
    cards = ("alice", "bob", "carol")
    stack.chain.pause()
    try:
        verdicts = [await stack.tap(card, "6.10") for card in cards]
        # Not one of them was left in the unknown, and none waited for a chain that stands still.
        assert [verdict.get("outcome") for verdict in verdicts] == ["approved"] * len(cards)
        assert {payment.state for payment in payments(stack).values()} <= {"pending", "processing"}
    finally:
        stack.chain.resume()
    await all_told(stack, blocks)
    assert [charged_units(stack, card) for card in cards] == [[6_100_000]] * len(cards)
    judge(stack)


async def test_a_gateway_told_to_stop_amid_taps_loses_nothing(
    stack: Stack, blocks: BlockWatch
) -> None:
    amounts = {"dan": "2.01", "erin": "2.02", "frank": "2.03", "grace": "2.04", "heidi": "2.05"}

    async def tap_all() -> None:
        for card, amount in amounts.items():
            await stack.tap(card, amount)

    since = stack.log.position
    taps = asyncio.create_task(tap_all())
    await stack.log.wait_for(
        "armed", since=since, where=lambda e: e.get("amountUnits") == 2_030_000
    )
    assert await stack.gateway.stop() == 0
    await stack.start_gateway()
    await taps
    await all_told(stack, blocks)
    for card, amount in amounts.items():
        assert charged_units(stack, card) == [int(amount.replace(".", "")) * 10_000]
    judge(stack)


async def test_a_reader_that_hangs_and_comes_back_serves_the_armed_sale(
    stack: Stack, blocks: BlockWatch
) -> None:
    await stack.arm("5.40")
    since = stack.log.position
    stack.reader.hang()
    await stack.log.wait_for("view", since=since, where=_has("phase", "out_of_service"))
    since = stack.log.position
    stack.reader.power_cycle()
    await stack.log.wait_for("view", since=since, where=_has("phase", "ready"))
    assert (await stack.tap("ivan")).get("outcome") == "approved"
    await all_told(stack, blocks)
    assert charged_units(stack, "ivan") == [5_400_000]
    judge(stack)


async def test_what_runs_already_cannot_be_run_twice(stack: Stack) -> None:
    """A second process on the same state would send, or post, what the first one does."""
    gateway = await asyncio.to_thread(
        refusal, "taprail", "gateway", "run", "--config", str(stack.gateway_config), "--port", "0"
    )
    assert says(gateway, [str(stack.gateway.pid), "stop it first"])
    config = stack.state_dir / "second-terminal.toml"
    config.write_text(stack.terminal_config.read_text() + '\n[display]\ndriver = "none"\n')
    terminal = await asyncio.to_thread(
        refusal, "taprail", "terminal", "run", "--config", str(config)
    )
    assert says(terminal, [str(stack.terminal.pid), "stop that one first"])
    simulator = await asyncio.to_thread(
        refusal, "taprail-sim", "up", "--state-dir", str(stack.state_dir)
    )
    assert says(simulator, ["runs already", str(stack.state_dir)])
    assert (await stack.tap("kim", "1.00")).get("outcome") == "approved"


def _has(field: str, value: object) -> Callable[[Event], bool]:
    return lambda event: event.get(field) == value

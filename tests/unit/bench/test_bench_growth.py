"""What the growth bench makes of its times, and the past that it gives to a shop."""

from __future__ import annotations

import pytest

from tests.bench import goals, growth, history
from tests.bench.growth import Stopwatch

SMALLEST, LARGEST = growth.ROWS[0], growth.ROWS[-1]
FEW, MANY = growth.IN_FLIGHT[0], growth.IN_FLIGHT[-1]


def watch(send_ms: float, confirm_ms: float, idle_ms: float = 1.0) -> Stopwatch:
    made = Stopwatch()
    made.note("send", send_ms)
    made.note("confirm", confirm_ms)
    made.note("idle", idle_ms)
    return made


def watches(**others: Stopwatch) -> dict[str, Stopwatch]:
    names = [f"rows_{rows}" for rows in growth.ROWS]
    names += [f"in_flight_{payments}" for payments in growth.IN_FLIGHT]
    return {name: watch(10, 10) for name in names} | others


async def test_a_stopwatch_gives_the_median_so_that_one_slow_step_tells_nothing() -> None:
    async def step() -> str:
        return "done"

    timed = Stopwatch()
    assert await timed.time("send", step()) == "done"
    assert 0 < timed.ms("send") < 1_000
    timed.reset()
    for ms in (3.0, 900.0, 5.0):
        timed.note("send", ms)
    assert timed.ms("send") == 5.0


def test_a_ratio_compares_a_send_and_a_confirm_together() -> None:
    grown = watches(**{f"rows_{SMALLEST}": watch(6, 4), f"rows_{LARGEST}": watch(6, 9)})
    assert growth.figures(grown)["growth.tick_ratio"] == pytest.approx(1.5)


def test_what_is_in_flight_is_compared_with_a_block_and_without_one() -> None:
    few, many = watch(10, 10, idle_ms=4), watch(10, 30, idle_ms=5)
    figures = growth.figures(watches(**{f"in_flight_{FEW}": few, f"in_flight_{MANY}": many}))
    assert figures["growth.tick_ratio_in_flight"] == pytest.approx(2)
    assert figures["growth.confirm_tick_ratio_in_flight"] == pytest.approx(1.25)


def test_every_size_has_its_own_figures_and_every_goal_of_growth_is_measured() -> None:
    figures = growth.figures(watches())
    assert {f"growth.send_tick_ms_rows_{rows}" for rows in growth.ROWS} < figures.keys()
    assert {f"growth.confirm_tick_ms_in_flight_{n}" for n in growth.IN_FLIGHT} < figures.keys()
    assert {key for key in goals.GOALS if key.startswith("growth.")} < figures.keys()


def test_a_past_fills_its_transactions_one_a_block_and_lets_cards_take_turns() -> None:
    past = history.plan(120, 40, ["0xa", "0xb", "0xc"])
    assert [(item.nonce, item.block_number, item.block_hash) for item in past] == [
        (0, 1, "0xa"),
        (1, 2, "0xb"),
        (2, 3, "0xc"),
    ]
    assert [len(item.turns) for item in past] == [50, 50, 20]
    assert [turn for item in past for turn in item.turns] == [number % 40 for number in range(120)]


@pytest.mark.parametrize(("payments", "blocks"), [(0, 0), (1, 1), (50, 1), (51, 2)])
def test_a_past_needs_a_block_for_each_transaction(payments: int, blocks: int) -> None:
    assert history.blocks_for(payments) == blocks
    assert len(history.plan(payments, 3, ["0x"] * blocks)) == blocks

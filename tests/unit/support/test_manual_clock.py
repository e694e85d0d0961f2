"""The tests' own clock: time stands still, and sleepers wake in the order of their times."""

from __future__ import annotations

import asyncio

import pytest

from taprail_common.clock import Clock
from tests.support.manual_clock import ManualClock


def test_time_stands_still() -> None:
    clock: Clock = ManualClock(now_ms=1_000)
    assert (clock.now_ms(), clock.monotonic_s()) == (1_000, 0.0)
    assert (clock.now_ms(), clock.monotonic_s()) == (1_000, 0.0)


async def test_both_times_advance_and_only_the_wall_can_be_set() -> None:
    clock = ManualClock(now_ms=1_000)
    await clock.advance(2.5)
    assert (clock.now_ms(), clock.monotonic_s()) == (3_500, 2.5)
    clock.step_wall(-2_000)
    assert (clock.now_ms(), clock.monotonic_s()) == (1_500, 2.5)
    with pytest.raises(ValueError, match="does not go back"):
        await clock.advance(-1)


async def test_sleepers_wake_at_their_own_moments_in_order() -> None:
    clock = ManualClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps_s: float) -> None:
        for nap_s in naps_s:
            await clock.sleep(nap_s)
            woken.append((name, clock.monotonic_s()))

    tasks = [
        asyncio.create_task(sleeper("late", 5.0)),
        asyncio.create_task(sleeper("often", 1.0, 1.0, 2.5)),
        asyncio.create_task(sleeper("tie", 2.0)),
    ]
    await clock.advance(0)
    assert clock.sleepers == 3
    await clock.advance(4.0)
    assert woken == [("often", 1.0), ("tie", 2.0), ("often", 2.0)]
    assert clock.sleepers == 2
    await clock.advance(1.0)
    await asyncio.gather(*tasks)
    assert woken[3:] == [("often", 4.5), ("late", 5.0)]


async def test_a_sleeper_that_was_cancelled_is_forgotten() -> None:
    clock = ManualClock()
    sleeping = asyncio.create_task(clock.sleep(1.0))
    await clock.advance(0)
    sleeping.cancel()
    await clock.advance(2.0)
    assert clock.sleepers == 0
    assert sleeping.cancelled()

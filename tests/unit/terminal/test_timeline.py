"""Events for watchers, and the stages of a tap."""

from __future__ import annotations

import asyncio

import pytest

from taprail_common.clock import SystemClock
from taprail_terminal.timeline import STAGES, WATCHER_BACKLOG, Tap, Timeline, WatcherLostError


async def test_a_watcher_hears_events_in_their_order() -> None:
    timeline = Timeline(SystemClock())
    with timeline.watch() as next_event:
        timeline.tell("field", at_s=1.0)
        timeline.tell("read", request="r1", nothing=None)
        first, second = await next_event(), await next_event()
    assert (first["event"], first["at_s"]) == ("field", 1.0)
    assert (second["event"], second["request"]) == ("read", "r1")
    assert "nothing" not in second


async def test_a_watcher_that_falls_behind_is_let_go_and_others_are_not() -> None:
    timeline = Timeline(SystemClock())
    with timeline.watch() as slow, timeline.watch() as quick:
        for number in range(WATCHER_BACKLOG * 2):
            timeline.tell("tick", number=number)
            assert (await quick())["number"] == number
        for _ in range(WATCHER_BACKLOG - 1):
            await slow()
        with pytest.raises(WatcherLostError):
            await slow()


async def test_nobody_watches_after_leaving() -> None:
    timeline = Timeline(SystemClock())
    with timeline.watch() as next_event:
        pass
    timeline.tell("late")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(next_event(), 0.01)


def test_stages_are_counted_from_the_cards_first_sign() -> None:
    tap = Tap("tap_1", 0, 10.0)
    for number, stage in enumerate(STAGES):
        tap.reach(stage, 10.0 + number / 1000)
    tap.reach("request_sent", 99.0)  # the second post of the same request
    assert tap.stages_ms == {stage: number for number, stage in enumerate(STAGES)}

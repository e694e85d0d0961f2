"""How long a customer waits: from the card on the reader to the verdict on the panel.

The whole stack as real processes; only the copper is simulated, without a modelled radio time. Time
runs from the simulated reader's own `card_put` to the moment when the last light and the display
have been driven with the verdict. Cards come at random moments, so the reader's polling counts.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from dataclasses import dataclass
from typing import Any, Final

from taprail_hwsim.event_log import Event
from taprail_hwsim.load import percentile
from taprail_hwsim.stack import Stack, StackOptions
from taprail_hwsim.world import REGULARS
from tests.bench.scenario import Bench, BenchError, Results

TAPS: Final = 200
_WARM_UP: Final = 5
_AMOUNT: Final = "1.00"
_LATEST_PUT_S: Final = 0.25


@dataclass(frozen=True)
class TapTimes:
    """Milliseconds of one approved tap; `read` and `request` are parts of `verdict`."""

    sensed_ms: float
    read_ms: float
    request_ms: float
    verdict_ms: float


async def measure(bench: Bench) -> Results:
    """`tap.*`."""
    async with Stack(StackOptions(bench.sub("stack"))) as stack:
        counter = _Counter(stack)
        times = []
        for number in range(_WARM_UP + TAPS):
            if number % 20 == 0:
                bench.say(f"tap {number} of {_WARM_UP + TAPS}")
            times.append(await counter.tap(REGULARS[number % len(REGULARS)]))
        times = times[_WARM_UP:]
    verdicts_ms = [tap.verdict_ms for tap in times]
    return {
        "tap.verdict_p50_ms": statistics.median(verdicts_ms),
        "tap.verdict_p99_ms": percentile(verdicts_ms, 99),
        "tap.sensed_p50_ms": statistics.median(tap.sensed_ms for tap in times),
        "tap.read_p50_ms": statistics.median(tap.read_ms for tap in times),
        "tap.request_p50_ms": statistics.median(tap.request_ms for tap in times),
    }


class _Counter:
    """A hand with a stop-watch."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._put_at_s = 0.0
        self._random = random.Random(0)
        stack.reader.on_event = self._on_event

    async def tap(self, card: str) -> TapTimes:
        """Put a card, wait for green, lift it."""
        log = self._stack.log
        await self._stack.arm(_AMOUNT)
        mark = log.position
        await asyncio.sleep(self._random.uniform(0, _LATEST_PUT_S))
        verdict = await self._stack.tap(card, lift=False)
        if verdict.get("outcome") != "approved":
            raise BenchError(f"a tap was not approved: {verdict.name} {verdict.fields}")
        shown = await log.wait_for("shown", since=mark, where=_is_green)
        await self._stack.lift(mark)
        stages = {event.name: event.at_s for event in reversed(log.events[mark:])}
        return TapTimes(
            sensed_ms=(stages["field"] - self._put_at_s) * 1000,
            read_ms=(stages["read"] - stages["field"]) * 1000,
            request_ms=(stages["verdict"] - stages["request_sent"]) * 1000,
            verdict_ms=(shown.at_s - self._put_at_s) * 1000,
        )

    def _on_event(self, name: str, at_s: float, _details: dict[str, Any]) -> None:
        if name == "card_put":
            self._put_at_s = at_s


def _is_green(event: Event) -> bool:
    return bool(event.get("phase") == "approved")

"""How long a customer waits: from the card on the reader to "lift card", and to the verdict.

The whole stack as real processes; only the copper is simulated, on both kinds of reader, without
and with a modelled radio time. Time runs from the simulated reader's own `card_put` to the first
tone of the buzzer, and to the moment when the last light and the display have been driven with the
verdict. Cards come at random moments, so the reader's polling counts.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from taprail_hwsim.event_log import Event
from taprail_hwsim.load import percentile
from taprail_hwsim.pads import Pad, pcsc_pad
from taprail_hwsim.panel.lights import BUZZER, Edge
from taprail_hwsim.pcsc import Pcscd, PcscMissingError
from taprail_hwsim.stack import Stack, StackOptions
from taprail_hwsim.world import REGULARS
from tests.bench.scenario import Bench, BenchError, Results

TAPS: Final = 200
OTHER_TAPS: Final = 100
"""On each of the other scenes; the slowest two then are beyond the 99th percentile's place."""
RF_DELAY_MS: Final = 8.0
"""One exchange on the air: some 60 bytes both ways at 106 kbit/s (ISO/IEC 14443-3, clause 6.2) are
5 ms, and a chip that computes a MAC takes some more."""
_WARM_UP: Final = 5
_AMOUNT: Final = "1.00"
_LATEST_PUT_S: Final = 0.25


@dataclass(frozen=True)
class TapTimes:
    """Milliseconds of one approved tap; `read` and `request` are parts of `verdict`."""

    sensed_ms: float
    read_ms: float
    lift_ms: float
    request_ms: float
    verdict_ms: float


async def measure(bench: Bench) -> Results:
    """`tap.*`."""
    results = await _scene(bench, "tap", TAPS, StackOptions(bench.sub("pn532")))
    rf = StackOptions(bench.sub("pn532-rf"), rf_delay_ms=RF_DELAY_MS)
    results |= await _scene(bench, "tap.rf", OTHER_TAPS, rf)
    try:
        for name, delay_ms in (("tap.pcsc", 0.0), ("tap.pcsc_rf", RF_DELAY_MS)):
            folder = bench.sub(name.replace(".", "-"))
            with _pcsc(folder, delay_ms) as pad:
                results |= await _scene(bench, name, OTHER_TAPS, StackOptions(folder, pad=pad))
    except PcscMissingError as exc:
        bench.say(f"without PC/SC: {exc}")
    return results


@contextmanager
def _pcsc(folder: Path, rf_delay_ms: float) -> Iterator[Pad]:
    with Pcscd(folder / "pcscd") as daemon, pcsc_pad(daemon, rf_delay_ms) as pad:
        yield pad


async def _scene(bench: Bench, name: str, taps: int, options: StackOptions) -> Results:
    async with Stack(options) as stack:
        counter = Counter(stack)
        times = []
        for number in range(_WARM_UP + taps):
            if number % 20 == 0:
                bench.say(f"{name}: tap {number} of {_WARM_UP + taps}")
            times.append(await counter.tap(REGULARS[number % len(REGULARS)]))
    return _figures(name, times[_WARM_UP:])


def _figures(name: str, times: list[TapTimes]) -> Results:
    def of(field: str) -> list[float]:
        return [getattr(tap, field) for tap in times]

    medians = {
        f"{name}.{part}_p50_ms": statistics.median(of(f"{part}_ms"))
        for part in ("sensed", "read", "request")
    }
    tails: dict[str, Callable[[list[float]], float]] = {
        "p50": statistics.median,
        **{f"p{share}": partial(percentile, percent=share) for share in (95, 99)},
    }
    return {
        f"{name}.{part}_{tail}_ms": figure(of(f"{part}_ms"))
        for part in ("verdict", "lift")
        for tail, figure in tails.items()
    } | medians


class Counter:
    """A hand with a stop-watch, and an ear."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._put_at_s = 0.0
        self._heard_at_s = 0.0
        self._random = random.Random(0)
        stack.reader.on_event = self._on_event
        stack.panel.on_edge = self._on_edge

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
            lift_ms=(self._heard_at_s - self._put_at_s) * 1000,
            request_ms=(stages["verdict"] - stages["request_sent"]) * 1000,
            verdict_ms=(shown.at_s - self._put_at_s) * 1000,
        )

    def _on_event(self, name: str, at_s: float, _details: dict[str, Any]) -> None:
        if name == "card_put":
            self._put_at_s, self._heard_at_s = at_s, 0.0

    def _on_edge(self, name: str, edge: Edge) -> None:
        """The first tone after a card has come."""
        if name == BUZZER and edge.duty > 0 and self._heard_at_s == 0.0:
            self._heard_at_s = edge.at_s


def _is_green(event: Event) -> bool:
    return bool(event.get("phase") == "approved")

"""What a technician at the console costs the customers: taps beside console traffic, and without.

The whole stack as for `tap`, in one run: blocks of taps without traffic and with it take turns, so
that what else the machine does falls on both. The traffic comes from a process of its own, as a
laptop's would: one console on the serial line and one at the socket ask one question after the
other, the self-test and the bundle among them, and a third never reads its answers. A fair run has
to answer some questions for each tap, or there was nothing to compare.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from taprail_hwsim.load import percentile
from taprail_hwsim.stack import Stack, StackOptions
from taprail_hwsim.world import REGULARS
from tests.bench.scenario import Bench, BenchError, Results
from tests.bench.tap import Counter

TAPS: Final = 200
"""With traffic, and as many without."""
_BLOCK: Final = 20
_WARM_UP: Final = 5
_LEAST_ANSWERS_PER_TAP: Final = 1.0


async def measure(bench: Bench) -> Results:
    """`console.*`."""
    async with Stack(StackOptions(bench.sub("stack"))) as stack, _traffic(stack) as traffic:
        counter = Counter(stack)
        for number in range(_WARM_UP):
            await counter.tap(REGULARS[number % len(REGULARS)])
        times: dict[bool, list[float]] = {False: [], True: []}
        for block in range(2 * TAPS // _BLOCK):
            is_busy = block % 2 == 1
            bench.say(f"taps {'beside a console' if is_busy else 'alone'}, block {block + 1}")
            if is_busy:
                await traffic.go()
            for number in range(_BLOCK):
                tap = await counter.tap(REGULARS[number % len(REGULARS)])
                times[is_busy].append(tap.verdict_ms)
            if is_busy:
                await traffic.stop()
    if traffic.answers < _LEAST_ANSWERS_PER_TAP * TAPS:
        raise BenchError(f"the console answered {traffic.answers} questions only")
    alone, busy = times[False], times[True]
    return {
        "console.tap_p99_ms": percentile(busy, 99),
        "console.tap_alone_p99_ms": percentile(alone, 99),
        "console.tap_p99_ratio": percentile(busy, 99) / percentile(alone, 99),
        "console.tap_p50_ratio": statistics.median(busy) / statistics.median(alone),
        "console.answers_per_tap": traffic.answers / TAPS,
    }


class _Traffic:
    """The other process: told to go and to stop, it tells how many answers it has had."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.answers = 0

    async def go(self) -> None:
        await self._say("go")

    async def stop(self) -> None:
        self.answers += (await self._say("stop"))["answers"]

    async def _say(self, word: str) -> dict[str, int]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise BenchError("the traffic has no pipes")
        stdin.write(f"{word}\n".encode())
        await stdin.drain()
        line = await stdout.readline()
        if not line:
            raise BenchError("the console's traffic has ended")
        answer: dict[str, int] = json.loads(line)
        return answer


@asynccontextmanager
async def _traffic(stack: Stack) -> AsyncIterator[_Traffic]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.console_traffic"),
        *(str(stack.console_path), str(stack.control_socket.with_name("console.sock"))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield _Traffic(process)
    finally:
        process.kill()
        await process.wait()

"""How fast a gateway accepts: durable, signed, with full authorization, over HTTP.

One gateway process on a SQLite file with a real chain behind it; the load is a process of its own.
First its wallet is empty, so settlement only waits: what is measured is accepting. Then it is
filled, and settlement takes its share of the same process. The peer is what the same client gets
from aiohttp with nothing to do: the ceiling of any aiohttp server here. What a decision costs
without HTTP and commit is measured in `decisions`.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from pathlib import Path
from typing import Final

from taprail_hwsim.load import Plan, apply_load
from taprail_hwsim.process import Program
from taprail_hwsim.stack import LANE_FUNDS_WEI
from tests.bench import first_answer
from tests.bench.decisions import measure_decisions
from tests.bench.market import Market, open_market
from tests.bench.scenario import Bench, CpuMeter, Results

CARDS: Final = 2_000
CONNECTIONS: Final = 64
_WARM_UP: Final = 1_000
_CLOSED: Final = 5_000
_RUNS: Final = 3
_RATE_PER_S: Final = 1_000
_OPEN: Final = 10_000
_HELLO: Final = b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"
_HELLOS: Final = 100_000


async def measure(bench: Bench) -> Results:
    """`accept.*`, `api.first_answer_*` and `peer.aiohttp_hello_per_s`."""
    bench.say("an aiohttp server that only says hello")
    results = {"peer.aiohttp_hello_per_s": await _hello_per_s(bench.folder)}
    results |= await asyncio.to_thread(measure_decisions, bench, bench.sub("decisions"))
    bench.say(f"a gateway with {CARDS:,} cards")
    async with open_market(bench.sub("market"), cards=CARDS) as market:
        chain, lane = market.stack.chain, market.stack.world.lane
        chain.fund(lane, 0)
        await market.pay(_WARM_UP, connections=CONNECTIONS)
        results |= await _closed_loop(bench, market)
        bench.say(f"{_RATE_PER_S:,} payments/s offered, {_OPEN // _RATE_PER_S} s long")
        report = await market.pay(_OPEN, connections=CONNECTIONS, rate_per_s=_RATE_PER_S)
        results |= {"accept.p50_ms": report.p50_ms, "accept.p99_ms": report.p99_ms}
        results |= await first_answer.measure(bench, market)
        bench.say(f"{_CLOSED:,} payments while earlier ones are settled")
        chain.fund(lane, LANE_FUNDS_WEI)
        results["accept.while_settling_per_s"] = await _while_settling_per_s(market)
    return results


async def _closed_loop(bench: Bench, market: Market) -> Results:
    rates = []
    meter = CpuMeter(market.stack.gateway.pid)
    for run in range(_RUNS):
        bench.say(f"{_CLOSED:,} payments over {CONNECTIONS} connections, run {run + 1} of {_RUNS}")
        rates.append((await market.pay(_CLOSED, connections=CONNECTIONS)).per_s)
    return {
        "accept.per_s": statistics.median(rates),
        "accept.cpu_us": meter.used_s / (_CLOSED * _RUNS) * 1e6,
    }


async def _while_settling_per_s(market: Market) -> float:
    """A backlog is there from the runs before, so settlement has work all the time."""
    await market.first_completed()
    return (await market.pay(_CLOSED, connections=CONNECTIONS)).per_s


async def _hello_per_s(folder: Path) -> float:
    server = Program("hello", [sys.executable, "-m", "tests.bench.hello"], folder / "hello.log")
    ready = await server.start()
    try:
        plan = Plan(int(ready["port"]), CONNECTIONS, [_HELLO] * _HELLOS)
        return (await apply_load(plan)).per_s
    finally:
        await server.kill()

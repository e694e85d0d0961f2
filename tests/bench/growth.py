"""How the cost of a step grows with what has been, and with what is under way.

Six shops, each with a ledger and a node of its own: three that look back on so many payments, three
that have so many in flight. Nodes mine when they are told to, and the loops are turned by hand: a
round sells, sends, looks at the chain, mines a block and looks again. The shops take their rounds
in turn, so that whatever else this machine does meets all of them alike; of the times of one kind
the median counts.

Each round of a shop is the same work. Without anything in flight a block takes all that was just
sent; with much in flight it is so small that it takes a few transactions, and as many payments are
sold for the next.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, func, select

from taprail_common.clock import SystemClock
from taprail_gateway.ledger import queries, schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.engine import Settlement
from taprail_hwsim.anvil import AnvilOptions
from taprail_hwsim.dev_chain import DevChain
from tests.bench.history import live_through, mine_past
from tests.bench.scenario import Bench, BenchError, Results
from tests.bench.stock import sell_in_bulk
from tests.support.settle_shop import Shop, open_shop, still_open

ROWS: Final = (1_000, 10_000, 100_000)
IN_FLIGHT: Final = (100, 1_000, 10_000)
_ROUNDS: Final = 21
_WARM_UP: Final = 3
_CARDS: Final = 100
_AT_ONCE: Final = 50
"""Payments of a round where nothing else is in flight: one full transaction."""
_NEVER_S: Final = 86_400.0
"""Between two blocks that a node makes by itself."""
_SMALL_BLOCK_GAS: Final = 4_200_000
"""Takes three transactions of 25 payments, the most that settlement puts into one for such blocks:
fewer than the fewest that are in flight."""
_SMALL_BLOCK: Final = {"payments_per_transaction": 25, "max_fee_cap_gwei": 1_000_000}
_BASE_FEE_WEI: Final = 10**9
_RICH_WEI: Final = 10**24
"""Ten thousand in flight are hundreds of small blocks: their fees outlive the rises of as many."""

T = TypeVar("T")


async def measure(bench: Bench) -> Results:
    """`growth.*`."""
    async with AsyncExitStack() as exit_stack:
        stands = []
        for rows in ROWS:
            bench.say(f"a shop with {rows:,} completed payments")
            stands.append(await exit_stack.enter_async_context(_with_past(bench, rows)))
        for payments in IN_FLIGHT:
            bench.say(f"a shop with {payments:,} payments in flight")
            stands.append(await exit_stack.enter_async_context(_with_in_flight(bench, payments)))
        await _take_turns(bench, stands)
        bench.say("holding the ledgers against their chains")
        for stand in stands:
            await asyncio.to_thread(stand.prove)
        return figures({stand.name: stand.watch for stand in stands})


async def _take_turns(bench: Bench, stands: list[_Stand]) -> None:
    for number in range(_WARM_UP + _ROUNDS):
        bench.say(f"round {number + 1} of {_WARM_UP + _ROUNDS}")
        if number == _WARM_UP:
            for stand in stands:
                stand.watch.reset()
        # Each comes first now and then: what follows a large shop may feel its wake.
        first = number % len(stands)
        for stand in stands[first:] + stands[:first]:
            await stand.round()


@dataclass
class Stopwatch:
    """Milliseconds of steps, by kind."""

    _times_ms: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def time(self, kind: str, step: Awaitable[T]) -> T:
        """Take a step and note how long it lasted."""
        began_s = time.perf_counter()
        result = await step
        self.note(kind, (time.perf_counter() - began_s) * 1000)
        return result

    def note(self, kind: str, ms: float) -> None:
        """One more time of this kind."""
        self._times_ms[kind].append(ms)

    def ms(self, kind: str) -> float:
        """The median of a kind."""
        return statistics.median(self._times_ms[kind])

    def reset(self) -> None:
        """Forget what was the warm-up."""
        self._times_ms.clear()


@dataclass
class _Stand:
    """A shop that takes part."""

    name: str
    shop: Shop
    settlement: Settlement
    in_flight: int
    """Before each block; as much as the block took is sold after it."""
    past: int = 0
    watch: Stopwatch = field(default_factory=Stopwatch)

    async def round(self) -> None:
        """Sell, send, look at a chain that has not moved, mine, look."""
        await sell_in_bulk(self.shop, self.in_flight - self._open())
        tick = await self.watch.time("send", self.settlement.sender.tick())
        while tick.may_be_more and tick.obstacle is None:
            tick = await self.settlement.sender.tick()
        if tick.obstacle is not None:
            raise BenchError(f"{self.name}: nothing could be sent: {tick.obstacle}")
        # A full pass over a head that is known: due again when an interval has gone by.
        self.shop.clock.ahead_ms += self.shop.settings.confirmation_interval_ms
        await self.watch.time("idle", self.settlement.confirmer.tick())
        self.shop.chain.set_next_block_base_fee(_BASE_FEE_WEI)
        self.shop.chain.mine()
        await self.watch.time("confirm", self.settlement.confirmer.tick())
        if self._open() == self.in_flight:
            raise BenchError(f"{self.name}: a block came, and nothing was settled")

    def prove(self) -> None:
        """Old and new alike must be what settlement leaves behind: else the times say nothing."""
        problems = self.shop.ledger.read_now(queries.check_invariants)
        done = self.shop.ledger.read_now(_completed) - self.past
        moved = len(self.shop.chain.transfers(self.shop.payee))
        if problems or done != moved:
            raise BenchError(f"{self.name}: {done:,} completed, {moved:,} moved, {problems[:3]}")

    def _open(self) -> int:
        return sum(still_open(self.shop).values())


def figures(watches: Mapping[str, Stopwatch]) -> Results:
    """The medians of all shops, and how the largest stand to the smallest."""
    results: Results = {}
    for name, watch in watches.items():
        results[f"growth.send_tick_ms_{name}"] = watch.ms("send")
        results[f"growth.confirm_tick_ms_{name}"] = watch.ms("confirm")
    for payments in IN_FLIGHT:
        name = _in_flight(payments)
        results[f"growth.idle_tick_ms_{name}"] = watches[name].ms("idle")
    short, long = watches[_rows(ROWS[0])], watches[_rows(ROWS[-1])]
    few, many = watches[_in_flight(IN_FLIGHT[0])], watches[_in_flight(IN_FLIGHT[-1])]
    return {
        **results,
        "growth.tick_ratio": _both(long) / _both(short),
        "growth.tick_ratio_in_flight": _both(many) / _both(few),
        "growth.confirm_tick_ratio_in_flight": many.ms("idle") / few.ms("idle"),
    }


def _both(watch: Stopwatch) -> float:
    return watch.ms("send") + watch.ms("confirm")


def _rows(payments: int) -> str:
    return f"rows_{payments}"


def _in_flight(payments: int) -> str:
    return f"in_flight_{payments}"


# --- the shops ------------------------------------------------------------------------------------


@asynccontextmanager
async def _with_past(bench: Bench, rows: int) -> AsyncIterator[_Stand]:
    name = _rows(rows)
    async with _shop(bench.sub(name), past=rows) as shop:
        await live_through(shop, rows)
        yield _Stand(name, shop, await _settlement(shop), _AT_ONCE, past=rows)


@asynccontextmanager
async def _with_in_flight(bench: Bench, payments: int) -> AsyncIterator[_Stand]:
    name = _in_flight(payments)
    async with _shop(bench.sub(name), **_SMALL_BLOCK) as shop:
        stand = _Stand(name, shop, await _settlement(shop), payments)
        shop.chain.node.call("evm_setBlockGasLimit", hex(_SMALL_BLOCK_GAS))
        await stand.round()
        yield stand


@asynccontextmanager
async def _shop(folder: Path, *, past: int = 0, **settings: Any) -> AsyncIterator[Shop]:
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}", clock=SystemClock(), migrate=True)
    await ledger.start()
    try:
        async with DevChain(AnvilOptions(block_time_s=_NEVER_S)) as chain:
            chain.deploy_token()
            mine_past(chain, past)
            keys = folder / "master.key"
            async with open_shop(chain, ledger, keys, cards=_CARDS, **settings) as shop:
                chain.fund(shop.lane, _RICH_WEI)
                yield shop
    finally:
        await ledger.close()


async def _settlement(shop: Shop) -> Settlement:
    """Not started: its wheels are turned by hand."""
    settlement = await shop.settlement()
    await settlement.calibrate()
    return settlement


def _completed(connection: Connection) -> int:
    state = schema.payments.c.state
    return int(connection.scalar(select(func.count()).where(state == "completed")) or 0)

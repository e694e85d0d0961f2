"""How fast accepted payments become final on a node that makes a block each second.

First the journey of 200 payments through a gateway process, from HTTP to the chain. Then settlement
alone, in this process, on a ledger that is filled beforehand: real ledger, keys, chain and
signatures, no HTTP beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, func, select

from taprail_common.clock import SystemClock
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.queries import totals_by_merchant
from taprail_gateway.settle.engine import Settlement
from taprail_hwsim.anvil import AnvilOptions
from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.world import MERCHANT_ACCOUNT, MERCHANT_ID
from tests.bench.market import Market, open_market
from tests.bench.scenario import Bench, BenchError, Results
from tests.support.settle_shop import Shop, open_shop

_JOURNEY: Final = 200
_PENDING: Final = 1_000
_BURST_S: Final = 20
_BURST: Final = 20_000
_LEFT: Final = 2_000
"""The measurement ends before so few are left: there must always be full batches to send."""
_CARDS: Final = 50
_SOLD_AT_ONCE: Final = 500
_UNITS: Final = 10
_LONGEST_S: Final = 60.0


async def measure(bench: Bench) -> Results:
    """`settle.*`."""
    bench.say(f"{_JOURNEY} payments from HTTP to the chain")
    async with open_market(bench.sub("market"), cards=_JOURNEY) as market:
        results = await _journey(market)
    bench.say(f"{_PENDING:,} pending payments until all are sent")
    async with _settling(bench.sub("sent")) as (shop, settlement):
        results |= await _until_sent(shop, settlement)
    bench.say(f"settling for {_BURST_S} s without a pause; selling first")
    async with _settling(bench.sub("burst")) as (shop, settlement):
        results |= await _burst(bench, shop, settlement)
    return results


# --- a gateway process ----------------------------------------------------------------------------


async def _journey(market: Market) -> Results:
    """From the first acceptance to the last completion, by the ledger's stamps and by blocks."""
    ledger = market.ledger()
    try:
        async with BlockWatch(market.stack.chain.rpc_url) as watch:
            first_block = await watch.next_block()
            await market.pay(_JOURNEY, connections=64)
            for _ in range(round(_LONGEST_S)):
                if ledger.read_now(_completed) == _JOURNEY:
                    break
                await watch.next_block()
        _prove(market, ledger)
        seconds, last_block = ledger.read_now(_span)
    finally:
        ledger.dispose()
    return {
        "settle.completed_200_s": seconds,
        "settle.completed_200_blocks": last_block - first_block,
    }


def _completed(connection: Connection) -> int:
    state = schema.payments.c.state
    return int(connection.scalar(select(func.count()).where(state == "completed")) or 0)


def _span(connection: Connection) -> tuple[float, int]:
    """Seconds from the first acceptance to the last completion, and the block of the last."""
    column = schema.payments.c
    spent_ms, block = connection.execute(
        select(
            func.max(column.completed_at_ms) - func.min(column.created_at_ms),
            func.max(column.block_number),
        )
    ).one()
    return spent_ms / 1000, block


def _prove(market: Market, ledger: Ledger) -> None:
    """Ledger = chain, or the figures are worth nothing."""
    moved = market.stack.chain.transfers(to=MERCHANT_ACCOUNT)
    units = sum(transfer.amount_units for transfer in moved)
    if len(moved) != _JOURNEY or ledger.read_now(totals_by_merchant)[MERCHANT_ID] != units:
        raise BenchError(f"ledger and chain differ: {len(moved)} of {_JOURNEY} transfers found")


# --- settlement alone -----------------------------------------------------------------------------


@asynccontextmanager
async def _settling(folder: Path) -> AsyncIterator[tuple[Shop, Settlement]]:
    """A shop and a settlement that has not been started."""
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}", clock=SystemClock(), migrate=True)
    await ledger.start()
    try:
        async with DevChain(AnvilOptions(block_time_s=1.0)) as chain:
            chain.deploy_token()
            async with open_shop(chain, ledger, folder / "master.key", cards=_CARDS) as shop:
                settlement = await shop.settlement()
                try:
                    yield shop, settlement
                finally:
                    await settlement.stop()
    finally:
        await ledger.close()


async def _sell(shop: Shop, count: int) -> None:
    for start in range(0, count, _SOLD_AT_ONCE):
        card = start // _SOLD_AT_ONCE % _CARDS
        await shop.sell(min(_SOLD_AT_ONCE, count - start), amount_units=_UNITS, card=card)


async def _until_sent(shop: Shop, settlement: Settlement) -> Results:
    await _sell(shop, _PENDING)
    column = schema.payments.c
    unsent = select(func.count()).where(column.sent_at_ms.is_(None))
    bell = shop.wakeups.events
    began_s = time.monotonic()
    await settlement.start()
    async with asyncio.timeout(_LONGEST_S):
        while await shop.ledger.read(lambda connection: connection.scalar(unsent)):
            await bell.wait()
            bell.clear()
    return {"settle.sent_1000_s": time.monotonic() - began_s}


@dataclass(frozen=True)
class _Mark:
    """How far settlement was at a moment."""

    at_s: float
    completed: int
    block: int
    rpc_calls: int


async def _burst(bench: Bench, shop: Shop, settlement: Settlement) -> Results:
    await _sell(shop, _BURST)
    bench.say(f"settling for {_BURST_S} s")
    async with BlockWatch(shop.chain.rpc_url) as watch, asyncio.timeout(_LONGEST_S):
        await settlement.start()
        first = await _next_mark(shop, watch)
        while first.completed == 0:
            first = await _next_mark(shop, watch)
        last = await _next_mark(shop, watch)
        while last.at_s - first.at_s < _BURST_S and last.completed < _BURST - _LEFT:
            last = await _next_mark(shop, watch)
    await settlement.stop()
    payments = last.completed - first.completed
    return {
        "settle.completed_per_s": payments / (last.at_s - first.at_s),
        "settle.of_gas_limit": _gas_share(shop.chain, first.block + 1, last.block),
        "settle.rpc_per_payment": (last.rpc_calls - first.rpc_calls) / payments,
    }


async def _next_mark(shop: Shop, watch: BlockWatch) -> _Mark:
    block = await watch.next_block()
    done = await shop.ledger.read(_completed)
    return _Mark(time.monotonic(), done, block, sum(chain.rpc_calls for chain in shop._open))


def _gas_share(chain: DevChain, first: int, last: int) -> float:
    """Gas used by blocks, as a part of their limit."""
    numbers = range(first, last + 1)
    blocks = chain.node.batch([("eth_getBlockByNumber", [hex(n), False]) for n in numbers])
    used = sum(int(block["gasUsed"], 16) for block in blocks)
    return used / sum(int(block["gasLimit"], 16) for block in blocks)

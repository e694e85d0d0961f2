"""How fast accepted payments become final on a node that makes a block each second.

First the journey of some payments through a gateway process. Then settlement alone, in this
process, on a ledger that is filled beforehand: real ledger, keys, chain and signatures, no HTTP
beside it. What it says of itself is held against the chain's own transfers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, func, select

from taprail_common.clock import SystemClock
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.engine import Settlement
from taprail_hwsim.anvil import AnvilOptions
from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.dev_chain import DevChain
from tests.bench import journey
from tests.bench.scenario import Bench, BenchError, Results
from tests.bench.stock import sell_in_bulk
from tests.support.settle_shop import Shop, open_shop

_PENDING: Final = 1_000
_FEW: Final = 100
_CARDS: Final = 500
"""Ten times what a transaction holds: nearly all of its payers are different ones."""
_LEFT: Final = 2_000
"""A measurement ends before so few are left: there must always be full batches to send."""
_LONGEST_S: Final = 60.0
_RICH_WEI: Final = 10**24
_HIGHEST_FEE_CAP_GWEI: Final = 1_000_000
"""A full block raises the base fee by an eighth (EIP-1559), sixty of them a thousandfold: beyond
the cap and the purse of any sane lane, so this one gets the highest there is."""


@dataclass(frozen=True)
class _Burst:
    """Settling without a pause for so long; `stock` outlasts what blocks of 30 M gas can take."""

    seconds: float
    stock: int
    settings: dict[str, Any]


_SUSTAINED: Final = _Burst(60.0, 50_000, {})
_ALONE: Final = _Burst(15.0, 11_000, {"payments_per_transaction": 1})


async def measure(bench: Bench) -> Results:
    """`settle.*`."""
    results = await journey.measure(bench)
    bench.say(f"{_FEW:,} pending payments until all are completed")
    async with settling(bench.sub("few")) as (shop, settlement):
        results |= await _until_completed(shop, settlement)
    bench.say(f"{_PENDING:,} pending payments until all are sent")
    async with settling(bench.sub("sent")) as (shop, settlement):
        results |= await _until_sent(shop, settlement)
    results |= await _sustained(bench)
    results |= await _alone(bench)
    return results


@asynccontextmanager
async def settling(folder: Path, **settings: Any) -> AsyncIterator[tuple[Shop, Settlement]]:
    """A shop and a settlement that has not been started."""
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}", clock=SystemClock(), migrate=True)
    await ledger.start()
    try:
        async with DevChain(AnvilOptions(block_time_s=1.0)) as chain:
            chain.deploy_token()
            keys = folder / "master.key"
            async with open_shop(chain, ledger, keys, cards=_CARDS, **settings) as shop:
                settlement = await shop.settlement()
                try:
                    yield shop, settlement
                finally:
                    await settlement.stop()
    finally:
        await ledger.close()


# --- a given number of payments -------------------------------------------------------------------


async def _until_completed(shop: Shop, settlement: Settlement) -> Results:
    """Blocks counted from the last one before the start: 1 would be the very next."""
    await sell_in_bulk(shop, _FEW)
    async with BlockWatch(shop.chain.rpc_url) as watch:
        began_block = await watch.next_block()
        await settlement.start()
        await _until_none(shop, schema.payments.c.completed_at_ms.is_(None))
        done_block = max(watch.arrived_s)
    await _prove(shop)
    return {"settle.completed_100_blocks": done_block - began_block}


async def _until_sent(shop: Shop, settlement: Settlement) -> Results:
    await sell_in_bulk(shop, _PENDING)
    began_s = time.monotonic()
    await settlement.start()
    await _until_none(shop, schema.payments.c.sent_at_ms.is_(None))
    return {"settle.sent_1000_s": time.monotonic() - began_s}


async def _until_none(shop: Shop, condition: Any) -> None:
    """Wait until no payment is left for which this holds."""
    left = select(func.count()).select_from(schema.payments).where(condition)
    events = shop.wakeups.events.listen()
    async with asyncio.timeout(_LONGEST_S):
        while await shop.ledger.read(lambda connection: connection.scalar(left)):
            await events.wait()


# --- without a pause ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Mark:
    """How far settlement was at a moment."""

    at_s: float
    completed: int
    block: int
    rpc_calls: int


async def _sustained(bench: Bench) -> Results:
    async with _burst(bench, "sustained", _SUSTAINED) as (shop, first, last):
        return {
            "settle.completed_per_s": _rate(first, last),
            "settle.gas_per_payment": await asyncio.to_thread(_gas_per_payment, shop),
            "settle.of_gas_limit": _gas_share(shop.chain, first.block + 1, last.block),
            "settle.rpc_per_payment": _calls_each(first, last),
        }


async def _alone(bench: Bench) -> Results:
    async with _burst(bench, "alone", _ALONE) as (_shop, first, last):
        return {
            "settle.completed_alone_per_s": _rate(first, last),
            "settle.rpc_per_payment_alone": _calls_each(first, last),
        }


def _rate(first: _Mark, last: _Mark) -> float:
    return (last.completed - first.completed) / (last.at_s - first.at_s)


def _calls_each(first: _Mark, last: _Mark) -> float:
    return (last.rpc_calls - first.rpc_calls) / (last.completed - first.completed)


@asynccontextmanager
async def _burst(
    bench: Bench, name: str, burst: _Burst
) -> AsyncIterator[tuple[Shop, _Mark, _Mark]]:
    """Settle under full load, from the first completion on; the marks of its begin and its end."""
    settings = {"max_fee_cap_gwei": _HIGHEST_FEE_CAP_GWEI, **burst.settings}
    async with settling(bench.sub(name), **settings) as (shop, settlement):
        shop.chain.fund(shop.lane, _RICH_WEI)
        await sell_in_bulk(
            shop, burst.stock, lambda sold: bench.say(f"{name}: {sold:,} payments sold")
        )
        bench.say(f"{name}: settling for {burst.seconds:.0f} s")
        async with BlockWatch(shop.chain.rpc_url) as watch:
            await settlement.start()
            first, last = await _watch_burst(shop, watch, burst)
        await settlement.stop()
        await _prove(shop)
        yield shop, first, last


async def _watch_burst(shop: Shop, watch: BlockWatch, burst: _Burst) -> tuple[_Mark, _Mark]:
    async with asyncio.timeout(burst.seconds + _LONGEST_S):
        first = await _next_mark(shop, watch)
        while first.completed == 0:
            first = await _next_mark(shop, watch)
        last = await _next_mark(shop, watch)
        while last.at_s - first.at_s < burst.seconds and last.completed < burst.stock - _LEFT:
            last = await _next_mark(shop, watch)
    if last.at_s - first.at_s < burst.seconds:
        raise BenchError(f"{burst.stock:,} payments lasted {last.at_s - first.at_s:.0f} s only")
    return first, last


async def _next_mark(shop: Shop, watch: BlockWatch) -> _Mark:
    block = await watch.next_block()
    done = await shop.ledger.read(_completed)
    return _Mark(time.monotonic(), done, block, sum(chain.rpc_calls for chain in shop._open))


def _completed(connection: Connection) -> int:
    state = schema.payments.c.state
    return int(connection.scalar(select(func.count()).where(state == "completed")) or 0)


def _gas_share(chain: DevChain, first: int, last: int) -> float:
    """Gas used by blocks, as a part of their limit."""
    numbers = range(first, last + 1)
    blocks = chain.node.batch([("eth_getBlockByNumber", [hex(n), False]) for n in numbers])
    used = sum(int(block["gasUsed"], 16) for block in blocks)
    return used / sum(int(block["gasLimit"], 16) for block in blocks)


def _gas_per_payment(shop: Shop) -> float:
    """Of all that was mined: what a payment costs decides how many a block can hold."""
    transfers = shop.chain.transfers(shop.payee)
    numbers = sorted({each.block_number for each in transfers})
    blocks = shop.chain.node.batch([("eth_getBlockByNumber", [hex(n), False]) for n in numbers])
    return sum(int(block["gasUsed"], 16) for block in blocks) / len(transfers)


async def _prove(shop: Shop) -> None:
    """Each completed payment moved money, once: else the figures are worth nothing."""
    transfers = await asyncio.to_thread(shop.chain.transfers, shop.payee)
    moved = [transfer.nonce for transfer in transfers if transfer.nonce is not None]
    payments = schema.payments.c
    done = select(payments.id).where(payments.state == "completed")
    ids = await shop.ledger.read(lambda connection: set(connection.scalars(done)))
    if len(moved) != len(set(moved)) or not ids <= set(moved):
        raise BenchError(
            f"ledger and chain differ: {len(ids):,} payments completed,"
            f" {len(moved):,} transfers of {len(set(moved)):,} payments"
        )

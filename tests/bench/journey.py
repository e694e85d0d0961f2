"""The journey of 200 payments through a gateway process, from HTTP to the chain."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, func, select

from taprail_gateway.ledger import schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.queries import totals_by_merchant
from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.world import MERCHANT_ACCOUNT, MERCHANT_ID
from tests.bench.market import Market, open_market
from tests.bench.scenario import Bench, BenchError, Results

_JOURNEY: Final = 200
_LONGEST_BLOCKS: Final = 60


async def measure(bench: Bench) -> Results:
    """`settle.completed_200_*`."""
    bench.say(f"{_JOURNEY} payments from HTTP to the chain")
    async with open_market(bench.sub("market"), cards=_JOURNEY) as market:
        return await _journey(market)


async def _journey(market: Market) -> Results:
    """From the first acceptance to the last completion, by the ledger's stamps and by blocks."""
    ledger = market.ledger()
    try:
        async with BlockWatch(market.stack.chain.rpc_url) as watch:
            first_block = await watch.next_block()
            await market.pay(_JOURNEY, connections=64)
            for _ in range(_LONGEST_BLOCKS):
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

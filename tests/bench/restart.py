"""How soon a gateway that was killed sends again, with as much in flight as it lets there be.

A real process and a node that mines nothing: payments come until the lane is full and some wait,
once in full batches and once, which is the worst there is, in a transaction each. Then `kill -9`,
and an operator lets the lane have more under way, or there would be nothing new to send before the
next block. The time runs from the start of the new process, its imports included, until the node
announces a transaction that it did not have; nothing is asked of it meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from sqlalchemy import Connection, func, select

from taprail_gateway.ledger import schema
from taprail_gateway.settle.settings import SettlementSettings
from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.stack_parts import taprail_command
from taprail_hwsim.world import MERCHANT_ACCOUNT
from tests.bench.market import Market, open_market
from tests.bench.scenario import Bench, BenchError, Results

_CAP: Final = "max_in_flight_payments"
IN_FLIGHT: Final = int(SettlementSettings.model_fields[_CAP].default)
WAITING: Final = 50
_CARDS: Final = 500
_CONNECTIONS: Final = 64
_SUBSCRIBE: Final = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "eth_subscribe",
    "params": ["newPendingTransactions"],
}
_LOOK_S: Final = 0.1
_LONGEST_S: Final = 180.0
_BLOCKS: Final = 50
"""Of 30 M gas, twice what payments need that go alone; empty ones let the base fee fall again."""


async def measure(bench: Bench) -> Results:
    """`restart.*`."""
    sending_s, ready_s = await _restart(bench, "batches")
    alone_s, _ = await _restart(bench, "alone", payments_per_transaction=1)
    return {
        "restart.sending_s": sending_s,
        "restart.sending_alone_s": alone_s,
        "restart.ready_s": ready_s,
    }


async def _restart(bench: Bench, name: str, **settlement: int) -> tuple[float, float]:
    """Seconds until the gateway sends again, and until it says that it takes payments."""
    bench.say(f"{name}: a gateway with its cards")
    async with open_market(bench.sub(name), cards=_CARDS, **settlement) as market:
        chain, gateway = market.stack.chain, market.stack.gateway
        chain.node.call("evm_setIntervalMining", 0)
        bench.say(f"{name}: {IN_FLIGHT:,} payments in flight, {WAITING} that wait")
        await market.pay(IN_FLIGHT + WAITING, connections=_CONNECTIONS)
        await _until_sent(market, IN_FLIGHT)
        await gateway.kill()
        await _operator(market, "settings", "set", _CAP, str(2 * IN_FLIGHT))
        bench.say(f"{name}: a new gateway")
        times_s = await _start_again(market)
        await _until_sent(market, IN_FLIGHT + WAITING)
        bench.say(f"{name}: all of it into blocks")
        await asyncio.to_thread(_prove, chain)
        return times_s


async def _start_again(market: Market) -> tuple[float, float]:
    async with _news(market.stack.chain.rpc_url) as news:
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            start = group.create_task(_timed_start(market))
            async with asyncio.timeout(_LONGEST_S):
                await news.receive()
            sending_s = time.monotonic() - began_s
    return sending_s, start.result()


@asynccontextmanager
async def _news(rpc_url: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A socket on which the node tells of each transaction that is new to its pool."""
    async with aiohttp.ClientSession() as session, session.ws_connect(rpc_url) as socket:
        await socket.send_json(_SUBSCRIBE)
        await socket.receive_json()
        yield socket


async def _timed_start(market: Market) -> float:
    """Start the gateway; seconds until it says that it takes payments."""
    began_s = time.monotonic()
    await market.stack.start_gateway()
    return time.monotonic() - began_s


async def _operator(market: Market, *arguments: str) -> None:
    command = taprail_command("admin", "--config", str(market.stack.gateway_config), *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    if await process.wait() != 0:
        raise BenchError(f"`{' '.join(command)}` failed")


# --- what the ledger and the node say -------------------------------------------------------------


async def _until_sent(market: Market, count: int) -> None:
    ledger = market.ledger()
    try:
        await _until(lambda: ledger.read_now(_sent) == count)
    finally:
        ledger.dispose()


def _sent(connection: Connection) -> int:
    state = schema.payments.c.state
    return int(connection.scalar(select(func.count()).where(state == "sent")) or 0)


async def _until(seen: Callable[[], bool]) -> None:
    async with asyncio.timeout(_LONGEST_S):
        while not await asyncio.to_thread(seen):  # noqa: ASYNC110 - another process rings no bell
            await asyncio.sleep(_LOOK_S)


def _prove(chain: DevChain) -> None:
    """What was in flight and what was new has moved money, each payment once."""
    chain.mine(_BLOCKS)
    moved = [transfer.nonce for transfer in chain.transfers(to=MERCHANT_ACCOUNT)]
    if not len(moved) == len(set(moved)) == IN_FLIGHT + WAITING:
        raise BenchError(f"{len(moved):,} transfers of {len(set(moved)):,} payments")

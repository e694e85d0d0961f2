"""The process ends at a durable step, as by kill -9; the next one finishes, nobody pays twice."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import update

from taprail_common.clock import SystemClock
from taprail_common.crash import EXIT_CODE
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.settings import ChainSettings
from taprail_hwsim.dev_chain import DevChain
from tests.support.eip3009 import nonce
from tests.support.settle_shop import BALANCE_UNITS, ETHER, WAIT_S, Shop, open_shop

pytestmark = pytest.mark.chain
ROOT = Path(__file__).parents[2]


async def run_child(shop: Shop, ledger_url: str, key_file: Path, crash: str = "") -> int:
    """Settle in a process of its own; its exit code."""
    chain = ChainSettings(
        rpc_urls=(shop.chain.rpc_url,),
        chain_id=shop.chain.chain_id,
        token=shop.chain.token_address,
        multicall=shop.chain.multicall_address,
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.support.settle_child", ledger_url, str(key_file)),
        *(chain.model_dump_json(), shop.settings.model_dump_json()),
        cwd=ROOT,
        env={**os.environ, "TAPRAIL_CRASH": crash},
    )
    try:
        async with asyncio.timeout(WAIT_S):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    "point",
    [
        "settle.completed",
        "ledger.before_commit@3",
        "ledger.after_commit@2",
    ],
)
async def test_a_process_that_ends_here_loses_nothing(
    chain: DevChain, ledger_url: str, tmp_path: Path, point: str
) -> None:
    key_file = tmp_path / "master.key"
    ledger = Ledger.open(ledger_url, clock=SystemClock())
    await ledger.start()
    async with open_shop(chain, ledger, key_file, payment_batch_size=4) as shop:
        payments = await shop.sell(10)
        await ledger.close()
        assert await run_child(shop, ledger_url, key_file, point) == EXIT_CODE
        assert await run_child(shop, ledger_url, key_file) == 0
        shop.ledger = Ledger.open(ledger_url, clock=SystemClock())
        assert shop.states(payments) == {"completed": 10}
        assert len(shop.transactions()) == 3
        shop.assert_books_balance()
        shop.ledger.dispose()


# --- several lanes: every step of theirs, one after the other on one ledger -----------------------


@dataclass
class Relay:
    """Runs one process after the other, each of which ends at the point that it is given."""

    shop: Shop
    ledger_url: str
    key_file: Path
    payments: list[str] = field(default_factory=list)

    async def between(self, work: Callable[[Shop], Awaitable[list[str]]]) -> None:
        """Do something while no process runs; what it sells is kept in mind."""
        self.shop.ledger = Ledger.open(self.ledger_url, clock=SystemClock())
        await self.shop.ledger.start()
        self.payments += await work(self.shop)
        await self.shop.ledger.close()

    async def ends_at(self, point: str) -> None:
        assert await run_child(self.shop, self.ledger_url, self.key_file, point) == EXIT_CODE, point

    async def finishes(self) -> None:
        assert await run_child(self.shop, self.ledger_url, self.key_file) == 0


@pytest_asyncio.fixture
async def relay(chain: DevChain, ledger_url: str, tmp_path: Path) -> AsyncIterator[Relay]:
    key_file = tmp_path / "master.key"
    ledger = Ledger.open(ledger_url, clock=SystemClock())
    await ledger.start()
    async with open_shop(chain, ledger, key_file, lanes=2, payment_batch_size=4) as shop:
        await ledger.close()
        yield Relay(shop, ledger_url, key_file)
        shop.ledger = Ledger.open(ledger_url, clock=SystemClock())
        shop.assert_books_balance()
        shop.ledger.dispose()


async def eight_payments(shop: Shop) -> list[str]:
    return await shop.sell(8)


async def test_processes_that_end_at_each_step_of_sending_lose_nothing(relay: Relay) -> None:
    for point in (
        "settle.lane_started@2",
        "settle.claimed@2",
        "settle.tried_out@2",
        "settle.bound@2",
        "settle.sending@2",
        "settle.broadcast@2",
        "settle.noted_sent@2",
    ):
        await relay.between(eight_payments)
        await relay.ends_at(point)
    await relay.finishes()
    relay.shop.ledger = Ledger.open(relay.ledger_url, clock=SystemClock())
    assert relay.shop.states(relay.payments) == {"completed": 56}
    relay.shop.ledger.dispose()


async def test_processes_that_end_at_each_step_of_a_trouble_lose_nothing(relay: Relay) -> None:
    shop = relay.shop

    async def one_that_is_refused(_shop: Shop) -> list[str]:
        all_of_it = shop.authorization(
            nonce(1), card=2, payee="0x" + "57" * 20, amount_units=BALANCE_UNITS
        )
        shop.execute(all_of_it)
        return await shop.sell(card=2)

    async def a_wish_for_another_version(_shop: Shop) -> list[str]:
        wish = update(schema.chain_transactions).values(rescue_asked_at_ms=1)
        await shop.ledger.write(lambda c: c.execute(wish).close())
        return []

    await relay.between(one_that_is_refused)
    await relay.ends_at("settle.put_off")
    shop.chain.mint(shop.account(2), 100)

    for lane in shop.lanes:
        shop.chain.fund(lane, 0)
    await relay.between(eight_payments)
    await relay.ends_at("settle.lane_paused")
    await relay.ends_at("settle.given_back")
    for lane in shop.lanes:
        shop.chain.fund(lane, ETHER)
    await relay.ends_at("settle.lane_resumed")

    shop.chain.node.call("evm_setIntervalMining", 0)
    try:
        await relay.ends_at("settle.sending")
        await relay.between(a_wish_for_another_version)
        await relay.ends_at("settle.version_stored")
    finally:
        shop.chain.node.call("evm_setIntervalMining", 1)
    await relay.finishes()
    shop.ledger = Ledger.open(relay.ledger_url, clock=SystemClock())
    assert shop.states(relay.payments) == {"completed": 9}
    shop.ledger.dispose()

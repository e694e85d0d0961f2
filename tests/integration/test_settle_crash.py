"""The process ends at a durable step, as by kill -9; the next one finishes, nobody pays twice."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from taprail_common.clock import SystemClock
from taprail_common.crash import EXIT_CODE
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.settings import ChainSettings
from taprail_hwsim.dev_chain import DevChain
from tests.support import warm
from tests.support.settle_shop import WAIT_S, Shop, open_shop

pytestmark = pytest.mark.chain


async def run_child(shop: Shop, ledger_url: str, key_file: Path, crash: str = "") -> int:
    """Settle in a process of its own; its exit code."""
    chain = ChainSettings(
        rpc_urls=(shop.chain.rpc_url,),
        chain_id=shop.chain.chain_id,
        token=shop.chain.token_address,
        multicall=shop.chain.multicall_address,
    )
    command = [
        sys.executable,
        *("-m", "tests.support.settle_child", ledger_url, str(key_file)),
        *(chain.model_dump_json(), shop.settings.model_dump_json()),
    ]
    process = await warm.spawn(command, {**os.environ, "TAPRAIL_CRASH": crash})
    try:
        async with asyncio.timeout(WAIT_S):
            await process.stdout.read()  # what it logs is not the test's
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    "point",
    [
        "settle.completed",
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


# Each point by itself is in test_crash_points; here one process after the other is ended, each
# while it mends what the one before has left.
async def test_processes_that_end_one_after_the_other_lose_nothing(
    chain: DevChain, ledger_url: str, tmp_path: Path
) -> None:
    key_file = tmp_path / "master.key"
    ledger = Ledger.open(ledger_url, clock=SystemClock())
    await ledger.start()
    async with open_shop(chain, ledger, key_file, lanes=2, payment_batch_size=4) as shop:
        await ledger.close()
        payments = []
        for point in (
            "settle.lane_started@2",
            "settle.claimed@2",
            "settle.tried_out@2",
            "settle.bound@2",
            "settle.sending@2",
            "settle.broadcast@2",
            "settle.noted_sent@2",
        ):
            shop.ledger = Ledger.open(ledger_url, clock=SystemClock())
            await shop.ledger.start()
            payments += await shop.sell(8)
            await shop.ledger.close()
            assert await run_child(shop, ledger_url, key_file, point) == EXIT_CODE, point
        assert await run_child(shop, ledger_url, key_file) == 0
        shop.ledger = Ledger.open(ledger_url, clock=SystemClock())
        assert shop.states(payments) == {"completed": len(payments)}
        shop.assert_books_balance()
        shop.ledger.dispose()

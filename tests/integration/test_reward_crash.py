"""The process ends at a step of the rewards, as by kill -9; the next one finishes, once each."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from taprail_common.clock import SystemClock
from taprail_common.crash import EXIT_CODE
from taprail_gateway.ledger.database import Ledger
from taprail_hwsim.dev_chain import DevChain
from tests.support import warm
from tests.support.reward_shop import RewardShop, open_reward_shop
from tests.support.settle_shop import WAIT_S

pytestmark = pytest.mark.chain
PAYMENTS = 6


async def run_child(rewarding: RewardShop, ledger_url: str, key_file: Path, crash: str = "") -> int:
    """Settle and reward in a process of its own; its exit code."""
    command = [
        sys.executable,
        *("-m", "tests.support.reward_child", ledger_url, str(key_file)),
        rewarding.settings.model_dump_json(),
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
        "callbacks.handled@2",
        "rewards.judged",
    ],
)
async def test_a_process_that_ends_here_rewards_each_payment_once(
    chain: DevChain, ledger_url: str, tmp_path: Path, point: str
) -> None:
    key_file = tmp_path / "master.key"
    ledger = Ledger.open(ledger_url, clock=SystemClock())
    await ledger.start()
    async with open_reward_shop(chain, ledger, key_file) as rewarding:
        shop = rewarding.shop
        payments = await shop.sell(PAYMENTS, amount_units=100)
        await ledger.close()
        assert await run_child(rewarding, ledger_url, key_file, point) == EXIT_CODE
        assert await run_child(rewarding, ledger_url, key_file) == 0
        shop.ledger = Ledger.open(ledger_url, clock=SystemClock())
        assert shop.states(payments) == {"completed": PAYMENTS}
        assert rewarding.mint_states() == {"completed": PAYMENTS}
        rewarding.assert_each_rewarded_once(payments, units=10)
        shop.assert_books_balance()
        shop.ledger.dispose()

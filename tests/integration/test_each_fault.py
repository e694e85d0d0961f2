"""Each fault alone, of the proxy between settlement and its node or of the chain: ten blocks later
all is well.

Settlement's wheels are turned by hand, so a fault of the wire meets every kind of call they make.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from taprail_common.clock import SystemClock
from taprail_gateway.ledger.database import Ledger
from taprail_hwsim.chaos.troubles import WireTrouble, catalogue
from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.rpc_proxy import FAULTS
from tests.support import shop_day
from tests.support.reward_shop import RewardShop
from tests.support.shop_day import BLOCKS_TO_SETTLE, DEEPEST_REORG, EVENTS, MET_ON, shop_of_a_day

pytestmark = pytest.mark.chain

RPC_TIMEOUT_MS = 400
"""What hangs is given up after it."""


@pytest_asyncio.fixture
async def rewarding(chain: DevChain, ledger_url: str, tmp_path: Path) -> AsyncIterator[RewardShop]:
    async with shop_of_a_day(chain, ledger_url, tmp_path / "master.key") as opened:
        opened.shop.ledger = Ledger.open(ledger_url, clock=SystemClock())
        await opened.shop.ledger.start()
        yield opened
        await opened.shop.ledger.close()


@pytest.mark.parametrize("name", FAULTS)
async def test_nothing_is_lost_doubled_or_stuck_by(rewarding: RewardShop, name: str) -> None:
    trouble = catalogue()[name](random.Random(1))
    assert isinstance(trouble, WireTrouble)
    async with shop_day.dawn(rewarding, 1, rpc_timeout_ms=RPC_TIMEOUT_MS) as day:
        await day.turn()
        rules = day.proxy.inject(trouble.rule, *trouble.beside)
        await EVENTS[MET_ON.get(name, "business")](day)
        assert rules[0].injected, "it was met"
        day.proxy.withdraw(rules)
        async with asyncio.timeout(shop_day.LIFE_S):
            await day.proxy.quiet()
        await day.turn(BLOCKS_TO_SETTLE)
        shop_day.judge(rewarding)


@pytest.mark.parametrize("event", EVENTS)
async def test_whatever_may_come_is_over_ten_blocks_later(
    rewarding: RewardShop, event: str
) -> None:
    async with shop_day.dawn(rewarding, 1) as day:
        await EVENTS[event](day)
        await day.turn(BLOCKS_TO_SETTLE)
        shop_day.judge(rewarding)


@pytest.mark.parametrize("depth", range(1, DEEPEST_REORG + 1))
async def test_what_a_reorg_has_undone_is_done_again(rewarding: RewardShop, depth: int) -> None:
    async with shop_day.dawn(rewarding, 1) as day:
        assert await shop_day.reorg_of(day, depth)
        await day.turn(BLOCKS_TO_SETTLE)
        shop_day.judge(rewarding)

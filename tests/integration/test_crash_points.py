"""The gateway ends at each of its crash points once, as by kill -9; the next finishes its work.

What is the gateway's door (`accept.*`, `push.*`) ends in the end-to-end tests, which have one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from taprail_common.clock import SystemClock
from taprail_common.crash import EXIT_CODE
from taprail_gateway.ledger.database import Ledger
from taprail_hwsim.dev_chain import DevChain
from tests.support import crash_day, shop_day
from tests.support.crash_day import LEADS_TO, POINTS, event_before, first_hit
from tests.support.reward_shop import RewardShop
from tests.support.shop_day import EVENTS, shop_of_a_day

pytestmark = pytest.mark.chain


@pytest_asyncio.fixture
async def rewarding(chain: DevChain, ledger_url: str, tmp_path: Path) -> AsyncIterator[RewardShop]:
    async with shop_of_a_day(chain, ledger_url, tmp_path / "master.key") as opened:
        yield opened


@pytest.mark.parametrize("point", POINTS)
async def test_a_gateway_that_ends_here_loses_nothing(
    rewarding: RewardShop, ledger_url: str, tmp_path: Path, point: str
) -> None:
    given = crash_day.ticket(rewarding, ledger_url, tmp_path / "master.key")
    crash = f"{point}@{first_hit(point)}"
    assert await crash_day.live(given, [event_before(point)], 1, crash) == EXIT_CODE
    rewarding.shop.ledger = Ledger.open(ledger_url, clock=SystemClock())
    await rewarding.shop.ledger.start()
    await shop_day.finish(rewarding, 2)
    assert sum(shop_day.judge(rewarding).values()) > 0
    await rewarding.shop.ledger.close()


def test_what_leads_there_is_there() -> None:
    assert set(LEADS_TO) <= set(POINTS)
    assert set(LEADS_TO.values()) < set(EVENTS)

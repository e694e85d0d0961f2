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
from taprail_hwsim.chaos.crash_points import crash_points
from taprail_hwsim.dev_chain import DevChain
from tests.support import crash_day
from tests.support.crash_day import EVENTS, shop_of_a_day
from tests.support.reward_shop import RewardShop

pytestmark = pytest.mark.chain

AT_THE_DOOR = ("accept.", "push.")
LEADS_TO = {
    "settle.put_off": "emptied_account",
    "confirm.states_read": "emptied_account",
    "confirm.judged": "cancelled",
    "confirm.fates_read": "cancelled",
    "confirm.proof_read": "emptied_account",
    "settle.lane_paused": "poor_lanes",
    "settle.lane_resumed": "poor_lanes",
    "settle.given_back": "poor_lanes",
    "confirm.standings_read": "reorg",
    "confirm.taken_back": "reorg",
    "confirm.receipts_read": "no_logs",
    "settle.version_stored": "fee_spike",
}
"""What has to happen for a point to be passed; any other is passed on a day like all days."""
HIT = {"ledger.before_commit": 12, "ledger.after_commit": 12}
"""The passing at which it ends, where the first is before there is any money."""
POINTS = [point for point in crash_points() if not point.startswith(AT_THE_DOOR)]


@pytest_asyncio.fixture
async def rewarding(chain: DevChain, ledger_url: str, tmp_path: Path) -> AsyncIterator[RewardShop]:
    async with shop_of_a_day(chain, ledger_url, tmp_path / "master.key") as opened:
        yield opened


@pytest.mark.parametrize("point", POINTS)
async def test_a_gateway_that_ends_here_loses_nothing(
    rewarding: RewardShop, ledger_url: str, tmp_path: Path, point: str
) -> None:
    given = crash_day.ticket(rewarding, ledger_url, tmp_path / "master.key")
    event = LEADS_TO.get(point, "business")
    crash = f"{point}@{HIT.get(point, 1)}"
    assert await crash_day.live(given, [event], 1, crash) == EXIT_CODE
    rewarding.shop.ledger = Ledger.open(ledger_url, clock=SystemClock())
    await rewarding.shop.ledger.start()
    await crash_day.finish(rewarding, 2)
    assert sum(crash_day.judge(rewarding).values()) > 0
    await rewarding.shop.ledger.close()


def test_what_leads_there_is_there() -> None:
    assert set(LEADS_TO) <= set(POINTS)
    assert set(LEADS_TO.values()) < set(EVENTS)

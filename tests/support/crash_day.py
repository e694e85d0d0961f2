"""A day that is lived in a process of its own, which ends at a crash point, as by kill -9.

The process is forked from a server that has everything imported, so that each death costs little
more than what is done before it. And which events lead to which crash point.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import taprail_common.crash
from taprail_common.clock import SystemClock
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import queries
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.payment_cargo import PaymentCargo
from taprail_gateway.settle.settings import SettlementSettings
from taprail_hwsim.chaos.crash_points import crash_points
from taprail_hwsim.dev_chain import DevChain
from tests.support import shop_day, warm
from tests.support.ledger_fixtures import Registry
from tests.support.reward_points import RewardPoints
from tests.support.reward_shop import RewardShop, configured
from tests.support.settle_shop import Shop
from tests.support.shop_day import EVENTS, LIFE_S, dawn

_AT_THE_DOOR: Final = ("accept.", "push.")
"""These end in the end-to-end tests, which have a door."""
LEADS_TO: Final = {
    "settle.lane_started": "another_lane",
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
CALM: Final = shop_day.calm.__name__
"""Let come before an event, it makes sure of what the event leads to."""
_STEPS: Final = {**EVENTS, CALM: shop_day.calm}
_FIRST_HIT: Final = {"ledger.before_commit": 12, "ledger.after_commit": 12}
"""Where the first passing is before there is any money."""
POINTS: Final = [point for point in crash_points() if not point.startswith(_AT_THE_DOOR)]


def event_before(point: str) -> str:
    """An event with which a crash point is passed."""
    return LEADS_TO.get(point, "business")


def first_hit(point: str) -> int:
    """The first passing that is worth anything."""
    return _FIRST_HIT.get(point, 1)


# --- the process that dies ------------------------------------------------------------------------


@dataclass(frozen=True)
class Ticket:
    """All that another process needs to open the shop."""

    ledger_url: str
    key_file: Path
    rpc_url: str
    token: str
    multicall: str
    registry: Registry
    settings: dict[str, object]
    points: str
    reward_lane: str
    sold: int
    ahead_ms: int

    @asynccontextmanager
    async def open(self) -> AsyncIterator[RewardShop]:
        chain = DevChain.attach(self.rpc_url, self.token, self.multicall)
        ledger = Ledger.open(self.ledger_url, clock=SystemClock())
        await ledger.start()
        settings = SettlementSettings.model_validate(self.settings)
        custody = Custody.load(self.key_file)
        shop = Shop(chain, ledger, custody, self.registry, _lanes(ledger), settings)
        shop.clock.ahead_ms = self.ahead_ms
        shop._sold = self.sold
        points = RewardPoints(chain, self.points, chain.accounts[0])
        try:
            yield RewardShop(shop, points, self.reward_lane, configured(shop, self.points))
        finally:
            await shop.close()
            await ledger.close()


def _lanes(ledger: Ledger) -> list[str]:
    """Those of payments."""
    lanes = ledger.read_now(queries.all_lanes)
    return [lane.address for lane in lanes if lane.purpose == PaymentCargo.purpose]


def ticket(rewarding: RewardShop, ledger_url: str, key_file: Path) -> Ticket:
    shop = rewarding.shop
    return Ticket(
        ledger_url=ledger_url,
        key_file=key_file,
        rpc_url=shop.chain.rpc_url,
        token=shop.chain.token_address,
        multicall=shop.chain.multicall_address,
        registry=shop.registry,
        settings=shop.settings.model_dump(),
        points=rewarding.points.address,
        reward_lane=rewarding.lane,
        sold=shop._sold,
        ahead_ms=shop.clock.ahead_ms,
    )


async def live(given: Ticket, events: Sequence[str], seed: int, crash: str) -> int:
    """Live through events in a process of its own that ends at a crash point (`name@hit`); its exit
    code, 0 when it was not reached."""
    process = warm.process(_live, given, list(events), seed, crash)
    process.start()
    try:
        await asyncio.to_thread(process.join, LIFE_S)
    finally:
        if process.is_alive():
            process.kill()
            await asyncio.to_thread(process.join)
    code = process.exitcode
    assert code is not None
    return code


def _live(given: Ticket, events: Sequence[str], seed: int, crash: str) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what it logs is not the test's
    os.environ["TAPRAIL_CRASH"] = crash
    importlib.reload(taprail_common.crash)  # it has been read once, when this server was started
    asyncio.run(_live_through(given, events, seed))


async def _live_through(given: Ticket, events: Sequence[str], seed: int) -> None:
    async with given.open() as rewarding, dawn(rewarding, seed) as day:
        for name in events:
            await _STEPS[name](day)

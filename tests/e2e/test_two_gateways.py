"""Two gateways on one PostgreSQL: they share the lanes, and each takes over when the other is gone.

Both accept payments all the while. One is killed, one stands still for longer than its leases last
and goes on amid its work, one is told to stop. The judge is the chain.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import pytest
import pytest_asyncio
from sqlalchemy import select

from taprail_common.clock import SystemClock
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import LANE_PREFIX
from taprail_hwsim.chaos.crowd import Crowd
from taprail_hwsim.chaos.judge import judge, still_open
from taprail_hwsim.chaos.site import Site
from taprail_hwsim.process import Program
from taprail_hwsim.stack import Stack, StackOptions
from tests.support.postgres_server import PostgresServer

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

LANES = 3
PAYMENTS_PER_S = 15
BLOCK_TIME_S = 0.5
PATIENCE_BLOCKS = 80
"""For what must come about within a lease's life or two."""


class Shop:
    """The two gateways, their customers, and who has which lane."""

    def __init__(self, site: Site, crowd: Crowd, ledger: Ledger) -> None:
        self.site = site
        self.crowd = crowd
        self._ledger = ledger

    def owners(self) -> list[str | None]:
        """Of the lanes; None: given back. A gateway has a new name at each start."""
        columns = schema.leases.c
        query = select(columns.owner).where(columns.name.startswith(LANE_PREFIX))
        return list(self._ledger.read_now(lambda c: c.scalars(query).all()))

    async def until(self, what: str, is_so: Callable[[], bool]) -> None:
        """Look again at each block."""
        for _ in range(PATIENCE_BLOCKS):
            if is_so():
                return
            await self.site.heads.next()
        pytest.fail(f"not in time: {what}; lanes of {self.owners()}")

    async def until_shared(self) -> set[str | None]:
        """Wait until both have lanes; gives their names."""
        await self.until("both have lanes", lambda: None not in self.owners() and self._count() > 1)
        return set(self.owners())

    def is_of_one(self) -> bool:
        """Whether one gateway has all lanes."""
        return None not in self.owners() and self._count() == 1

    async def blocks(self, count: int) -> None:
        for _ in range(count):
            await self.site.heads.next()

    def log(self, number: int) -> str:
        name = "gateway.log" if number == 0 else f"gateway-{number + 1}.log"
        return (self.site.stack.state_dir / name).read_text()

    def has_sent(self, number: int) -> bool:
        return "settle.bound" in self.log(number)

    def _count(self) -> int:
        return len(set(self.owners()))


@asynccontextmanager
async def open_for_business(stack: Stack) -> AsyncIterator[Shop]:
    assert stack.proxy is not None
    settings = GatewaySettings.load(stack.gateway_config)
    ledger = Ledger.open(settings.database_url, clock=SystemClock())
    site = Site(stack, stack.proxy, ledger)
    following = asyncio.create_task(site.heads.follow())
    crowd = Crowd(stack, random.Random(1), PAYMENTS_PER_S)
    try:
        await site.heads.next()
        yield Shop(site, crowd, ledger)
    finally:
        await crowd.go_home()
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        ledger.dispose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shop]:
    options = StackOptions(
        tmp_path_factory.mktemp("g"),
        database_url=postgres.url(postgres.create_database()),
        with_terminal=False,
        lanes=LANES,
        gateways=2,
        block_time_s=BLOCK_TIME_S,
        proxy_seed=1,
    )
    async with Stack(options) as stack, open_for_business(stack) as shop:
        yield shop


@contextmanager
def standing_still(gateway: Program) -> Iterator[None]:
    gateway.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        gateway.send_signal(signal.SIGCONT)


async def judged(shop: Shop) -> None:
    """Whatever was approved is paid, once, and both gateways have accepted."""
    assert await shop.crowd.all_answered(60)
    for _ in range(PATIENCE_BLOCKS):
        if not still_open(shop.crowd.sales, await shop.site.books()):
            break
        await shop.site.heads.next()
    found = judge(shop.crowd.sales, await shop.site.audited_books())
    assert found.holds, found.in_words()
    assert found.approved == found.settled > 0


async def test_both_take_part_and_one_that_is_told_to_stop_hands_over_at_once(shop: Shop) -> None:
    await shop.until_shared()
    async with shop.crowd.paying():
        await shop.blocks(6)
        assert {sale.answered_by for sale in shop.crowd.sales} >= {0, 1}, "both accept"
        for number in (0, 1):
            await shop.until("both send", partial(shop.has_sent, number))
        assert await shop.site.stack.gateways[0].stop() == 0
        at_once = set(shop.owners())
        await shop.until("the other has all", shop.is_of_one)
        assert at_once <= {None, *shop.owners()}, "given back, not left to end"
        await shop.blocks(2)
    await judged(shop)
    await shop.site.stack.start_gateway()


async def test_one_that_is_killed_is_replaced_when_its_leases_end(shop: Shop) -> None:
    names = await shop.until_shared()
    async with shop.crowd.paying():
        await shop.blocks(4)
        await shop.site.stack.gateways[0].kill()
        await shop.until("the other has all", shop.is_of_one)
        assert set(shop.owners()) < names
        await shop.blocks(2)
    await judged(shop)
    await shop.site.stack.start_gateway()


async def test_one_that_stood_still_writes_nothing_more_for_lanes_that_it_has_lost(
    shop: Shop,
) -> None:
    names = await shop.until_shared()
    lost_before = shop.log(1).count("lane_lost")
    async with shop.crowd.paying():
        await shop.blocks(4)
        with standing_still(shop.site.stack.gateways[1]):
            await shop.until("the other has all", shop.is_of_one)
            assert set(shop.owners()) < names
            await shop.blocks(2)
        await shop.until("it knows", lambda: shop.log(1).count("lane_lost") > lost_before)
        await shop.until_shared()
        await shop.blocks(2)
    await judged(shop)

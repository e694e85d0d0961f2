"""News are told in order, once each, also when a number comes late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import Connection, insert

from taprail_gateway.event_pump import EventPump, News
from taprail_gateway.ledger import queries, schema, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.push_cursor import Cursor
from taprail_gateway.wakeups import Wakeups
from tests.support.ledger_fixtures import NOW_MS, Registry, seed_registry

WAIT_S = 10.0


class Told:
    """What the pump has told, and a way to wait for it."""

    def __init__(self) -> None:
        self.news: list[News] = []
        self._bell = asyncio.Event()

    async def tell(self, news: Sequence[News]) -> None:
        self.news += news
        self._bell.set()

    async def until(self, count: int) -> list[int]:
        """The times of the news, which the tests use to tell them apart."""
        async with asyncio.timeout(WAIT_S):
            while len(self.news) < count:
                self._bell.clear()
                await self._bell.wait()
        return [item.at_ms for item in self.news]


@asynccontextmanager
async def pumping(ledger: Ledger, wakeups: Wakeups) -> AsyncIterator[Told]:
    told = Told()
    last = ledger.read_now(queries.last_event_seq)
    pump = asyncio.create_task(EventPump(ledger, wakeups, told.tell, after=last).run())
    try:
        yield told
    finally:
        pump.cancel()


def a_payment(ledger: Ledger) -> str:
    registry: Registry = seed_registry(ledger)
    row = registry.payment("r1")
    ledger.write_now(lambda connection: transitions.accept(connection, [row], NOW_MS))
    return str(row["id"])


async def write(ledger: Ledger, wakeups: Wakeups, payment: str, seq: int) -> None:
    """An event with a number of our choice, as a writer leaves it that commits out of turn."""

    def work(connection: Connection) -> None:
        row = {"seq": seq, "payment_id": payment, "event": "bind", "state": "processing"}
        connection.execute(insert(schema.payment_events).values({**row, "at_ms": seq}))

    await ledger.write(work)
    wakeups.events.ring()


async def test_a_number_that_comes_late_is_told_too(ledger: Ledger) -> None:
    payment, wakeups = a_payment(ledger), Wakeups()
    last = ledger.read_now(queries.last_event_seq)
    async with pumping(ledger, wakeups) as told:
        await write(ledger, wakeups, payment, last + 1)
        assert await told.until(1) == [last + 1]
        await write(ledger, wakeups, payment, last + 4)
        assert await told.until(2) == [last + 1, last + 4]
        await write(ledger, wakeups, payment, last + 3)
        await write(ledger, wakeups, payment, last + 5)
        assert sorted(await told.until(4)) == [last + 1, last + 3, last + 4, last + 5]


async def test_each_news_carries_the_place_after_it(ledger: Ledger) -> None:
    """Whoever comes back with any of them is told the rest, once each."""
    payment, wakeups = a_payment(ledger), Wakeups()
    last = ledger.read_now(queries.last_event_seq)
    order = [3, 1, 7, 8, 5, 2, 9, 4, 12]
    async with pumping(ledger, wakeups) as told:
        for count, number in enumerate(order, 1):
            await write(ledger, wakeups, payment, last + number)
            await told.until(count)
        assert [news.seq - last for news in told.news] == order
        for at, news in enumerate(told.news):
            cursor = Cursor.parse(news.cursor)
            assert cursor is not None
            covered = {number for number in range(1, 13) if cursor.covers(last + number)}
            assert covered == set(order[: at + 1])


async def test_acceptances_are_not_told(ledger: Ledger) -> None:
    payment, wakeups = a_payment(ledger), Wakeups()
    async with pumping(ledger, wakeups) as told:
        last = ledger.read_now(queries.last_event_seq)
        await write(ledger, wakeups, payment, last + 1)
        assert await told.until(1) == [last + 1]
        assert {item.event for item in told.news} == {"bind"}

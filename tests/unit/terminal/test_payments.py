"""Payments on a real outbox and a real line to a played gateway: what a bad disk may not spoil."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from taprail_common.clock import SystemClock
from taprail_common.wire import SunProof
from taprail_terminal.gateway_link import Expected, GatewayLink
from taprail_terminal.identity import Identity
from taprail_terminal.outbox import Outbox, RequestState
from taprail_terminal.outcome import CardProof
from taprail_terminal.payments import Payments, Seller
from taprail_terminal.push_link import believe_notice
from taprail_terminal.sale import (
    PAYMENT_FAILED,
    Event,
    NotSent,
    NotSettled,
    Result,
    Sale,
    Settled,
    SettledAfterAll,
)
from taprail_terminal.storage import DeviceStore
from taprail_terminal.tap_log import TapLog
from taprail_terminal.timeline import Timeline
from tests.support.played_gateway import PlayedGateway

LIMIT_S = 20.0
NOW_MS = 1_700_000_000_000
SALE = Sale("req_1", 2_500_000)
CARD = CardProof(SunProof(picc_data="0" * 32, mac="0" * 16))


class Shop:
    """The parts of a terminal that carry a payment; `events` is what its checkout was told."""

    def __init__(self, folder: Path, gateway: PlayedGateway) -> None:
        clock = SystemClock()
        timeline = Timeline(clock)
        identity = Identity("t1", SigningKey.generate())
        self.gateway = gateway
        self.path = folder / "outbox.db"
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.outbox = Outbox(self.path)
        self.taps = TapLog(DeviceStore(folder / "device.json"), timeline, clock)
        expected = Expected(gateway.url, gateway.key.verify_key, "cafe", "USDC", 6)
        self.link = GatewayLink(expected, identity, clock)
        self.payments = Payments(
            Seller("cafe", "USDC"),
            identity,
            outbox=self.outbox,
            link=self.link,
            taps=self.taps,
            timeline=timeline,
            clock=clock,
            report=self.events.put_nowait,
        )

    async def told(self) -> Event:
        return await asyncio.wait_for(self.events.get(), LIMIT_S)

    async def state(self) -> RequestState | None:
        row = await self.outbox.find(SALE.request_id)
        return None if row is None else row.state

    async def notice(self, status: str) -> None:
        """A signed notice about the last request."""
        said = self.gateway.notice(status, self.gateway.bodies[-1])
        await self.payments.on_notice(believe_notice(self.gateway.key.verify_key, "t1", said))

    def break_disk(self, statement: str) -> None:
        """Let SQLite fail at each such statement, as it does on a full disk."""
        with closing(sqlite3.connect(self.path)) as database:
            database.execute(
                f"CREATE TRIGGER bad_disk BEFORE {statement} ON requests"
                " BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
            )

    def mend_disk(self) -> None:
        with closing(sqlite3.connect(self.path)) as database:
            database.execute("DROP TRIGGER bad_disk")


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with PlayedGateway().serving() as gateway:
        made = Shop(tmp_path, gateway)
        await made.outbox.open(NOW_MS)
        await made.link.open()
        yield made
        await made.link.close()
        await made.outbox.close()
        await made.taps.close()


async def test_a_sale_that_cannot_be_stored_is_not_sent(shop: Shop) -> None:
    shop.break_disk("INSERT")
    await shop.payments.sell(SALE, CARD)
    assert isinstance(await shop.told(), NotSent)
    assert shop.gateway.bodies == []


async def test_a_verdict_is_told_without_a_disk_and_written_down_when_there_is_one(
    shop: Shop,
) -> None:
    shop.break_disk("UPDATE")
    selling = asyncio.create_task(shop.payments.sell(SALE, CARD))
    result = await shop.told()
    assert isinstance(result, Result)
    assert result.approved
    assert await shop.state() is RequestState.STORED
    shop.mend_disk()
    await asyncio.wait_for(selling, LIMIT_S)
    assert await shop.state() is RequestState.APPROVED
    assert len(shop.gateway.bodies) == 1


async def test_a_notice_waits_for_the_disk(shop: Shop) -> None:
    await shop.payments.sell(SALE, CARD)
    await shop.told()
    shop.break_disk("UPDATE")
    noting = asyncio.create_task(shop.notice("completed"))
    for _ in range(3):  # behind its two steps in the outbox's queue
        assert await shop.state() is RequestState.APPROVED
    shop.mend_disk()
    await asyncio.wait_for(noting, LIMIT_S)
    assert await shop.told() == Settled(SALE.request_id)
    assert await shop.state() is RequestState.SETTLED


async def test_an_approved_sale_that_is_not_settled_comes_back_once(shop: Shop) -> None:
    await shop.payments.sell(SALE, CARD)
    await shop.told()
    await shop.payments.shown(SALE.request_id)
    for _ in range(2):  # as at each connect
        await shop.notice("confirmation_failed")
    assert await shop.told() == NotSettled(replace(SALE, earlier=True))
    await shop.notice("failed")
    assert await shop.told() == NotSettled(replace(SALE, earlier=True), PAYMENT_FAILED)
    assert shop.events.empty()
    assert await shop.state() is RequestState.FAILED
    (row,) = await shop.outbox.unseen()
    await shop.payments.resume(row)
    assert await shop.told() == Result(SALE.request_id, approved=False, code=PAYMENT_FAILED)


async def test_a_sale_that_came_back_and_settles_is_told_even_after_a_restart(shop: Shop) -> None:
    await shop.payments.sell(SALE, CARD)
    await shop.told()
    await shop.payments.shown(SALE.request_id)
    await shop.notice("confirmation_failed")
    assert isinstance(await shop.told(), NotSettled)
    await shop.notice("completed")
    assert await shop.told() == SettledAfterAll(replace(SALE, earlier=True))
    (row,) = await shop.outbox.unseen()  # the power went before it was shown
    await shop.payments.resume(row)
    assert await shop.told() == Result(SALE.request_id, approved=True, settled=True)
    await shop.payments.shown(SALE.request_id)
    assert await shop.outbox.unseen() == []

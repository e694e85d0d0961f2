"""A clock that is wrong by years, or is set in mid-sale, harms no sale and no evidence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from taprail_common.clock import SystemClock
from taprail_common.wire import SunProof, TerminalPayment, parse, to_ms
from taprail_terminal.gateway_link import Expected, GatewayLink
from taprail_terminal.identity import Identity
from taprail_terminal.outbox import KEEP_LEAST, Evidence, Outbox, OutboxRow, RequestState
from taprail_terminal.outcome import CardProof
from taprail_terminal.payments import Payments, Seller
from taprail_terminal.sale import Event, Result, Sale
from taprail_terminal.storage import DeviceStore
from taprail_terminal.tap_log import TapLog
from taprail_terminal.timeline import Timeline
from tests.support.played_gateway import PlayedGateway

YEAR_MS = 365 * 24 * 3600 * 1000
NOW_MS = 1_700_000_000_000
CARD = CardProof(SunProof(picc_data="0" * 32, mac="0" * 16))
YES = Evidence(b"{}", "c2ln")


class WrongClock(SystemClock):
    """A Pi without a battery, or with one that somebody has set."""

    def __init__(self, off_ms: int) -> None:
        self.off_ms = off_ms

    def now_ms(self) -> int:
        return super().now_ms() + self.off_ms


@pytest.fixture(params=[-20 * YEAR_MS, 20 * YEAR_MS], ids=["behind", "ahead"])
async def shop(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[Payments, asyncio.Queue[Event], PlayedGateway, WrongClock]]:
    clock = WrongClock(request.param)
    events: asyncio.Queue[Event] = asyncio.Queue()
    identity = Identity("t1", SigningKey.generate())
    timeline = Timeline(clock)
    async with PlayedGateway().serving() as gateway:
        outbox = Outbox(tmp_path / "outbox.db")
        await outbox.open(clock.now_ms())
        taps = TapLog(DeviceStore(tmp_path / "device.json"), timeline, clock)
        expected = Expected(gateway.url, gateway.key.verify_key, "cafe", "USDC", 6)
        link = GatewayLink(expected, identity, clock)
        await link.open()
        yield (
            Payments(
                Seller("cafe", "USDC"),
                identity,
                outbox=outbox,
                link=link,
                taps=taps,
                timeline=timeline,
                clock=clock,
                report=events.put_nowait,
            ),
            events,
            gateway,
            clock,
        )
        await link.close()
        await outbox.close()
        await taps.close()


async def test_a_sale_comes_to_its_verdict_and_says_the_time_that_it_believes(
    shop: tuple[Payments, asyncio.Queue[Event], PlayedGateway, WrongClock],
) -> None:
    payments, events, gateway, clock = shop
    await payments.sell(Sale("r1", 100), CARD)
    told = await asyncio.wait_for(events.get(), 20.0)
    assert isinstance(told, Result)
    body = parse(TerminalPayment, gateway.bodies[0])
    # The gateway declines such a tap by a signed verdict; what matters here is that it can see it.
    assert abs(to_ms(body.tapped_at) - clock.now_ms()) < 60_000
    clock.off_ms = 0  # and NTP sets it in mid-run
    await payments.sell(Sale("r2", 100), CARD)
    assert isinstance(await asyncio.wait_for(events.get(), 20.0), Result)


@pytest.mark.parametrize("jump_ms", [-20 * YEAR_MS, 20 * YEAR_MS])
async def test_no_jump_takes_open_sales_or_the_newest_evidence(
    tmp_path: Path, jump_ms: int
) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    await outbox.open(NOW_MS)
    for number in range(3):
        await outbox.store(OutboxRow(f"r{number}", 1, "USDC", b"{}", "", NOW_MS))
    await outbox.resolve("r0", RequestState.DECLINED, YES, NOW_MS)
    await outbox.resolve("r1", RequestState.APPROVED, YES, NOW_MS)
    await outbox.close()
    again = Outbox(tmp_path / "outbox.db")
    await again.open(NOW_MS + jump_ms)
    assert [row.request_id for row in await again.unfinished()] == ["r1", "r2"]
    assert await again.find("r0") is not None
    assert KEEP_LEAST >= 1_000
    await again.close()

"""The terminal's own reader part before a simulated reader of either kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from taprail_hwsim.cards import Card, Ntag424
from taprail_hwsim.pads import Pad
from taprail_terminal.charge import Charge
from taprail_terminal.readers import make_driver
from taprail_terminal.readers.polling import Finished, Gone, Opened, Report, Sensed
from taprail_terminal.readers.supervisor import Reader

REPORT_LIMIT_S = 10.0


def sun_card(last: int = 1, *, wtx_per_apdu: int = 0) -> Ntag424:
    """A card with keys of its own; `last` makes it another one."""
    uid = bytes([4, 2, 3, 4, 5, 6, last])
    return Ntag424(uid, bytes(range(16)), bytes(range(16, 32)), wtx_per_apdu=wtx_per_apdu)


class Bench:
    """A reader under test, and what it has reported."""

    def __init__(
        self,
        pad: Pad,
        charge: Callable[[], Charge | None] = lambda: None,
        reset: Callable[[], None] | None = None,
    ) -> None:
        self.pad = pad
        self.reports: asyncio.Queue[Report] = asyncio.Queue()
        self.reader = Reader(
            lambda: make_driver(pad.driver, pad.port),
            lambda report, _at_s: self.reports.put_nowait(report),
            charge,
            reset,
        )

    async def next(self) -> Report:
        return await asyncio.wait_for(self.reports.get(), REPORT_LIMIT_S)

    async def expect(self, *kinds: type[Report]) -> list[Report]:
        got = [await self.next() for _ in kinds]
        assert [type(report) for report in got] == list(kinds)
        return got

    async def until(self, kind: type[Report]) -> None:
        while not isinstance(await self.next(), kind):
            pass

    async def stays_quiet(self, seconds: float) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.reports.get(), seconds)

    async def tap(self, card: Card) -> Report:
        """A card that is read and leaves again."""
        self.reader.arm()
        self.pad.put(card)
        _, report = await self.expect(Sensed, Finished)
        self.pad.lift()
        await self.expect(Gone)
        return report


@asynccontextmanager
async def opened(pad: Pad, reset: Callable[[], None] | None = None) -> AsyncIterator[Bench]:
    """A bench whose reader is open."""
    bench = Bench(pad, reset=reset)
    bench.reader.start()
    try:
        await bench.expect(Opened)
        yield bench
    finally:
        await bench.reader.stop()

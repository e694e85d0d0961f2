"""Two cards on the pad: neither pays, whichever answers first, until one is left of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from taprail_common.wire import SignedProof, SunProof
from taprail_hwsim.cards import BankCard, Card, KeycardCash, Ntag21x, Ntag424
from taprail_hwsim.pn532 import Pn532Simulator
from taprail_terminal.feedback.messages import ENGLISH
from taprail_terminal.outcome import CardProof
from taprail_terminal.readers import make_driver
from taprail_terminal.readers.polling import (
    TWO_CARDS,
    Changed,
    Finished,
    Gone,
    Opened,
    Report,
    Sensed,
)
from taprail_terminal.readers.supervisor import Reader
from tests.integration.test_reader_signing import CHARGE, keycard

REPORT_LIMIT_S: Final = 10.0
QUIET_S: Final = 0.3


def sun(number: int = 1, *, plain: bool = False) -> Ntag424:
    return Ntag424(bytes([4, 2, 3, 4, 5, 6, number]), bytes(16), bytes(16), plain=plain)


@dataclass
class Bench:
    """A reader that is armed when asked, and what it reports."""

    simulator: Pn532Simulator
    reports: asyncio.Queue[Report] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self.reader = Reader(
            lambda: make_driver("pn532", self.simulator.path),
            lambda report, _at_s: self.reports.put_nowait(report),
            lambda: CHARGE,
        )

    async def next(self) -> Report:
        return await asyncio.wait_for(self.reports.get(), REPORT_LIMIT_S)

    async def read(self) -> Report:
        """Arm; what becomes of what lies there, or comes."""
        self.reader.arm()
        assert await self.next() == Sensed()
        return await self.next()

    async def stays_quiet(self) -> bool:
        try:
            await asyncio.wait_for(self.reports.get(), QUIET_S)
        except TimeoutError:
            return True
        return False


@asynccontextmanager
async def bench(**options: Any) -> AsyncIterator[Bench]:
    with Pn532Simulator(**options) as simulator:
        opened = Bench(simulator)
        opened.reader.start()
        assert isinstance(await opened.next(), Opened)
        yield opened
        await opened.reader.stop()


TAG, BANK = Ntag21x(bytes.fromhex("04A1B2C3D4E5F6")), BankCard(bytes([8, 1, 2, 3]))


@pytest.mark.parametrize(
    "cards",
    [
        (sun(1), sun(2)),
        (sun(2), sun(1)),
        (sun(1), TAG),
        (Ntag21x(bytes.fromhex("04A1B2C3D4E5F7")), TAG),
        (BANK, sun(1)),
        (BANK, TAG),
        (keycard(), sun(2)),
        (keycard(1), keycard(2)),
    ],
    ids=lambda cards: " and ".join(card.kind for card in cards),
)
async def test_neither_of_two_cards_pays(cards: tuple[Card, Card]) -> None:
    async with bench() as at:
        at.simulator.put(cards[0])
        at.simulator.put_beside(cards[1])
        assert await at.read() == Finished(TWO_CARDS)
        assert ENGLISH[f"reason.{TWO_CARDS.code}"]
        # Nor does the one that stays when the other is taken away: it has to be put there anew.
        at.reader.arm()
        at.simulator.lift_one(cards[0])
        assert await at.stays_quiet()
        at.simulator.lift()
        assert await at.next() == Gone()
        at.simulator.put(sun(9))
        paid = await at.read()
        assert isinstance(paid, Finished)
        assert isinstance(paid.outcome, CardProof)
        assert isinstance(paid.outcome.proof, SunProof)


async def test_a_card_that_comes_while_the_first_one_is_read_is_noticed() -> None:
    simulators: list[Pn532Simulator] = []
    second = sun(2)

    def come(name: str, _at_s: float, details: dict[str, Any]) -> None:
        if (name, details.get("name")) == ("apdu", "READ BINARY"):
            simulators[0].put_beside(second)

    async with bench(on_event=come) as at:
        simulators.append(at.simulator)
        at.simulator.put(sun(1))
        assert await at.read() == Finished(TWO_CARDS)
        assert second.counter == 0


async def test_a_lone_card_is_asked_nothing_more_and_its_presence_is_followed() -> None:
    async with bench() as at:
        for card, proof in ((sun(1), SunProof), (keycard(5), SignedProof)):
            at.simulator.put(card)
            paid = await at.read()
            assert isinstance(paid, Finished)
            assert isinstance(paid.outcome, CardProof)
            assert isinstance(paid.outcome.proof, proof)
            assert await at.stays_quiet()
            counts = card.counter if isinstance(card, Ntag424) else len(_digests(card))
            assert counts == 1
            at.simulator.lift()
            assert await at.next() == Gone()


def _digests(card: Card) -> list[bytes]:
    assert isinstance(card, KeycardCash)
    return card.digests


async def test_a_card_that_comes_later_is_no_second_one() -> None:
    """What was read was read of one card; another that is laid beside it is not looked at."""
    async with bench() as at:
        first, second = sun(1), sun(2)
        at.simulator.put(first)
        assert isinstance(await at.read(), Finished)
        at.simulator.put_beside(second)
        at.reader.arm()
        assert await at.stays_quiet()
        assert (first.counter, second.counter) == (1, 0)
        at.simulator.lift()
        assert await at.next() == Gone()


class Masked(Ntag424):
    """Answers anticollision by one number and mirrors another."""

    @property
    def uid(self) -> bytes:
        return bytes.fromhex("04FFFFFFFFFFFF")


async def test_a_card_that_names_another_number_than_it_was_found_by_is_refused() -> None:
    async with bench() as at:
        at.simulator.put(Masked(bytes([4, 2, 3, 4, 5, 6, 1]), bytes(16), bytes(16), plain=True))
        assert await at.read() == Changed()
        at.simulator.lift()
        assert await at.next() == Gone()
        at.simulator.put(sun(3, plain=True))
        assert isinstance(await at.read(), Finished)

"""A Keycard before the real PN532 driver: it signs, it fails to, it is another card, it is two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from taprail_common.eip3009 import domain_separator
from taprail_common.ids import payment_id
from taprail_common.wire import SignedProof
from taprail_hwsim.cards import (
    BankCard,
    Card,
    KeycardCash,
    Quirks,
    SwappedCard,
)
from taprail_hwsim.pn532 import Pn532Simulator
from taprail_terminal.card_session import BANK_CARD
from taprail_terminal.charge import Charge
from taprail_terminal.outcome import CardProof
from taprail_terminal.readers import make_driver
from taprail_terminal.readers.polling import (
    Changed,
    Finished,
    Gone,
    Opened,
    Report,
    Sensed,
    Unreadable,
)
from taprail_terminal.readers.supervisor import Reader
from taprail_terminal.signing_session import CANNOT_SIGN, NOT_BY_CARD

REPORT_LIMIT_S = 10.0
QUIET_S = 0.4
CHARGE = Charge(
    "req_1",
    domain_separator("USD Coin", "2", 31337, "0x" + "ab" * 20),
    "0x" + "cd" * 20,
    2_500_000,
    1_900_000_000,
    bytes.fromhex(payment_id("t1", "req_1")[2:]),
)


def keycard(number: int = 1, quirks: Quirks | None = None, *, wtx: int = 0) -> KeycardCash:
    uid = bytes([4, 2, 3, 4, 5, 6, number])
    return KeycardCash(uid, bytes([number]) * 32, quirks or Quirks(), wtx_per_apdu=wtx)


class Counter:
    """A reader that is armed for one charge, and what it reports."""

    def __init__(self, simulator: Pn532Simulator) -> None:
        self.simulator = simulator
        self._reports: asyncio.Queue[Report] = asyncio.Queue()
        self.reader = Reader(
            lambda: make_driver("pn532", simulator.path),
            lambda report, _at_s: self._reports.put_nowait(report),
            lambda: CHARGE,
        )

    async def next(self) -> Report:
        return await asyncio.wait_for(self._reports.get(), REPORT_LIMIT_S)

    async def put(self, card: Card) -> Report:
        """Put a card on the pad; what became of its read."""
        self.reader.arm()
        self.simulator.put(card)
        assert await self.next() == Sensed()
        return await self.next()

    async def stays_quiet(self) -> bool:
        try:
            await asyncio.wait_for(self._reports.get(), QUIET_S)
        except TimeoutError:
            return True
        return False


@asynccontextmanager
async def counter() -> AsyncIterator[Counter]:
    with Pn532Simulator() as simulator:
        opened = Counter(simulator)
        opened.reader.start()
        assert isinstance(await opened.next(), Opened)
        yield opened
        await opened.reader.stop()


def payer(report: Report) -> str:
    assert isinstance(report, Finished)
    assert isinstance(report.outcome, CardProof)
    assert isinstance(report.outcome.proof, SignedProof)
    assert report.outcome.request_id == CHARGE.request_id
    return report.outcome.proof.payer


async def test_a_card_signs_once_in_one_presence() -> None:
    async with counter() as at:
        card = keycard(wtx=2)  # it asks for more time, as every Java card does
        assert payer(await at.put(card)) == card.address
        at.reader.arm()
        assert await at.stays_quiet()
        assert len(card.digests) == 1
        at.simulator.lift()
        assert await at.next() == Gone()


@pytest.mark.parametrize(
    ("quirks", "expected"),
    [
        (Quirks(sign_status=0x6985), Finished(CANNOT_SIGN)),
        (Quirks(signs_other=True), Finished(NOT_BY_CARD)),
        (Quirks(cut_bytes=9), Unreadable()),
        (Quirks(mute=frozenset({"SIGN"})), Unreadable()),
        (Quirks(mute=frozenset({"SELECT"})), Unreadable()),
    ],
)
async def test_a_card_that_does_not_sign_pays_nothing_and_keeps_the_reader(
    quirks: Quirks, expected: Report
) -> None:
    async with counter() as at:
        assert await at.put(keycard(1, quirks)) == expected
        at.simulator.lift()
        assert await at.next() == Gone()
        good = keycard(2)
        assert payer(await at.put(good)) == good.address


async def test_a_bank_card_is_told_apart() -> None:
    async with counter() as at:
        assert await at.put(BankCard(bytes([8, 1, 2, 3]))) == Finished(BANK_CARD)


async def test_a_card_that_turns_into_another_pays_nothing_and_neither_does_the_other() -> None:
    async with counter() as at:
        first, second = keycard(1), keycard(2)
        assert await at.put(SwappedCard(first, second, after_apdus=1)) == Changed()
        at.reader.arm()
        assert await at.stays_quiet()
        assert first.digests == second.digests == []
        at.simulator.lift()
        assert await at.next() == Gone()
        assert payer(await at.put(second)) == second.address

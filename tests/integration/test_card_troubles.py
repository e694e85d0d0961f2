"""Cards that answer as no card should, before the real PN532 driver.

Each trouble has a code, words for the customer and a line for the operator that names no card;
nothing is charged, and the next good card is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest

from taprail_hwsim.cards import BankCard, Card, KeycardCash, Ntag424, Quirks, SwappedCard
from taprail_hwsim.cards.type4 import uri_ndef_file
from taprail_hwsim.pn532 import Pn532Simulator
from taprail_terminal.feedback.messages import ENGLISH
from taprail_terminal.outcome import CardProof, NotOurs
from taprail_terminal.readers import make_driver
from taprail_terminal.readers.polling import (
    Changed,
    Finished,
    Gone,
    Opened,
    Report,
    Sensed,
    Torn,
    Unreadable,
)
from taprail_terminal.readers.supervisor import Reader
from taprail_terminal.sale import CARD_CHANGED, CardTorn, CardUnreadable
from tests.integration.test_reader_signing import CHARGE

REPORT_LIMIT_S: Final = 10.0
SELECT_APPLICATION, SELECT_FILE, READ = 0, 1, 2


class Crooked(Ntag424):
    """A genuine card up to one of the three commands; from there on it says this, or nothing."""

    def __init__(self, at: int, answer: bytes | None) -> None:
        super().__init__(bytes([4, 7, 7, 7, 7, 7, 7]), bytes(16), bytes(16))
        self._at, self._answer, self._commands = at, answer, 0

    def forget_session(self) -> None:
        super().forget_session()
        self._commands = 0

    def apdu(self, command: bytes) -> tuple[str, bytes] | None:  # type: ignore[override]
        self._commands += 1
        if self._commands <= self._at:
            return super().apdu(command)
        return None if self._answer is None else ("CROOKED", self._answer)


def sun(number: int = 1) -> Ntag424:
    return Ntag424(bytes([4, 2, 3, 4, 5, 6, number]), bytes(16), bytes(16))


def url(text: str) -> bytes:
    return uri_ndef_file(text.encode())[:128] + b"\x90\x00"


@dataclass
class Bench:
    """A reader that has nothing for cards to sign, unless `charge`, and what it reports."""

    simulator: Pn532Simulator
    charges: bool = False
    reports: asyncio.Queue[Report] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self.reader = Reader(
            lambda: make_driver("pn532", self.simulator.path),
            lambda report, _at_s: self.reports.put_nowait(report),
            lambda: CHARGE if self.charges else None,
        )

    async def next(self) -> Report:
        return await asyncio.wait_for(self.reports.get(), REPORT_LIMIT_S)

    async def put(self, card: Card, *, tear_after_apdus: int | None = None) -> Report:
        """Put a card on the pad and take it away again; what became of its read."""
        self.reader.arm()
        self.simulator.put(card, tear_after_apdus=tear_after_apdus)
        assert await self.next() == Sensed()
        report = await self.next()
        if report != Torn():
            self.simulator.lift()
            assert await self.next() == Gone()
        return report


@asynccontextmanager
async def bench(*, charges: bool = False) -> AsyncIterator[Bench]:
    with Pn532Simulator() as simulator:
        opened = Bench(simulator, charges)
        opened.reader.start()
        assert isinstance(await opened.next(), Opened)
        yield opened
        await opened.reader.stop()


def told(report: Report) -> tuple[str, str]:
    """The code of what was reported, and the operator's line."""
    match report:
        case Finished(CardProof()):
            return "", ""
        case Finished(NotOurs(code, reason)):
            return code, reason
        case Unreadable(detail):
            return CardUnreadable("").code, detail
        case Changed():
            return CARD_CHANGED, "another card took its place"
        case Torn():
            return CardTorn("").code, "card removed too early"
    raise AssertionError(f"{report} is no end of a read")


OTHER_STATUS: Final = b"\x6f\x00"

TROUBLES: Final[dict[str, tuple[Callable[[], Card], str]]] = {
    # Short answers.
    "no status": (lambda: Crooked(SELECT_APPLICATION, b""), "unreadable"),
    "half a status": (lambda: Crooked(SELECT_APPLICATION, b"\x90"), "unreadable"),
    "half a status of a file": (lambda: Crooked(SELECT_FILE, b"\x90"), "unreadable"),
    "status alone": (lambda: Crooked(READ, b"\x90\x00"), "unreadable"),
    "one byte of a length": (lambda: Crooked(READ, b"\x00\x90\x00"), "unreadable"),
    "less than its length": (
        lambda: Crooked(READ, b"\x00\x40" + bytes(8) + b"\x90\x00"),
        "unreadable",
    ),
    "a length of nothing": (
        lambda: Crooked(READ, bytes(8) + b"\x90\x00"),
        "not_our_card",
    ),
    # Long ones.
    "a length beyond the file": (
        lambda: Crooked(READ, b"\xff\xff" + bytes(100) + b"\x90\x00"),
        "not_our_card",
    ),
    "more than was asked for": (
        lambda: Crooked(READ, bytes(256) + b"\x90\x00"),
        "not_our_card",
    ),
    # Status words that mean no.
    "an error of the application": (
        lambda: Crooked(SELECT_APPLICATION, OTHER_STATUS),
        "not_our_card",
    ),
    "an error of the file": (
        lambda: Crooked(SELECT_FILE, OTHER_STATUS),
        "not_our_card",
    ),
    "an error of the read": (lambda: Crooked(READ, OTHER_STATUS), "unreadable"),
    # Answers that never come.
    "silence at the application": (lambda: Crooked(SELECT_APPLICATION, None), "unreadable"),
    "silence at the file": (lambda: Crooked(SELECT_FILE, None), "unreadable"),
    "silence at the read": (lambda: Crooked(READ, None), "unreadable"),
    # Contents that are none of ours.
    "another address": (lambda: Crooked(READ, url("https://a.b/")), "not_our_card"),
    "half a proof": (
        lambda: Crooked(READ, url(f"https://a.b/?picc={'0' * 32}")),
        "not_our_card",
    ),
    # Not the one card that it should be.
    "a card that becomes another": (
        lambda: SwappedCard(sun(8), sun(9), after_apdus=1),
        CARD_CHANGED,
    ),
    "a bank card": (lambda: BankCard(bytes([8, 1, 2, 3])), "bank_card"),
    "a signing card without terms": (
        lambda: KeycardCash(bytes([4, 1, 1, 1, 1, 1, 1]), b"\1" * 32),
        "signing_not_ready",
    ),
}


@pytest.mark.parametrize("name", TROUBLES)
async def test_each_trouble_has_its_code_its_words_and_a_line_for_the_operator(name: str) -> None:
    make, expected = TROUBLES[name]
    async with bench() as at:
        card = make()
        code, line = told(await at.put(card))
        assert code == expected
        assert card.uid.hex() not in line.lower()
        assert ENGLISH[f"reason.{code}"]
        assert line
        assert "\n" not in line
        assert len(line) <= 120
        assert told(await at.put(sun(2)))[0] == ""  # the reader goes on


@pytest.mark.parametrize(
    ("quirks", "expected"),
    [
        (Quirks(select_status=0x6A82), "not_our_card"),
        (Quirks(sign_status=0x6985), "card_cannot_sign"),
        (Quirks(signs_other=True), "card_signature_wrong"),
        (Quirks(cut_bytes=1), "unreadable"),
        (Quirks(extra=bytes([0x8F, 0x40]) + bytes(64)), ""),
        (Quirks(extra=bytes([0x8F, 0x60]) + bytes(64)), "unreadable"),
        (Quirks(mute=frozenset({"SIGN"})), "unreadable"),
    ],
)
async def test_so_has_each_trouble_of_a_signing_card(quirks: Quirks, expected: str) -> None:
    async with bench(charges=True) as at:
        card = KeycardCash(bytes([4, 1, 1, 1, 1, 1, 1]), b"\1" * 32, quirks)
        code, line = told(await at.put(card))
        assert code == expected
        assert (code == "") == (line == "")
        assert told(await at.put(sun(2)))[0] == ""


@pytest.mark.parametrize("apdus", [0, 1, 2])
async def test_so_has_a_card_that_is_gone_too_early(apdus: int) -> None:
    async with bench() as at:
        code, line = told(await at.put(sun(), tear_after_apdus=apdus))
        assert (code, line) == ("torn", "card removed too early")
        assert ENGLISH["reason.torn"]

"""Which request a signing card signs for: the one that is stored, once, whatever the till does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nacl.signing import SigningKey

from taprail_common.api.gateway import Hello
from taprail_common.clock import SystemClock
from taprail_common.ids import payment_id
from taprail_common.wire import SigningTerms
from taprail_hwsim.cards import KeycardCash
from taprail_terminal.agent import Agent, Terms
from taprail_terminal.card_session import converse
from taprail_terminal.charge import Charge, ChargeMaker
from taprail_terminal.gateway_link import Expected, GatewayLink, Greeting
from taprail_terminal.identity import Identity
from taprail_terminal.outbox import Outbox, OutboxRow
from taprail_terminal.outcome import CardProof
from taprail_terminal.payments import Payments, Seller
from taprail_terminal.readers.polling import Finished, Gone, Opened, Sensed, Torn
from taprail_terminal.sale import Arm, Cancel, Phase, View
from taprail_terminal.storage import DeviceStore
from taprail_terminal.tap_log import TapLog
from taprail_terminal.timeline import Timeline
from tests.support.played_gateway import PlayedGateway

PAYEE, TOKEN = "0x" + "cd" * 20, "0x" + "ab" * 20
CARD = KeycardCash(bytes.fromhex("04112233445566"), bytes(range(1, 33)))


class Counter:
    """An agent between a reader and a gateway that never answers; the outbox tells what it sold."""

    def __init__(self, folder: Path, gateway: PlayedGateway, fixed_units: int | None) -> None:
        clock = SystemClock()
        identity = Identity("t1", SigningKey.generate())
        timeline = Timeline(clock)
        self.gateway = gateway
        self.outbox = Outbox(folder / "outbox.db")
        self.taps = TapLog(DeviceStore(folder / "device.json"), timeline, clock)
        expected = Expected(gateway.url, gateway.key.verify_key, "cafe", "USDC", 6)
        self.link = GatewayLink(expected, identity, clock)
        charges = ChargeMaker("t1", lambda: self.greeting, clock)
        self.greeting: Greeting | None = _greeting(clock)
        terms = Terms("USDC", 6, fixed_units, verdict_timeout_s=30.0)
        self.agent = Agent(terms, charges, self.taps, timeline, clock)
        self.payments = Payments(
            Seller("cafe", "USDC"),
            identity,
            outbox=self.outbox,
            link=self.link,
            taps=self.taps,
            timeline=timeline,
            clock=clock,
            report=self.agent.report,
        )
        self.armed: list[bool] = []

    def arm(self, *, by_itself: bool) -> None:
        self.armed.append(True)

    def disarm(self) -> None:
        self.armed.append(False)

    def show(self, view: View) -> None:
        """Nobody looks."""

    async def open(self) -> None:
        await self.outbox.open(0)
        await self.link.open()
        self.agent.start(reader=self, feedback=self, payments=self.payments, interrupted=[])
        self.agent.on_report(Opened("a reader"), 0.0)

    async def close(self) -> None:
        await self.agent.stop()
        await self.link.close()
        await self.outbox.close()
        await self.taps.close()

    def charge(self) -> Charge:
        """What the reader's thread is told to have signed."""
        charge = self.agent.charge()
        assert isinstance(charge, Charge)
        return charge

    async def sold(self) -> OutboxRow:
        """What the terminal has posted last, as it is stored."""
        await self.gateway.posted.wait()
        self.gateway.posted.clear()
        return (await self.outbox.unfinished())[-1]


def _greeting(clock: SystemClock) -> Greeting:
    terms = SigningTerms(
        chain_id=1, token=TOKEN, token_name="USD Coin", token_version="2", payee=PAYEE
    )
    hello = Hello(
        gateway_id="gw_1",
        gateway_time=clock.now_ms(),
        terminal_id="t1",
        status="active",
        merchant_id="cafe",
        merchant_name="Café",
        currency="USDC",
        decimals=6,
        signing=terms,
    )
    return Greeting(hello, 0, 1, clock.monotonic_s())


def signed(charge: Charge) -> CardProof:
    """The proof of a card that has signed this."""
    conversation = converse(charge)
    command = next(conversation)
    while True:
        try:
            command = conversation.send((CARD.apdu(command) or ("", b""))[1])
        except StopIteration as done:
            proof: CardProof = done.value
            return proof


@asynccontextmanager
async def counter(folder: Path, fixed_units: int | None = None) -> AsyncIterator[Counter]:
    gateway = PlayedGateway()
    gateway.plays = ["hang"] * 10
    async with gateway.serving():
        opened = Counter(folder, gateway, fixed_units)
        await opened.open()
        yield opened
        await opened.close()


async def test_the_request_that_is_stored_is_the_one_that_was_signed(tmp_path: Path) -> None:
    async with counter(tmp_path) as at:
        assert at.agent.charge() is None, "nothing to pay"
        at.agent.apply(Arm(5_000_000))
        charge = at.charge()
        at.agent.on_report(Sensed(), 0.0)
        at.agent.on_report(Finished(signed(charge)), 0.0)
        row = await at.sold()
        assert row.request_id == charge.request_id
        assert charge.nonce.hex() == payment_id("t1", row.request_id)[2:]
        assert json.loads(row.body)["amount"] == charge.amount_units == 5_000_000


async def test_a_card_torn_away_signs_for_the_same_request_again(tmp_path: Path) -> None:
    """Whoever caught the first signature has no second payment in hand."""
    async with counter(tmp_path) as at:
        at.agent.apply(Arm(5_000_000))
        charge = at.charge()
        at.agent.on_report(Sensed(), 0.0)
        at.agent.on_report(Torn(), 0.0)
        assert at.charge().nonce == charge.nonce
        at.agent.apply(Cancel())
        at.agent.apply(Arm(5_000_000))
        assert at.charge().nonce == charge.nonce


async def test_a_signature_for_an_older_amount_is_not_sold(tmp_path: Path) -> None:
    async with counter(tmp_path) as at:
        at.agent.apply(Arm(5_000_000))
        older = at.charge()
        at.agent.apply(Cancel())
        at.agent.apply(Arm(6_000_000))  # while the card signs
        at.agent.on_report(Sensed(), 0.0)
        at.agent.on_report(Finished(signed(older)), 0.0)
        assert at.agent.state.phase is Phase.TRY_AGAIN
        assert await at.outbox.unfinished() == []
        newer = at.charge()
        assert (newer.amount_units, newer.request_id != older.request_id) == (6_000_000, True)
        at.agent.on_report(Gone(), 0.0)
        at.agent.on_report(Sensed(), 0.0)
        at.agent.on_report(Finished(signed(newer)), 0.0)
        assert (await at.sold()).request_id == newer.request_id


async def test_the_next_sale_is_another_request(tmp_path: Path) -> None:
    async with counter(tmp_path) as at:
        at.agent.apply(Arm(2_500_000))
        charge = at.charge()
        at.agent.on_report(Sensed(), 0.0)
        at.agent.on_report(Finished(signed(charge)), 0.0)
        await at.sold()
        assert at.agent.charge() is None, "what was signed is sold, and nothing is armed"


async def test_without_terms_nothing_is_signed(tmp_path: Path) -> None:
    async with counter(tmp_path, fixed_units=2_500_000) as at:
        assert at.charge().amount_units == 2_500_000
        at.greeting = None
        assert at.agent.charge() is None

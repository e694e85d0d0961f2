"""Sales without the gateway: a real outbox, a real line, and a gateway that comes and goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from taprail_common.clock import SystemClock
from taprail_common.offline_wire import FROZEN_DIGITS, SETTLEMENT_S, OfflinePolicy
from taprail_common.signing import Domain, sign
from taprail_common.wire import SigningTerms, SunProof, from_ms
from taprail_hwsim.cards import KeycardCash
from taprail_terminal.agent import Agent, Terms
from taprail_terminal.card_session import converse
from taprail_terminal.charge import Charge, ChargeMaker
from taprail_terminal.gateway_link import Expected, GatewayLink
from taprail_terminal.identity import Identity
from taprail_terminal.offline import LOSS, OfflineNo
from taprail_terminal.offline_desk import OfflineDesk, OfflineSeller
from taprail_terminal.outbox import Evidence, Outbox, RequestState
from taprail_terminal.outcome import CardProof, NotOurs
from taprail_terminal.payments import Payments, Seller
from taprail_terminal.policy_store import PolicyStore
from taprail_terminal.readers.polling import Finished, Gone, Opened, Sensed
from taprail_terminal.sale import Arm, Phase, View
from taprail_terminal.storage import DeviceStore
from taprail_terminal.tap_log import TapLog
from taprail_terminal.timeline import Timeline
from tests.support.played_gateway import PlayedGateway

CARD = KeycardCash(bytes.fromhex("04112233445566"), bytes(range(1, 33)))
SUN = CardProof(SunProof(picc_data="0" * 32, mac="0" * 16))
PRICE, AGE_S = 2_500_000, 600
YEARS_MS = 3 * 366 * 86_400_000
IDENTITY = Identity("t1", SigningKey.generate())


class SetClock(SystemClock):
    """One that somebody sets."""

    def __init__(self) -> None:
        self.off_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.off_ms


def policy(**changes: Any) -> OfflinePolicy:
    fields = {
        "terminal_id": "t1",
        "merchant_id": "cafe",
        "currency": "USDC",
        "version": 1,
        "issued_at": from_ms(SystemClock().now_ms()),
        "per_tap_units": 2 * PRICE,
        "max_count": 2,
        "sum_units": 2 * PRICE,
        "max_age_s": AGE_S,
        "revision": "1-0",
        "frozen": (),
        "signing": SigningTerms(
            chain_id=1,
            token="0x" + "ab" * 20,
            token_name="USD Coin",
            token_version="2",
            payee="0x" + "cd" * 20,
        ),
    }
    return OfflinePolicy(**{**fields, **changes})


class Counter:
    """A terminal between the reader's reports and a gateway; `views` are what is on its display."""

    def __init__(self, folder: Path, gateway: PlayedGateway) -> None:
        self.clock = SetClock()
        timeline = self.timeline = Timeline(self.clock)
        self.outbox = Outbox(folder / "outbox.db")
        self.store = PolicyStore(folder / "offline.json")
        self.taps = TapLog(DeviceStore(folder / "device.json"), timeline, self.clock)
        key = gateway.key.verify_key
        expected = Expected(gateway.url, key, "cafe", "USDC", 6)
        self.link = GatewayLink(expected, IDENTITY, self.clock)
        charges = ChargeMaker("t1", lambda: self.link.greeting, self.clock)
        terms = Terms("USDC", 6, None, verdict_timeout_s=30.0)
        self.agent = Agent(terms, charges, self.taps, timeline, self.clock)
        seller = OfflineSeller("t1", "cafe", "USDC", key)
        self.desk = OfflineDesk(seller, self.store, self.outbox, self.link, timeline, self.clock)
        self.agent.sell_offline(self.desk)
        self.payments = Payments(
            Seller("cafe", "USDC"),
            IDENTITY,
            outbox=self.outbox,
            link=self.link,
            taps=self.taps,
            timeline=timeline,
            clock=self.clock,
            report=self.agent.report,
            offline=self.desk,
        )
        self._grown = asyncio.Event()
        self.views: list[View] = []

    def arm(self, *, by_itself: bool) -> None:
        """The reader is real enough as its reports."""

    def disarm(self) -> None:
        """The same."""

    def show(self, view: View) -> None:
        self.views.append(view)
        self.agent.on_shown(view, 0.0)
        self._grown.set()

    async def seen(self, wanted: Callable[[View], bool]) -> View:
        """Wait until the display has shown such a thing."""
        while not (found := [view for view in self.views if wanted(view)]):
            self._grown.clear()
            await asyncio.wait_for(self._grown.wait(), 20.0)
        return found[-1]

    async def counted(self) -> tuple[int, int, int]:
        """What an operator is told of exposure and loss, once nothing waits."""
        while self.desk.exposure.count:
            await self.outbox.counts()
        told = self.desk.status()
        return told["waiting"], told["lost"], told["lostUnits"]

    async def heard_policy(self) -> None:
        """Greet, and take over what the greeting told."""
        with self.timeline.watch() as next_event:
            await self.link.greet()
            following = asyncio.create_task(self.desk.run())
            while (await next_event())["event"] != "offline_policy":
                pass
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def tap(self, units: int = PRICE) -> Charge | NotOurs | None:
        """A card that signs comes, is read as the reader's thread reads it, and leaves."""
        self.agent.apply(Arm(units))
        charge = await asyncio.to_thread(self.agent.charge)
        self.agent.on_report(Sensed(), 0.0)
        self.agent.on_report(Finished(_signed(charge)), 0.0)
        self.agent.on_report(Gone(), 0.0)
        return charge

    async def refusal(self, units: int = PRICE) -> str | None:
        """Why such a tap is refused, as the display says it."""
        await self.tap(units)
        view = await self.seen(lambda view: view.phase is Phase.CARD_REFUSED)
        assert await self.outbox.unfinished() == []
        return view.reason_code


def _signed(charge: Charge | NotOurs | None) -> CardProof | NotOurs:
    conversation = converse(charge)
    command = next(conversation)
    while True:
        try:
            command = conversation.send((CARD.apdu(command) or ("", b""))[1])
        except StopIteration as done:
            outcome: CardProof | NotOurs = done.value
            return outcome


@asynccontextmanager
async def counter(folder: Path, gateway: PlayedGateway) -> AsyncIterator[Counter]:
    at = Counter(folder, gateway)
    await at.outbox.open(0)
    await at.desk.open()
    await at.link.open()
    rows = await at.outbox.unseen()
    at.agent.start(reader=at, feedback=at, payments=at.payments, interrupted=rows)
    at.agent.on_report(Opened("a reader"), 0.0)
    yield at
    await at.agent.stop()
    await at.link.close()
    await at.outbox.close()
    await at.taps.close()


@asynccontextmanager
async def left_alone(folder: Path, **changes: Any) -> AsyncIterator[tuple[Counter, PlayedGateway]]:
    """A counter that has heard the policy, and whose gateway is gone since."""
    gateway = PlayedGateway()
    gateway.offline = policy(**changes)
    async with AsyncExitStack() as stack:
        async with gateway.serving():
            at = await stack.enter_async_context(counter(folder, gateway))
            await at.heard_policy()
        yield at, gateway


@asynccontextmanager
async def back(at: Counter, before: PlayedGateway) -> AsyncIterator[PlayedGateway]:
    """The same gateway again, which remembers nothing of what it was not asked."""
    gateway = PlayedGateway()
    gateway.key, gateway.decline = before.key, before.decline
    async with gateway.serving(before.port):
        at.link.hurry()
        yield gateway


async def test_it_is_off_until_the_gateway_allows_it_and_again_when_it_does_not(
    tmp_path: Path,
) -> None:
    gateway = PlayedGateway()
    async with gateway.serving(), counter(tmp_path, gateway) as at:
        await at.link.greet()
        assert at.desk.status()["isOn"] is False
        gateway.offline = policy()
        await at.heard_policy()
        assert at.desk.status()["policy"] == {
            "version": 1,
            "maxCount": 2,
            "maxAgeS": AGE_S,
            "perTapUnits": 2 * PRICE,
            "sumUnits": 2 * PRICE,
        }
        assert PolicyStore(tmp_path / "offline.json").get() is not None
        gateway.offline = None
        await at.heard_policy()
        assert at.desk.status()["isOn"] is False
        assert PolicyStore(tmp_path / "offline.json").get() is None


async def test_while_the_gateway_is_there_it_is_asked(tmp_path: Path) -> None:
    gateway = PlayedGateway()
    gateway.offline = policy()
    async with gateway.serving(), counter(tmp_path, gateway) as at:
        await at.heard_policy()
        assert await asyncio.to_thread(at.desk.charge, "r", PRICE, pin_wanted=False) is None
        gateway.hello_status = 401  # one that refuses this terminal is there as well
        assert await asyncio.to_thread(at.desk.charge, "r", PRICE, pin_wanted=False) is None


async def test_a_tap_is_stored_shown_and_asked_about_once_the_gateway_is_back(
    tmp_path: Path,
) -> None:
    async with left_alone(tmp_path) as (at, before):
        charge = await at.tap()
        assert isinstance(charge, Charge)
        taken = await at.seen(lambda view: view.phase is Phase.OFFLINE)
        (row,) = await at.outbox.unfinished()
        body = json.loads(row.body)
        assert (taken.request_id, row.offline, row.state.value) == (
            *(row.request_id, True),
            "stored",
        )
        assert (body["offline"], body["offlineVersion"]) == (True, 1)
        valid_s = charge.valid_before_s - row.stored_at_ms // 1000
        assert valid_s in range(AGE_S + SETTLEMENT_S - 1, AGE_S + SETTLEMENT_S + 2)
        assert at.desk.status()["waitingUnits"] == PRICE
        async with back(at, before) as gateway:
            await gateway.posted.wait()
            approved = await at.seen(lambda view: view.phase is Phase.APPROVED)
            assert await at.counted() == (0, 0, 0)
        assert approved.request_id == row.request_id
        assert set(gateway.bodies) == {row.body}


async def test_what_is_declined_later_is_a_loss_that_staff_is_shown(tmp_path: Path) -> None:
    async with left_alone(tmp_path) as (at, before):
        await at.tap()
        await at.seen(lambda view: view.phase is Phase.OFFLINE)
        before.decline = {"reasonCode": "insufficient_balance", "reason": "no funds"}
        async with back(at, before):
            lost = await at.seen(lambda view: view.phase is Phase.DECLINED)
            assert await at.counted() == (0, 1, PRICE)
        assert lost.reason_code == LOSS
        assert [row.state for row in await at.outbox.lost()] == [RequestState.DECLINED]


@pytest.mark.parametrize(
    ("changes", "units", "no"),
    [
        ({"per_tap_units": PRICE - 1}, PRICE, OfflineNo.LIMIT),
        ({"sum_units": PRICE - 1}, PRICE, OfflineNo.SUM),
        ({"frozen": (CARD.address[-FROZEN_DIGITS:],)}, PRICE, OfflineNo.FROZEN),
    ],
)
async def test_what_the_policy_forbids_is_refused_in_words(
    tmp_path: Path, changes: dict[str, Any], units: int, no: OfflineNo
) -> None:
    async with left_alone(tmp_path, **changes) as (at, _):
        assert await at.refusal(units) == no


@pytest.mark.parametrize(
    ("off_ms", "no"),
    [
        (YEARS_MS, OfflineNo.CLOCK),
        (-YEARS_MS, OfflineNo.CLOCK),
    ],
)
async def test_a_clock_that_is_wrong_by_years_sells_nothing(
    tmp_path: Path, off_ms: int, no: OfflineNo
) -> None:
    async with left_alone(tmp_path) as (at, _):
        at.clock.off_ms = off_ms
        assert await at.refusal() == no
        assert at.desk.status()["blockedBy"] == no


async def test_a_policy_that_has_run_out_sells_nothing(tmp_path: Path) -> None:
    issued_at = from_ms(SystemClock().now_ms() - AGE_S * 1000)
    async with left_alone(tmp_path, issued_at=issued_at) as (at, _):
        assert await at.refusal() == OfflineNo.EXPIRED


async def test_a_policy_that_somebody_has_changed_on_the_disk_sells_nothing(
    tmp_path: Path,
) -> None:
    gateway = PlayedGateway()
    async with gateway.serving():
        pass  # the port is known, and nobody is there
    forged = policy().to_json()
    stranger = sign(SigningKey.generate(), Domain.OFFLINE_POLICY, forged)
    PolicyStore(tmp_path / "offline.json").put(Evidence(forged, stranger))
    async with counter(tmp_path, gateway) as at:
        assert await at.refusal() == OfflineNo.POLICY


async def test_a_card_that_cannot_sign_is_refused_in_words(tmp_path: Path) -> None:
    async with left_alone(tmp_path) as (at, _):
        at.agent.apply(Arm(PRICE))
        await asyncio.to_thread(at.agent.charge)
        at.agent.on_report(Sensed(), 0.0)
        at.agent.on_report(Finished(SUN), 0.0)
        view = await at.seen(lambda view: view.phase is Phase.CARD_REFUSED)
        assert view.reason_code == OfflineNo.CARD
        assert await at.outbox.unfinished() == []


async def test_who_wants_a_pin_cannot_pay_without_the_gateway(tmp_path: Path) -> None:
    async with left_alone(tmp_path) as (at, _):
        wanted = await asyncio.to_thread(at.desk.charge, "r", PRICE, pin_wanted=True)
        assert isinstance(wanted, NotOurs)
        assert wanted.code == OfflineNo.PIN


async def test_as_many_as_may_wait_and_no_more_also_after_a_restart(tmp_path: Path) -> None:
    async with left_alone(tmp_path, sum_units=10 * PRICE, per_tap_units=PRICE) as (at, gateway):
        for _ in range(2):
            await at.tap(PRICE)
            await at.seen(lambda view: view.phase is Phase.OFFLINE)
            at.views.clear()
    async with counter(tmp_path, gateway) as again:
        await again.tap(PRICE)
        refused = await again.seen(lambda view: view.phase is Phase.CARD_REFUSED)
        assert refused.reason_code == OfflineNo.COUNT
        assert len(await again.outbox.unfinished()) == 2


@pytest.mark.parametrize("told", [True, False])
async def test_what_the_power_cut_off_before_it_was_shown_is_shown_at_the_next_start(
    tmp_path: Path, told: bool
) -> None:
    async with left_alone(tmp_path) as (at, gateway):
        await at.tap()
        await at.seen(lambda view: view.phase is Phase.OFFLINE)
        (row,) = await at.outbox.unfinished()
        while not row.told:
            (row,) = await at.outbox.unfinished()
    folder = tmp_path
    if not told:  # the disk of a terminal whose power went in between
        folder = tmp_path / "cut"
        cut = Outbox(folder / "outbox.db")
        await cut.open(0)
        await cut.store(replace(row, told=False))
        await cut.close()
    async with counter(folder, gateway) as again:
        if told:
            await again.seen(lambda view: view.phase is Phase.IDLE)
        else:
            shown = await again.seen(lambda view: view.phase is Phase.OFFLINE)
            assert (shown.late, shown.request_id) == (True, row.request_id)
        async with back(again, gateway) as there:
            await there.posted.wait()
            assert await again.counted() == (0, 0, 0)
        assert set(there.bodies) == {row.body}
        if told:  # who was told already is not told again
            assert {view.phase for view in again.views} <= {Phase.OUT_OF_SERVICE, Phase.IDLE}

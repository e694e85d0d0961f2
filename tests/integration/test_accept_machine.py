"""Invariant 3 under any order of events: no hold beyond the balance, no spend beyond the day.

Random taps, retries, failures, completions, top-ups, freezes and midnights on a real ledger, beside
a small model that knows of every payment what it has taken. The acceptor's every answer must be the
model's: one unit too much is an overdraft, one unit too little is money that a failed payment did
not give back.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from nacl.signing import SigningKey
from sqlalchemy import Connection, select, update

from taprail_common.ids import payment_id
from taprail_common.payment_state import PaymentEvent
from taprail_gateway import registry
from taprail_gateway.accept import AcceptItem, Acceptor, Answer
from taprail_gateway.authorize import Evidence, PaymentRequest, Profile, Rules
from taprail_gateway.estimate import SettlementEstimate
from taprail_gateway.fraud_settings import FraudSettings
from taprail_gateway.ledger import schema, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.invariants import check_invariants
from taprail_gateway.ledger.transitions import Confirmed
from tests.support.empty_ledger import empty_ledger
from tests.support.ledger_fixtures import seed_registry
from tests.support.ledger_payments import bound
from tests.support.manual_clock import ManualClock

BALANCE = 1_000
SINGLE = 400
DAILY = 700
HASH = "0x" + "cc" * 32
ZONES = ("Pacific/Kiritimati", "America/Los_Angeles", "UTC")
"""Fourteen hours before UTC, seven or eight behind it: their midnights are far apart."""

NEVER_SUSPICIOUS = FraudSettings(decline_points=1_000_000, alert_points=1_000_000)

amounts = st.one_of(
    st.integers(1, SINGLE + 1), st.sampled_from([1, DAILY - SINGLE, SINGLE, SINGLE + 1])
)


@dataclass
class Purse:
    """What the model knows of a card."""

    uuid: str
    account: str
    digest: str
    zone: str
    balance: int = BALANCE
    counter: int = 0
    is_frozen: bool = False
    held: int = 0
    spent: dict[str, int] = field(default_factory=dict)

    def refusal(self, amount: int, counter: int, day: str) -> str | None:
        """Why a tap must be declined, in the order of the contract."""
        if counter <= self.counter:
            return "card_replayed"
        if self.is_frozen:
            return "card_frozen"
        if amount > SINGLE:
            return "single_limit"
        if self.spent.get(day, 0) + amount > DAILY:
            return "daily_limit"
        return "insufficient_balance" if self.held + amount > self.balance else None


@dataclass(frozen=True)
class Sale:
    """An accepted payment, and the day that it counts in."""

    id: str
    purse: Purse
    amount: int
    day: str


@dataclass(frozen=True)
class Told:
    """A request that was answered."""

    item: AcceptItem
    answer: Answer


class AcceptMachine(RuleBasedStateMachine):
    open_sales: Bundle[Sale] = Bundle("open_sales")
    bound_sales: Bundle[Sale] = Bundle("bound_sales")
    told: Bundle[Told] = Bundle("told")

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="taprail-machine-"))
        self.clock = ManualClock()
        self.ledger = Ledger.open(empty_ledger(self.folder), clock=self.clock)
        self.people = seed_registry(
            self.ledger,
            cards=len(ZONES),
            balance_units=BALANCE,
            single_limit_units=SINGLE,
            daily_limit_units=DAILY,
        )
        self.purses = [self.purse(number) for number in range(len(ZONES))]
        rules = Rules("TUSD", 6, fraud=NEVER_SUSPICIOUS)
        estimate = SettlementEstimate(least_ms=1, most_ms=2)
        self.acceptor = Acceptor(SigningKey.generate(), rules, self.clock, estimate)
        self.requests = 0
        self.block = 1

    def purse(self, number: int) -> Purse:
        card, c = self.people.cards[number], schema.cards.c
        self.ledger.write_now(
            lambda connection: connection.execute(
                update(schema.cards)
                .where(c.uuid == card.uuid)
                .values(time_zone=ZONES[number], sun_counter=0)
            )
        )
        digest = self.ledger.read_now(
            lambda connection: connection.scalar(select(c.uid_digest).where(c.uuid == card.uuid))
        )
        return Purse(card.uuid, card.account, str(digest), ZONES[number])

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.dispose()
            shutil.rmtree(self.folder)

    # --- taps ---------------------------------------------------------------------------------

    @rule(
        target=open_sales,
        taps=st.lists(
            st.tuples(st.integers(0, len(ZONES) - 1), amounts, st.sampled_from([0, 1, 1, 1, 5])),
            min_size=1,
            max_size=6,
        ),
    )
    def accept_a_group(self, taps: list[tuple[int, int, int]]) -> Any:
        """Several requests of one instant; a step of 0 is the last tap once more."""
        expected, items, sales = [], [], []
        for number, amount, step in taps:
            purse = self.purses[number]
            day = self.day(purse)
            counter = purse.counter + step
            reason = purse.refusal(amount, counter, day)
            items.append(self.item(purse, amount, counter))
            expected.append(reason)
            purse.counter = max(purse.counter, counter)
            if reason is None:
                purse.held += amount
                purse.spent[day] = purse.spent.get(day, 0) + amount
                sales.append(Sale(items[-1].request.payment_id, purse, amount, day))
        answers = self.run(items)
        assert [reason_of(each) for each in answers] == expected
        return multiple(*sales)

    @rule(target=told, number=st.integers(0, len(ZONES) - 1))
    def decline(self, number: int) -> Told:
        """A tap that is beyond every limit; it uses up its counter all the same."""
        purse = self.purses[number]
        item = self.item(purse, DAILY + 1, purse.counter + 1)
        (answer,) = self.run([item])
        assert reason_of(answer) == ("card_frozen" if purse.is_frozen else "single_limit")
        purse.counter += 1
        return Told(item, answer)

    @rule(earlier=told)
    def retry(self, earlier: Told) -> None:
        """The same bytes again, twice at once, whatever has happened meanwhile."""
        for answer in self.run([earlier.item, earlier.item]):
            assert (answer.body, answer.signature) == (
                earlier.answer.body,
                earlier.answer.signature,
            )
            assert answer.payment_id is None

    # --- what becomes of them -----------------------------------------------------------------

    @rule(sale=consumes(open_sales))
    def cancel(self, sale: Sale) -> None:
        self.apply(PaymentEvent.REJECT, sale)
        self.give_back(sale)

    @rule(target=bound_sales, sale=consumes(open_sales))
    def send(self, sale: Sale) -> Sale:
        bound(self.ledger, [sale.id])
        return sale

    @rule(sale=consumes(bound_sales))
    def fail_with_proof(self, sale: Sale) -> None:
        self.apply(PaymentEvent.GIVE_UP, sale)
        self.apply(PaymentEvent.DISPROVE, sale)
        self.give_back(sale)

    @rule(sale=st.one_of(consumes(open_sales), consumes(bound_sales)))
    def complete(self, sale: Sale) -> None:
        """The money has moved: what was held is gone, and the day has spent it for good."""
        purse = sale.purse
        self.block += 1
        purse.balance -= sale.amount
        purse.held -= sale.amount
        confirmed = [Confirmed(sale.id, HASH, self.block, HASH)]
        balances = {purse.account: purse.balance}
        self.ledger.write_now(
            lambda c: transitions.complete(c, confirmed, balances, self.block, self.clock.now_ms())
        )

    @rule(number=st.integers(0, len(ZONES) - 1), more=st.integers(0, BALANCE))
    def refresh_balance(self, number: int, more: int) -> None:
        """A new block shows the balance, perhaps topped up; an older one changes nothing."""
        purse = self.purses[number]
        self.block += 1
        purse.balance += more
        for block, units in ((self.block, purse.balance), (self.block - 1, 10**9)):
            self.ledger.write_now(
                partial(
                    transitions.refresh_balances,
                    balances={purse.account: units},
                    block_number=block,
                )
            )

    @rule(number=st.integers(0, len(ZONES) - 1))
    def freeze_or_thaw(self, number: int) -> None:
        purse = self.purses[number]
        purse.is_frozen = not purse.is_frozen
        status = "frozen" if purse.is_frozen else "active"
        self.ledger.write_now(lambda c: registry.set_card_status(c, purse.uuid, status))

    @rule(hours=st.integers(1, 30))
    def let_time_pass(self, hours: int) -> None:
        """Over some cards' midnights, and not over others'."""
        self.clock.step_wall(hours * 3_600_000)

    # --- what must hold -----------------------------------------------------------------------

    @invariant()
    def nothing_is_overdrawn(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.read_now(self.check)

    def check(self, connection: Connection) -> None:
        assert check_invariants(connection) == []
        a, s = schema.accounts.c, schema.card_spend.c
        rows = connection.execute(select(a.address, a.held_units, a.balance_units))
        held = {row.address: (row.held_units, row.balance_units) for row in rows}
        spends = connection.execute(select(s.card_uuid, s.day, s.spent_units)).all()
        assert all(units <= DAILY for _, _, units in spends)
        for purse in self.purses:
            assert held[purse.account] == (purse.held, purse.balance)
            assert purse.held <= purse.balance
            spent = {day: units for card, day, units in spends if card == purse.uuid}
            assert spent == purse.spent

    # --- by hand ------------------------------------------------------------------------------

    def day(self, purse: Purse) -> str:
        now = datetime.fromtimestamp(self.clock.now_ms() / 1000, ZoneInfo(purse.zone))
        return now.strftime("%Y-%m-%d")

    def item(self, purse: Purse, amount: int, counter: int) -> AcceptItem:
        self.requests += 1
        request_id = f"r{self.requests}"
        terminal = self.people.terminal_id
        request = PaymentRequest(
            requester=terminal,
            request_id=request_id,
            payment_id=payment_id(terminal, request_id),
            terminal_id=terminal,
            merchant_id=self.people.merchant_id,
            amount_units=amount,
            currency="TUSD",
            tapped_at_ms=self.clock.now_ms(),
            accept_until_ms=None,
            evidence=Evidence(Profile.SUN, purse.digest, purse.uuid, counter, 1),
        )
        return AcceptItem(request, request_id.encode(), 0.0, signature="signature")

    def run(self, items: list[AcceptItem]) -> list[Answer]:
        results = self.ledger.write_now(lambda c: self.acceptor.run(c, items))
        return [each for each in results if isinstance(each, Answer)]

    def apply(self, event: PaymentEvent, sale: Sale) -> None:
        self.ledger.write_now(lambda c: transitions.apply(c, event, [sale.id], self.clock.now_ms()))

    def give_back(self, sale: Sale) -> None:
        sale.purse.held -= sale.amount
        sale.purse.spent[sale.day] -= sale.amount


def reason_of(answer: Answer) -> str | None:
    reason: str | None = json.loads(answer.body).get("reasonCode")
    return reason


TestAcceptMachine = AcceptMachine.TestCase
TestAcceptMachine.settings = settings(
    max_examples=12,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

"""Refunds in the ledger: never more than was paid, whoever asks at once; a float that is short."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, select, update
from sqlalchemy.exc import IntegrityError

from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_gateway.ledger import (
    alerts,
    by_hand,
    claims,
    payment_alerts,
    queries,
    refund_shares,
    refunds,
    schema,
    transitions,
)
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.by_hand import UnknownPaymentError, WrongStateError
from taprail_gateway.ledger.card_signatures import StoredSignature
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.refunds import (
    NoFloatError,
    NotRefundableError,
    Refund,
    RequestReusedError,
    TooMuchError,
)
from tests.support.ledger_fixtures import (
    DAY,
    LANE,
    NOW_MS,
    PAYEE,
    Registry,
    on_both_engines,
    seed_registry,
)
from tests.support.ledger_payments import accepted, bound, completed
from tests.support.ledger_refunds import (
    FLOAT,
    asked,
    held,
    open_float,
    paid_back,
    problems,
    step,
    wanted,
)

pytestmark = on_both_engines

PAID = 100
BY = By("olga", NOW_MS + 1_000, "the shop is closed")


@pytest.fixture
def registry(ledger: Ledger) -> Registry:
    return seed_registry(ledger)


@pytest.fixture
def sale(ledger: Ledger, registry: Registry) -> str:
    """A completed sale of a merchant with a float that covers whatever comes."""
    open_float(ledger, registry)
    (sale,) = completed(ledger, registry, amount=PAID)
    return sale


def state_of(ledger: Ledger, payment: str) -> queries.Payment:
    found = ledger.read_now(lambda c: queries.payment(c, payment))
    assert found is not None
    return found


def given_back(ledger: Ledger, sale: str) -> int:
    return ledger.read_now(partial(refund_shares.refunded_units, sale_id=sale))


def spent(ledger: Ledger) -> int:
    s = schema.card_spend.c
    found = select(s.spent_units).where(s.day == DAY)
    return ledger.read_now(lambda c: int(c.scalar(found) or 0))


def claimable(ledger: Ledger) -> list[str]:
    found = ledger.write_now(lambda c: claims.claim(c, LANE, 10, NOW_MS + 10**9))
    return [each.id for each in found]


def open_alerts(ledger: Ledger) -> list[tuple[str, str]]:
    return [(each.kind, each.subject) for each in ledger.read_now(alerts.open_alerts)]


# --- what is asked for ------------------------------------------------------------------------


async def test_a_refund_is_a_payment_back_to_who_paid(
    ledger: Ledger, registry: Registry, sale: str
) -> None:
    refund = asked(ledger, sale, 40)
    stored = state_of(ledger, refund.id)
    assert (stored.payer, stored.payee) == (FLOAT, registry.cards[0].account)
    assert (stored.amount_units, stored.state) == (40, PaymentState.PENDING)
    assert (refund.sale_id, refund.state) == (sale, "pending")
    assert held(ledger) == 40
    assert spent(ledger) == PAID, "no day of the card is touched"
    assert claimable(ledger) == [refund.id]
    assert problems(ledger) == []


async def test_one_that_is_paid_gives_its_hold_back_and_keeps_its_part(
    ledger: Ledger, registry: Registry, sale: str
) -> None:
    refund = asked(ledger, sale, PAID)
    paid_back(ledger, refund.id)
    assert state_of(ledger, refund.id).state is PaymentState.COMPLETED
    assert (held(ledger), given_back(ledger, sale)) == (0, PAID)
    assert ledger.read_now(queries.totals_by_merchant) == {registry.merchant_id: PAID}
    with pytest.raises(TooMuchError, match="0 of 100 units"):
        asked(ledger, sale, 1)
    assert problems(ledger) == []


@pytest.mark.parametrize("state", [s for s in PaymentState if s is not PaymentState.COMPLETED])
async def test_only_what_is_paid_is_refunded(
    ledger: Ledger, registry: Registry, state: PaymentState
) -> None:
    open_float(ledger, registry)
    (sale,) = accepted(ledger, registry, amount=PAID)
    if state is PaymentState.FAILED:
        step(ledger, PaymentEvent.REJECT, sale)
    elif state is not PaymentState.PENDING:
        transaction = bound(ledger, [sale])
        if state is PaymentState.SENT:
            ledger.write_now(lambda c: transitions.mark_broadcast(c, [transaction], NOW_MS))
        if state is PaymentState.CONFIRMATION_FAILED:
            step(ledger, PaymentEvent.GIVE_UP, sale)
    with pytest.raises(NotRefundableError, match=f"is {state}, only what is completed"):
        asked(ledger, sale, PAID)
    assert ledger.read_now(partial(refunds.of_sale, sale_id=sale)) == []
    assert (held(ledger), given_back(ledger, sale)) == (0, 0)


async def test_a_refund_is_not_refunded(ledger: Ledger, sale: str) -> None:
    refund = asked(ledger, sale, 40)
    paid_back(ledger, refund.id)
    with pytest.raises(NotRefundableError, match="is a refund itself"):
        asked(ledger, refund.id, 10)


async def test_what_there_is_not_is_not_refunded(ledger: Ledger, sale: str) -> None:
    with pytest.raises(UnknownPaymentError):
        asked(ledger, "0x" + "00" * 32, 10)


async def test_without_a_float_nothing_is_promised(ledger: Ledger, registry: Registry) -> None:
    (sale,) = completed(ledger, registry, amount=PAID)
    with pytest.raises(NoFloatError, match="taprail admin merchant float merchant_1"):
        asked(ledger, sale, 10)
    assert given_back(ledger, sale) == 0
    assert problems(ledger) == []


async def test_the_same_request_is_the_same_refund(ledger: Ledger, sale: str) -> None:
    first = wanted(sale, 30, request_id="again")
    refund = ledger.write_now(partial(refunds.ask, wanted=first))
    paid_back(ledger, refund.id)
    again = ledger.write_now(partial(refunds.ask, wanted=first))
    assert (again.id, again.state) == (refund.id, "completed")
    assert given_back(ledger, sale) == 30
    other = wanted(sale, 31, request_id="again")
    with pytest.raises(RequestReusedError, match="another refund"):
        ledger.write_now(partial(refunds.ask, wanted=other))
    theirs = wanted(sale, 30, request_id="again", requester="refund:user:other")
    assert ledger.write_now(partial(refunds.ask, wanted=theirs)).id != refund.id
    assert given_back(ledger, sale) == 60


# --- never more than was paid -----------------------------------------------------------------


def all_at_once(
    ledger: Ledger, works: list[Callable[[Connection], Refund]]
) -> list[Refund | TooMuchError]:
    """Each in a transaction of its own, from four threads with connections of their own."""

    def attempt(work: Callable[[Connection], Refund]) -> Refund | TooMuchError:
        try:
            return ledger.write_now(work)
        except TooMuchError as exc:
            return exc

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(attempt, works))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    amounts=st.lists(st.integers(1, 60), min_size=1, max_size=10),
    failing=st.sets(st.integers(0, 9)),
    more=st.lists(st.integers(1, 60), max_size=6),
)
def test_refunds_never_come_to_more_than_was_paid(
    ledger: Ledger, sale: str, amounts: list[int], failing: set[int], more: list[int]
) -> None:
    _forget_refunds(ledger)
    first = _ask_all(ledger, sale, amounts)
    for i, refund in enumerate(first):
        if i in failing:
            step(ledger, PaymentEvent.REJECT, refund.id)
    kept = sum(refund.amount_units for i, refund in enumerate(first) if i not in failing)
    assert given_back(ledger, sale) == kept <= PAID
    second = _ask_all(ledger, sale, more)
    total = kept + sum(refund.amount_units for refund in second)
    assert given_back(ledger, sale) == total <= PAID
    # Promises only grew, so whoever was refused would not fit into what is left now either.
    assert len(second) == len(more) or max(more) + total > PAID
    assert held(ledger) == total
    assert problems(ledger) == []


def _ask_all(ledger: Ledger, sale: str, amounts: list[int]) -> list[Refund]:
    works = [partial(refunds.ask, wanted=wanted(sale, amount)) for amount in amounts]
    outcomes = all_at_once(ledger, list(works))
    return [each for each in outcomes if isinstance(each, Refund)]


def _forget_refunds(ledger: Ledger) -> None:
    """The file is the same for all examples; each begins with its own clean rows."""

    def work(connection: Connection) -> None:
        ids = list(connection.scalars(select(schema.refunds.c.payment_id)))
        connection.execute(delete(schema.refunds))
        connection.execute(delete(schema.refunded_sales))
        events = schema.payment_events
        connection.execute(delete(events).where(events.c.payment_id.in_(ids)))
        connection.execute(delete(schema.payments).where(schema.payments.c.id.in_(ids)))
        its_row = schema.accounts.c.address == FLOAT
        connection.execute(update(schema.accounts).where(its_row).values(held_units=0))

    ledger.write_now(work)


async def test_two_halves_and_a_bit_at_once_are_two_at_most(ledger: Ledger, sale: str) -> None:
    works = [partial(refunds.ask, wanted=wanted(sale, 51)) for _ in range(4)]
    outcomes = all_at_once(ledger, list(works))
    assert sum(isinstance(each, Refund) for each in outcomes) == 1
    assert given_back(ledger, sale) == 51


async def test_the_same_request_many_times_at_once_is_one_refund(ledger: Ledger, sale: str) -> None:
    first = wanted(sale, 10, request_id="eager")
    outcomes = all_at_once(ledger, [partial(refunds.ask, wanted=first)] * 8)
    assert {each.id for each in outcomes if isinstance(each, Refund)} == {first.payment_id}
    assert len(outcomes) == 8
    assert given_back(ledger, sale) == 10


async def test_the_database_itself_refuses_more(ledger: Ledger, sale: str) -> None:
    asked(ledger, sale, PAID)
    too_much = update(schema.refunded_sales).values(refunded_units=PAID + 1)
    with pytest.raises(IntegrityError):
        ledger.write_now(lambda c: c.execute(too_much).close())


async def test_one_that_fails_leaves_its_part_to_the_next(ledger: Ledger, sale: str) -> None:
    refund = asked(ledger, sale, PAID)
    ledger.write_now(partial(by_hand.cancel, payment_id=refund.id, by=BY))
    assert (held(ledger), given_back(ledger, sale)) == (0, 0)
    asked(ledger, sale, PAID)
    assert given_back(ledger, sale) == PAID
    assert spent(ledger) == PAID, "what fails was never spent, and is not returned"
    assert problems(ledger) == []


async def test_what_is_no_refund_gives_nothing_back(ledger: Ledger, sale: str) -> None:
    with pytest.raises(GuardError, match="not all of them are refunds"):
        ledger.write_now(lambda c: refund_shares.follow(c, PaymentEvent.REJECT, [sale]))


# --- the merchant's own signature -------------------------------------------------------------


async def test_what_the_merchant_has_signed_is_paid_from_where_the_sale_went(
    ledger: Ledger, registry: Registry
) -> None:
    (sale,) = completed(ledger, registry, amount=PAID)
    until_s = NOW_MS // 1000 + 3_600
    signed = refunds.Wanted(
        sale, 25, "refund:user:merle", "own", b"25", NOW_MS, StoredSignature(until_s, b"\1" * 65)
    )
    refund = ledger.write_now(partial(refunds.ask, wanted=signed))
    stored = state_of(ledger, refund.id)
    assert (stored.payer, stored.signed_until_s) == (PAYEE, until_s)
    assert claimable(ledger) == [refund.id], "a signature ends, so it does not wait"
    assert held(ledger, PAYEE) == 25
    with pytest.raises(WrongStateError, match="carried out by anyone until"):
        ledger.write_now(partial(by_hand.cancel, payment_id=refund.id, by=BY))
    assert problems(ledger) == []


# --- a reorg, and what the check finds --------------------------------------------------------


async def test_a_reorg_of_a_refunded_sale_is_told_and_nothing_else(
    ledger: Ledger, registry: Registry, sale: str
) -> None:
    (other,) = completed(ledger, registry, amount=PAID)
    refund = asked(ledger, sale, 40)
    for each in (sale, other):
        step(ledger, PaymentEvent.REORG, each)
    assert open_alerts(ledger) == [(payment_alerts.REFUNDED_ALERT, sale)]
    assert state_of(ledger, refund.id).state is PaymentState.PENDING
    assert given_back(ledger, sale) == 40
    assert problems(ledger) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (update(schema.refunded_sales).values(refunded_units=39), "has 39 of 100 promised back"),
        (update(schema.refunded_sales).values(refundable_units=101), "has 40 of 101 promised"),
        (delete(schema.refunded_sales), "has None of None promised back"),
        (update(schema.refunds).values(awaits_float=1), "waits for its float is not clear"),
    ],
)
async def test_what_is_wrong_with_a_refund_is_told(
    ledger: Ledger, sale: str, change: object, told: str
) -> None:
    asked(ledger, sale, 40)
    ledger.write_now(lambda c: c.execute(change).close())  # type: ignore[call-overload]
    (problem,) = problems(ledger)
    assert told in problem


async def test_a_refund_to_somebody_else_is_told(ledger: Ledger, sale: str) -> None:
    refund = asked(ledger, sale, 40)
    table = schema.payments
    astray = update(table).where(table.c.id == refund.id).values(payee=PAYEE)
    ledger.write_now(lambda c: c.execute(astray).close())
    (problem,) = problems(ledger)
    assert f"payment {refund.id} is no refund of {sale}" in problem

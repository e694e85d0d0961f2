"""What operators do to payments by hand, on both engines: the guards hold, and all is on record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
from sqlalchemy import Connection, select

from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_gateway.ledger import by_hand, claims, queries, queue_report, schema, transitions
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.by_hand import UnknownPaymentError, WrongStateError
from taprail_gateway.ledger.database import Ledger
from tests.support.ledger_fixtures import LANE, NOW_MS, Registry, on_both_engines, seed_registry
from tests.support.ledger_payments import AMOUNT_UNITS, VALID_BEFORE_S, accepted, bound, completed

pytestmark = on_both_engines

BY = By("olga", NOW_MS + 1_000, "she said so")


@pytest.fixture
def registry(ledger: Ledger) -> Registry:
    return seed_registry(ledger)


def step(ledger: Ledger, event: PaymentEvent, ids: Sequence[str]) -> None:
    ledger.write_now(lambda c: transitions.apply(c, event, ids, NOW_MS))


def given_up(ledger: Ledger, registry: Registry, count: int = 1) -> list[str]:
    ids = accepted(ledger, registry, count)
    bound(ledger, ids)
    step(ledger, PaymentEvent.GIVE_UP, ids)
    return ids


def sent(ledger: Ledger, registry: Registry, count: int = 1) -> tuple[list[str], int]:
    ids = accepted(ledger, registry, count)
    transaction = bound(ledger, ids)
    ledger.write_now(lambda c: transitions.mark_broadcast(c, [transaction], NOW_MS))
    return ids, transaction


def in_state(ledger: Ledger, registry: Registry, state: PaymentState) -> str:
    if state is PaymentState.COMPLETED:
        return completed(ledger, registry)[0]
    if state is PaymentState.CONFIRMATION_FAILED:
        return given_up(ledger, registry)[0]
    if state is PaymentState.SENT:
        return sent(ledger, registry)[0][0]
    (payment,) = accepted(ledger, registry)
    if state is PaymentState.PROCESSING:
        bound(ledger, [payment])
    elif state is PaymentState.FAILED:
        step(ledger, PaymentEvent.REJECT, [payment])
    return payment


def state_of(ledger: Ledger, payment: str) -> PaymentState:
    found = ledger.read_now(lambda c: queries.payment(c, payment))
    assert found is not None
    return found.state


def on_record(ledger: Ledger) -> list[tuple[str, str, str, str | None]]:
    a = schema.operator_actions.c
    statement = select(a.action, a.subject, a.actor, a.reason).order_by(a.id)
    return [tuple(row) for row in ledger.read_now(lambda c: c.execute(statement).all())]


def held(ledger: Ledger, registry: Registry) -> int:
    return ledger.read_now(queries.held_by_account)[registry.cards[0].account]


# --- one payment ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(PaymentState))
async def test_a_retry_is_for_what_is_on_the_list_alone(
    ledger: Ledger, registry: Registry, state: PaymentState
) -> None:
    payment = in_state(ledger, registry, state)
    before = held(ledger, registry)
    work: Callable[[Connection], None] = partial(by_hand.retry, payment_id=payment, by=BY)
    if state is not PaymentState.CONFIRMATION_FAILED:
        with pytest.raises(WrongStateError, match=f"is {state}, ") as refused:
            await ledger.write(work)
        assert refused.value.fix
        assert state_of(ledger, payment) is state
        assert on_record(ledger) == []
        return
    await ledger.write(work)
    assert state_of(ledger, payment) is PaymentState.PENDING
    assert held(ledger, registry) == before
    assert on_record(ledger) == [("retry", payment, "olga", "she said so")]
    last = ledger.read_now(lambda c: queries.history(c, payment))[-1]
    assert (last.event, last.detail) == ("retry", "by olga: she said so")
    assert ledger.read_now(queries.check_invariants) == []


@pytest.mark.parametrize("state", list(PaymentState))
async def test_only_what_waits_unsigned_is_cancelled(
    ledger: Ledger, registry: Registry, state: PaymentState
) -> None:
    payment = in_state(ledger, registry, state)
    work: Callable[[Connection], None] = partial(by_hand.cancel, payment_id=payment, by=BY)
    if state is not PaymentState.PENDING:
        with pytest.raises(WrongStateError, match=f"is {state}, ") as refused:
            await ledger.write(work)
        assert refused.value.fix
        assert on_record(ledger) == []
        return
    await ledger.write(work)
    found = ledger.read_now(lambda c: queries.payment(c, payment))
    assert found is not None
    assert (found.state, found.failure_reason) == (
        PaymentState.FAILED,
        "cancelled by operator: she said so",
    )
    assert held(ledger, registry) == 0
    assert on_record(ledger) == [("cancel", payment, "olga", "she said so")]
    assert ledger.read_now(queries.check_invariants) == []


async def test_what_was_signed_while_it_waited_is_not_cancelled(
    ledger: Ledger, registry: Registry
) -> None:
    (payment,) = accepted(ledger, registry)
    ledger.write_now(lambda c: claims.will_sign(c, [payment], VALID_BEFORE_S))
    with pytest.raises(WrongStateError, match="until 1970-01-01T00:10:00"):
        await ledger.write(partial(by_hand.cancel, payment_id=payment, by=BY))
    assert state_of(ledger, payment) is PaymentState.PENDING


async def test_a_payment_that_nobody_knows(ledger: Ledger, registry: Registry) -> None:
    for work in (by_hand.retry, by_hand.cancel):
        with pytest.raises(UnknownPaymentError, match="there is no payment 0x12"):
            await ledger.write(partial(work, payment_id="0x12", by=BY))


# --- many payments --------------------------------------------------------------------------------


async def test_unsigned_payments_are_cancelled_in_bounded_commits(
    ledger: Ledger, registry: Registry
) -> None:
    ids = accepted(ledger, registry, 5)
    ledger.write_now(lambda c: claims.will_sign(c, ids[:1], VALID_BEFORE_S))
    bound(ledger, ids[1:2])
    assert ledger.read_now(by_hand.unsigned_count) == 3
    counts = [await ledger.write(partial(by_hand.cancel_unsigned, by=BY, limit=2)) for _ in "123"]
    assert counts == [2, 1, 0]
    assert [str(state_of(ledger, each)) for each in ids] == [
        *("pending", "processing"),
        *("failed", "failed", "failed"),
    ]
    assert held(ledger, registry) == 2 * AMOUNT_UNITS
    assert [entry[0] for entry in on_record(ledger)] == ["cancel-unsent"] * 2
    assert ledger.read_now(queries.check_invariants) == []


async def test_the_list_holds_what_is_not_confirmed_and_a_retry_takes_it_off(
    ledger: Ledger, registry: Registry
) -> None:
    accepted(ledger, registry)
    first, second = given_up(ledger, registry, 2)
    listed = ledger.read_now(by_hand.review_list)
    assert {each.id for each in listed} == {first, second}
    assert {(each.bindings, each.signed_until_s) for each in listed} == {(1, VALID_BEFORE_S)}
    await ledger.write(partial(by_hand.retry, payment_id=first, by=BY))
    again = partial(by_hand.retry_listed, payment_ids=[first, second], by=BY)
    assert await ledger.write(again) == [second]
    assert await ledger.write(again) == []
    assert ledger.read_now(by_hand.review_list) == []


async def test_rescue_is_asked_for_what_was_sent_long_ago_and_binds_nothing_anew(
    ledger: Ledger, registry: Registry
) -> None:
    ids, transaction = sent(ledger, registry, 3)
    bound(ledger, accepted(ledger, registry))  # not taken by a node yet: nobody's to hasten
    early = await ledger.write(partial(by_hand.ask_rescue, older_than_s=2, by=BY))
    assert (early.payments, early.transactions) == (0, 0)
    assert on_record(ledger) == []
    stuck = await ledger.write(partial(by_hand.ask_rescue, older_than_s=1, by=BY))
    assert (stuck.payments, stuck.transactions) == (3, 1)
    open_ones = ledger.read_now(lambda c: queries.open_transactions(c, LANE))
    asked = {each.id: each.rescue_asked_at_ms for each in open_ones}
    assert asked.pop(transaction) == BY.at_ms
    assert set(asked.values()) == {None}
    assert {state_of(ledger, each) for each in ids} == {PaymentState.SENT}
    assert [entry[0] for entry in on_record(ledger)] == ["reset-stuck"]


async def test_the_report_counts_what_is_open_and_says_who_has_the_lane(
    ledger: Ledger, registry: Registry
) -> None:
    sent(ledger, registry, 2)
    given_up(ledger, registry)
    waiting = accepted(ledger, registry, 3)
    completed(ledger, registry)
    ledger.write_now(lambda c: claims.claim(c, LANE, 2, NOW_MS))
    ledger.write_now(lambda c: claims.will_sign(c, waiting[:1], VALID_BEFORE_S))
    report = ledger.read_now(partial(queue_report.report, now_ms=NOW_MS))
    counts = {str(each.state): each.count for each in report.states}
    assert counts == {"pending": 3, "processing": 0, "sent": 2, "confirmation_failed": 1}
    assert (report.never_signed, report.unfinished) == (2, 5)
    assert {each.oldest_ms for each in report.states} == {NOW_MS, None}
    (lane,) = report.lanes
    assert (lane.address, lane.next_nonce, lane.under_way, lane.claimed) == (LANE, 3, 3, 2)
    assert (lane.in_flight, lane.oldest_ms) == (2, NOW_MS)
    assert lane.lease_owner is not None
    assert lane.lease_until_ms is not None

"""Which logs pay which payment, and what the facts mean for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger.queries import BoundPayment
from taprail_gateway.ledger.schema import REFUSED_AFTER
from taprail_gateway.settle.calls import (
    AUTHORIZATION_CANCELED_TOPIC,
    AUTHORIZATION_USED_TOPIC,
    TRANSFER_TOPIC,
    address_topic,
)
from taprail_gateway.settle.executions import Fate, Place, Transfer, executed, fate
from taprail_gateway.settle.judge import (
    MAX_BINDINGS,
    MAX_LEFT_OUT,
    TRAVELLING,
    Facts,
    Step,
    expired,
    left_out,
    refused,
    transfer_of,
    why_left_out,
)
from taprail_gateway.settle.replies import Log

TOKEN, PAYER, PAYEE, OTHER = ("0x" + pair * 20 for pair in ("aa", "11", "22", "33"))
NONCE, NONCE_2 = "0x" + "01" * 32, "0x" + "02" * 32
TX, TX_2, BLOCK = "0x" + "a1" * 32, "0x" + "a2" * 32, "0x" + "b1" * 32
WANTED = Transfer(PAYER, PAYEE, 100, NONCE)
HERE = Place(TX, 7, BLOCK)


def log(index: int, *topics: str, data: str = "0x", address: str = TOKEN, tx: str = TX) -> Log:
    return Log(address, topics, data, 7, BLOCK, tx, index)


def used(index: int, nonce: str = NONCE, payer: str = PAYER, **more: str) -> Log:
    return log(index, AUTHORIZATION_USED_TOPIC, address_topic(payer), nonce, **more)


def cancelled(index: int, nonce: str = NONCE, payer: str = PAYER) -> Log:
    return log(index, AUTHORIZATION_CANCELED_TOPIC, address_topic(payer), nonce)


def moved(
    index: int, units: int = 100, *, payer: str = PAYER, payee: str = PAYEE, **more: str
) -> Log:
    topics = (TRANSFER_TOPIC, address_topic(payer), address_topic(payee))
    return log(index, *topics, data=f"0x{units:064x}", **more)


def test_a_used_authorization_with_its_transfer_beside_it_is_a_payment() -> None:
    assert executed(TOKEN, [used(4), moved(5)]) == {WANTED: HERE}
    assert executed(TOKEN, [moved(5), used(4)]) == {WANTED: HERE}, "whatever the order given"


def test_several_payments_in_one_transaction_are_kept_apart() -> None:
    logs = [used(0), moved(1), used(2, NONCE_2), moved(3, 250, payee=OTHER)]
    second = Transfer(PAYER, OTHER, 250, NONCE_2)
    assert executed(TOKEN, logs) == {WANTED: HERE, second: HERE}


@pytest.mark.parametrize(
    "logs",
    [
        [used(4)],
        [moved(5)],
        [used(4), moved(6)],
        [moved(3), used(4)],
        [used(4), moved(5, tx=TX_2)],
        [used(4), moved(5, payer=OTHER)],
        [used(4, address=OTHER), moved(5, address=OTHER)],
        [used(4, address=OTHER), moved(5)],
        [cancelled(4), moved(5)],
        [used(4), replace(moved(5), data="0x")],
        [used(4), replace(moved(5), topics=(TRANSFER_TOPIC,))],
    ],
)
def test_nothing_less_is_a_payment(logs: list[Log]) -> None:
    assert executed(TOKEN, logs) == {}


def test_one_transfer_never_pays_two_authorizations() -> None:
    assert len(executed(TOKEN, [used(0), moved(1), used(2, NONCE_2)])) == 1


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        ([used(4), moved(5)], HERE),
        ([], Fate.UNSEEN),
        ([used(4, NONCE_2), moved(5)], Fate.UNSEEN),
        ([used(4, payer=OTHER), moved(5, payer=OTHER)], Fate.UNSEEN),
        ([used(4, address=OTHER)], Fate.UNSEEN),
        ([used(4), moved(5, 99)], Fate.BURNT),
        ([used(4), moved(5, payee=OTHER)], Fate.BURNT),
        ([used(4)], Fate.BURNT),
        ([cancelled(4)], Fate.BURNT),
    ],
)
def test_the_fate_of_an_authorization(logs: list[Log], expected: Place | Fate) -> None:
    assert fate(WANTED, TOKEN, logs) == expected


def payment(
    state: PaymentState = PaymentState.SENT, bindings: int = 1, preflights: int = REFUSED_AFTER
) -> BoundPayment:
    why = "a preflight said no"
    return BoundPayment(NONCE, PAYER, PAYEE, 100, state, bindings, 0, 1, 600, why, preflights)


PAID = Facts(True, HERE, MAX_LEFT_OUT)
UNSPENT = Facts(False, Fate.UNSEEN)
LEFT_OUT = Facts(False, Fate.UNSEEN, MAX_LEFT_OUT)
NEARLY = Facts(False, Fate.UNSEEN, MAX_LEFT_OUT - 1)
BURNT = Facts(True, Fate.BURNT)
UNCLEAR = Facts(True, Fate.UNSEEN, MAX_LEFT_OUT)
PENDING = PaymentState.PENDING
GIVEN_UP = PaymentState.CONFIRMATION_FAILED


@pytest.mark.parametrize(
    ("state", "bindings", "facts", "step"),
    [
        (PaymentState.SENT, 1, PAID, Step.CONFIRM),
        (PaymentState.PROCESSING, MAX_BINDINGS, PAID, Step.CONFIRM),
        (GIVEN_UP, 1, PAID, Step.CONFIRM),
        (PaymentState.SENT, 1, UNSPENT, Step.UNBIND),
        (PaymentState.PROCESSING, MAX_BINDINGS - 1, UNSPENT, Step.UNBIND),
        (PaymentState.SENT, MAX_BINDINGS, UNSPENT, Step.GIVE_UP),
        (PaymentState.SENT, 5, NEARLY, Step.UNBIND),
        (PaymentState.SENT, 3, LEFT_OUT, Step.GIVE_UP),
        (GIVEN_UP, 3, LEFT_OUT, Step.LEAVE),
        (PaymentState.SENT, 1, BURNT, Step.GIVE_UP),
        (GIVEN_UP, 1, UNSPENT, Step.RETRY),
        (GIVEN_UP, 1, BURNT, Step.LEAVE),
        (PaymentState.SENT, 1, UNCLEAR, Step.WAIT),
        (GIVEN_UP, MAX_BINDINGS, UNCLEAR, Step.WAIT),
    ],
)
def test_a_payment_that_its_transaction_left_out(
    state: PaymentState, bindings: int, facts: Facts, step: Step
) -> None:
    judgement = left_out(payment(state, bindings), facts, "why")
    assert judgement.step is step
    assert (judgement.place == HERE) is (step is Step.CONFIRM)


@pytest.mark.parametrize(
    ("bindings", "facts", "before_proof", "with_proof"),
    [
        (1, PAID, Step.CONFIRM, Step.CONFIRM),
        (MAX_BINDINGS, PAID, Step.CONFIRM, Step.CONFIRM),
        (1, UNSPENT, Step.RETRY, Step.RETRY),
        (MAX_BINDINGS - 1, NEARLY, Step.RETRY, Step.RETRY),
        (MAX_BINDINGS, UNSPENT, Step.LEAVE, Step.DISPROVE),
        (3, LEFT_OUT, Step.LEAVE, Step.DISPROVE),
        (1, BURNT, Step.LEAVE, Step.DISPROVE),
        (1, UNCLEAR, Step.WAIT, Step.WAIT),
    ],
)
def test_a_given_up_payment_whose_authorizations_are_over(
    bindings: int, facts: Facts, before_proof: Step, with_proof: Step
) -> None:
    given_up = payment(GIVEN_UP, bindings)
    assert expired(given_up, facts, is_proven=False).step is before_proof
    assert expired(given_up, facts, is_proven=True).step is with_proof


@pytest.mark.parametrize(
    ("facts", "before_proof", "with_proof", "reason"),
    [
        (PAID, Step.CONFIRM, Step.CONFIRM, ""),
        (UNSPENT, Step.LEAVE, Step.REJECT, "a preflight said no"),
        (BURNT, Step.LEAVE, Step.REJECT, "its authorization was used up by its holder"),
        (UNCLEAR, Step.WAIT, Step.WAIT, ""),
    ],
)
def test_a_pending_payment_that_failed_its_preflights(
    facts: Facts, before_proof: Step, with_proof: Step, reason: str
) -> None:
    pending = payment(PENDING, 0)
    assert refused(pending, facts, is_proven=False).step is before_proof
    judgement = refused(pending, facts, is_proven=True)
    assert (judgement.step, judgement.reason) == (with_proof, reason)


def test_a_payment_that_is_tried_again_is_not_rejected_but_may_have_been_paid() -> None:
    pending = payment(PENDING, 0, REFUSED_AFTER - 1)
    assert refused(pending, UNSPENT, is_proven=True).step is Step.LEAVE
    assert refused(pending, PAID, is_proven=False).step is Step.CONFIRM


def test_nothing_is_held_against_a_payment_before_its_facts_are_clear() -> None:
    for state in (*TRAVELLING, GIVEN_UP, PENDING):
        steps = {
            left_out(payment(state, MAX_BINDINGS), UNCLEAR, "why").step,
            expired(payment(state, MAX_BINDINGS), UNCLEAR, is_proven=True).step,
            refused(payment(state, MAX_BINDINGS), UNCLEAR, is_proven=True).step,
        }
        assert steps == {Step.WAIT}


def test_the_reason_is_the_best_that_is_known() -> None:
    poor, rich = {PAYER: 99}, {PAYER: 100}
    assert "balance" in why_left_out(payment(), outcome="it did not run", balances=poor)
    assert why_left_out(payment(), outcome="it did not run", balances=rich) == "it did not run"
    assert why_left_out(payment(), outcome="it did not run", balances={}) == "it did not run"


def test_a_payment_is_looked_for_under_its_own_id() -> None:
    assert transfer_of(payment()) == WANTED

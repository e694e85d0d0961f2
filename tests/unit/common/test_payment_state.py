"""The table of payment states, checked as the whole product of states and events."""

import itertools

import pytest

from taprail_common.errors import IllegalTransitionError
from taprail_common.payment_state import (
    HOLDING,
    SETTLED,
    TRANSITIONS,
    PaymentEvent,
    PaymentState,
    next_state,
    sources_of,
    target_of,
)

S, E = PaymentState, PaymentEvent

# Written out from the design, not derived from the table under test.
ALLOWED = {
    S.PENDING: {E.BIND: S.PROCESSING, E.REJECT: S.FAILED, E.CONFIRM: S.COMPLETED},
    S.PROCESSING: {
        E.BROADCAST: S.SENT,
        E.CONFIRM: S.COMPLETED,
        E.UNBIND: S.PENDING,
        E.GIVE_UP: S.CONFIRMATION_FAILED,
    },
    S.SENT: {E.CONFIRM: S.COMPLETED, E.UNBIND: S.PENDING, E.GIVE_UP: S.CONFIRMATION_FAILED},
    S.CONFIRMATION_FAILED: {
        E.CONFIRM: S.COMPLETED,
        E.RETRY: S.PENDING,
        E.DISPROVE: S.FAILED,
    },
    S.COMPLETED: {E.REORG: S.SENT, E.REORG_UNBOUND: S.PENDING},
    S.FAILED: {},
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(S, E)))
def test_every_pair_of_state_and_event(state: PaymentState, event: PaymentEvent) -> None:
    expected = ALLOWED[state].get(event)
    if expected is None:
        with pytest.raises(IllegalTransitionError, match=f"a {state} payment cannot {event}"):
            next_state(state, event)
    else:
        assert next_state(state, event) is expected
        assert state in sources_of(event)
        assert target_of(event) is expected


def test_nothing_leads_out_of_failed_and_money_is_held_everywhere_else() -> None:
    assert not [event for (state, event) in TRANSITIONS if state is S.FAILED]
    assert frozenset(S) == HOLDING | SETTLED
    assert not HOLDING & SETTLED


def test_failed_is_reached_only_without_a_signature_or_with_proof() -> None:
    into_failed = {(state, event) for (state, event), to in TRANSITIONS.items() if to is S.FAILED}
    assert into_failed == {(S.PENDING, E.REJECT), (S.CONFIRMATION_FAILED, E.DISPROVE)}

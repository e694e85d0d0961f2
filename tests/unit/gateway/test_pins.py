"""When a PIN is asked for and what a wrong one costs, as a table."""

from __future__ import annotations

import pytest

from taprail_gateway.authorize import Profile, decide
from taprail_gateway.pins import MAX_TRIES, CardPin, PinJudgement, PinReason, PinTried, judge
from taprail_gateway.reasons import Reason
from tests.unit.gateway.test_authorize import case_of

RIGHT, WRONG, OLDER = PinTried(7, True), PinTried(7, False), PinTried(6, True)


@pytest.mark.parametrize(
    ("tries_left", "amount_units", "tried", "reason", "after"),
    [
        (3, 100, None, None, None),  # up to the threshold nobody is asked
        (3, 100, WRONG, None, None),  # and what is typed all the same costs nothing
        (3, 101, None, PinReason.REQUIRED, None),
        (3, 101, OLDER, PinReason.REQUIRED, None),  # the PIN was changed in between
        (3, 101, RIGHT, None, None),
        (1, 101, RIGHT, None, MAX_TRIES),
        (3, 101, WRONG, PinReason.WRONG, 2),
        (2, 101, WRONG, PinReason.WRONG, 1),
        (1, 101, WRONG, PinReason.BLOCKED, 0),
        (0, 101, RIGHT, PinReason.BLOCKED, None),
        (0, 100, None, None, None),
    ],
)
def test_a_pin_is_judged(
    tries_left: int,
    amount_units: int,
    tried: PinTried | None,
    reason: PinReason | None,
    after: int | None,
) -> None:
    judged = judge(CardPin(100, tries_left, 7), amount_units, tried)
    assert (judged.reason, judged.tries_left) == (reason, after)


def test_a_card_without_a_pin_is_never_asked() -> None:
    assert judge(None, 10**9, WRONG) == PinJudgement()


PIN = {"card": {"pin": CardPin(0, 3, 7)}, "request": {"pin": WRONG}}


def test_a_wrong_pin_costs_a_try_before_anything_is_told_of_the_balance() -> None:
    decision = decide(case_of(PIN, {"facts": {"available_units": 0}}))
    assert decision.declined is not None
    assert (decision.declined.reason, decision.pin_tries_left) == (PinReason.WRONG, 2)


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        ({"evidence": {"problem": Reason.CARD_PROOF_INVALID}}, Reason.CARD_PROOF_INVALID),
        ({"evidence": {"counter": 7}}, Reason.CARD_REPLAYED),
        ({"card": {"status": "frozen"}}, Reason.CARD_FROZEN),
        ({"card": {"single_limit_units": 1}}, Reason.SINGLE_LIMIT),
    ],
)
def test_only_a_tap_that_could_pay_spends_a_try(spoilt: dict[str, object], reason: Reason) -> None:
    changes = {**PIN, **spoilt}
    if "card" in spoilt:
        changes["card"] = {**PIN["card"], **spoilt["card"]}  # type: ignore[dict-item]
    decision = decide(case_of(changes))
    assert decision.declined is not None
    assert (decision.declined.reason, decision.pin_tries_left) == (reason, None)


def test_a_user_with_a_token_needs_no_pin() -> None:
    evidence = {"profile": Profile.APP, "uid_digest": None, "card_uuid": "card-1", "counter": None}
    assert decide(case_of(PIN, {"evidence": evidence, "request": {"pin": None}})).declined is None

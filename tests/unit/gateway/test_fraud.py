"""The fraud rules as a table: where each begins to speak, and what their points lead to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from taprail_common.money import MAX_AMOUNT_UNITS
from taprail_gateway import fraud
from taprail_gateway.activity import HOUR_MS, UNUSED, Activity
from taprail_gateway.authorize import MAX_TEXT, Rules, decide
from taprail_gateway.fraud_settings import DEFAULTS, FraudRule, FraudSettings
from taprail_gateway.reasons import Reason
from tests.unit.gateway.test_authorize import NOW_MS as CASE_NOW_MS
from tests.unit.gateway.test_authorize import case_of

NOW_MS = 1_800_000_000_000 // HOUR_MS * HOUR_MS
OLD_MS = 1_000 * HOUR_MS
QUIET = fraud.Tap(UNUSED, UNUSED, 100, 1, OLD_MS, NOW_MS)


def used(taps: int, *, declined: bool = False) -> Activity:
    """So many taps just now."""
    activity = UNUSED
    for _ in range(taps):
        activity = activity.after(NOW_MS, declined=declined)
    return activity


def usual(amount_units: int, times: int) -> Activity:
    return UNUSED._replace(payments=times, usual_units=amount_units, spread_units=0)


# Rule, a tap that is still usual, one that is not.
EDGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("card_minute", {"card": used(9)}, {"card": used(10)}),
    ("card_hour", {"card": used(59)}, {"card": used(60)}),
    ("terminal_minute", {"terminal": used(59)}, {"terminal": used(60)}),
    ("terminal_hour", {"terminal": used(1_799)}, {"terminal": used(1_800)}),
    ("card_declines", {"card": used(5, declined=True)}, {"card": used(6, declined=True)}),
    (
        "terminal_declines",
        {"terminal": used(60, declined=True)},
        {"terminal": used(61, declined=True)},
    ),
    (
        "amount",
        {"card": usual(100, 5), "amount_units": 500},
        {"card": usual(100, 5), "amount_units": 501},
    ),
    (
        "amount",
        {"card": usual(100, 4), "amount_units": 10**6},
        {"card": usual(100, 5), "amount_units": 10**6},
    ),
    ("counter_jump", {"counter_step": 101}, {"counter_step": 102}),
    ("new_card", {"card_age_ms": 24 * HOUR_MS}, {"card_age_ms": 24 * HOUR_MS - 1}),
]


def fired(**changes: Any) -> set[str]:
    return {each.rule for each in fraud.assess(replace(QUIET, **changes), DEFAULTS).fired}


def test_a_quiet_tap_is_beyond_suspicion() -> None:
    assert fraud.assess(QUIET, DEFAULTS) == fraud.NONE


@pytest.mark.parametrize(("rule", "under", "over"), EDGES, ids=[edge[0] for edge in EDGES])
def test_each_rule_speaks_from_its_bound_on(
    rule: str, under: dict[str, Any], over: dict[str, Any]
) -> None:
    assert rule not in fired(**under)
    assert rule in fired(**over)
    risk = fraud.assess(replace(QUIET, **over), DEFAULTS)
    assert all(each.points > 0 and each.text for each in risk.fired)


def test_every_rule_of_the_settings_is_tried() -> None:
    rules = {name for name, value in DEFAULTS if isinstance(value, FraudRule)}
    assert rules == {edge[0] for edge in EDGES}


@pytest.mark.parametrize(("rule", "over"), [(edge[0], edge[2]) for edge in EDGES])
def test_a_rule_without_points_is_off(rule: str, over: dict[str, Any]) -> None:
    off = FraudSettings.model_validate({rule: {"over": 0, "points": 0}})
    assert rule not in {each.rule for each in fraud.assess(replace(QUIET, **over), off).fired}


def test_a_card_that_always_varied_may_vary() -> None:
    varied = UNUSED._replace(payments=8, usual_units=100, spread_units=150)
    assert "amount" not in fired(card=varied, amount_units=700)
    assert "amount" in fired(card=varied, amount_units=701)


def test_a_card_without_a_counter_cannot_jump() -> None:
    assert fired(counter_step=None) == set()


def test_by_default_no_rule_alone_declines_nor_do_all_that_count_taps() -> None:
    points = {name: rule.points for name, rule in DEFAULTS if isinstance(rule, FraudRule)}
    assert max(points.values()) < DEFAULTS.decline_points
    counting = ("card_minute", "card_hour", "terminal_minute", "terminal_hour")
    assert sum(points[name] for name in counting) < DEFAULTS.decline_points


@pytest.mark.parametrize(
    ("points", "declines", "alerts"), [(29, False, False), (30, False, True), (40, True, True)]
)
def test_points_alert_and_then_decline(points: int, declines: bool, alerts: bool) -> None:
    settings = FraudSettings(
        alert_points=30, decline_points=40, counter_jump=FraudRule(over=0, points=points)
    )
    risk = fraud.assess(replace(QUIET, counter_step=2), settings)
    assert (risk.points, risk.declines, risk.alerts) == (points, declines, alerts)


def test_an_alert_above_the_decline_is_refused() -> None:
    with pytest.raises(ValidationError, match="alert_points must not be above decline_points"):
        FraudSettings(alert_points=101)


# --- as part of the decision ------------------------------------------------------------------

STRICT = Rules("TUSD", 6, fraud=FraudSettings(alert_points=1, decline_points=20))


def test_a_suspicious_tap_is_declined_with_all_rules_that_fired() -> None:
    change = {"card": {"created_at_ms": CASE_NOW_MS}, "evidence": {"counter": 1_000}}
    decision = decide(case_of(change, rules=STRICT))
    assert decision.declined is not None
    assert decision.declined.reason is Reason.HIGH_FRAUD_RISK
    assert {each.rule for each in decision.declined.rules} == {"counter_jump", "new_card"}
    assert decision.declined.text == (
        "High fraud risk: 992 taps of the card that were not made here;"
        " a card issued within 24 hours"
    )
    assert decision.counter == 1_000


def test_the_first_counter_that_is_seen_is_no_jump() -> None:
    change = {"card": {"sun_counter": 0}, "evidence": {"counter": 5_000}}
    assert decide(case_of(change, rules=STRICT)).declined is None


@pytest.mark.parametrize(
    "change",
    [
        {"evidence": {"counter": 7}},
        {"evidence": {"problem": Reason.CARD_PROOF_INVALID}},
        {"terminal": {"status": "revoked"}},
        {"facts": {"spent_units": 200_000_000}},
    ],
)
def test_what_is_declined_anyway_is_not_suspected(change: dict[str, Any]) -> None:
    new = {"card": {"created_at_ms": CASE_NOW_MS}}
    decision = decide(case_of(change, new, rules=STRICT))
    assert decision.declined is not None
    assert decision.declined.reason is not Reason.HIGH_FRAUD_RISK
    assert decision.risk == fraud.NONE


def test_suspicion_comes_before_the_balance() -> None:
    change = {"card": {"created_at_ms": CASE_NOW_MS}, "facts": {"available_units": 0}}
    declined = decide(case_of(change, rules=STRICT)).declined
    assert declined is not None
    assert declined.reason is Reason.HIGH_FRAUD_RISK


def test_all_rules_together_are_told_within_what_a_terminal_takes() -> None:
    busy = used(2_000, declined=True)._replace(payments=8, usual_units=1, spread_units=0)
    tap = fraud.Tap(busy, busy, MAX_AMOUNT_UNITS, 2**24, 0, NOW_MS)
    risk = fraud.assess(tap, DEFAULTS)
    assert len(risk.fired) == len({edge[0] for edge in EDGES})
    facts = {"card_activity": busy, "terminal_activity": busy}
    declined = decide(case_of({"facts": facts}, now_ms=NOW_MS)).declined
    assert declined is not None
    assert declined.reason is Reason.HIGH_FRAUD_RISK
    assert len(declined.text) <= MAX_TEXT

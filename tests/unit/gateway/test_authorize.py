"""The decision about a payment, as a table: every reason, and which of two comes first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from taprail_common.api.charges import ChargeStatus
from taprail_common.wire import CLOCK_SKEW_MS, TAP_VALIDITY_MS
from taprail_gateway.accept import priority
from taprail_gateway.authorize import (
    Card,
    Case,
    Evidence,
    Facts,
    PaymentRequest,
    Profile,
    Rules,
    Terminal,
    decide,
    spend_day,
)
from taprail_gateway.charges import Charge, Objection
from taprail_gateway.pins import PinReason
from taprail_gateway.reasons import Reason

NOW_MS = 1_800_000_000_000
CARD = Card(
    uuid="card-1",
    user_id="alice",
    account="0x" + "11" * 20,
    profile="sun",
    status="active",
    single_limit_units=50_000_000,
    daily_limit_units=200_000_000,
    time_zone="Europe/Berlin",
    sun_counter=7,
    key_version=1,
)
TERMINAL = Terminal("counter-1", "active", "kiosk", "active", "0x" + "22" * 20)
FACTS = Facts(CARD, TERMINAL, spent_units=0, available_units=100_000_000)
EVIDENCE = Evidence(Profile.SUN, uid_digest="digest", counter=8, key_version=1)
REQUEST = PaymentRequest(
    requester="counter-1",
    request_id="req-1",
    payment_id="0x" + "00" * 32,
    terminal_id="counter-1",
    merchant_id="kiosk",
    amount_units=3_000_000,
    currency="TUSD",
    tapped_at_ms=NOW_MS - 200,
    accept_until_ms=NOW_MS + TAP_VALIDITY_MS - 200,
    evidence=EVIDENCE,
)
RULES = Rules("TUSD", 6)

# How each part of a good case is spoilt, in the order in which the checks come. Later entries leave
# earlier checks alone, so that any two can be put together.
SPOILT: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.ACCEPT_UNTIL_PASSED, {"request": {"accept_until_ms": NOW_MS - 1}}),
    (Reason.CARD_UNKNOWN, {"facts": {"card": None}}),
    (Reason.CARD_PROOF_INVALID, {"evidence": {"problem": Reason.CARD_PROOF_INVALID}}),
    (Reason.CARD_REPLAYED, {"evidence": {"counter": 7}}),
    (Reason.TERMINAL_REVOKED, {"terminal": {"status": "revoked"}}),
    (Reason.INVALID_MERCHANT, {"request": {"merchant_id": "somebody"}}),
    (Reason.CARD_FROZEN, {"card": {"status": "frozen"}}),
    (Reason.USER_FROZEN, {"card": {"owner_frozen_at_ms": 1}}),
    (Reason.CURRENCY_UNSUPPORTED, {"request": {"currency": "EURX"}}),
    (Reason.SINGLE_LIMIT, {"card": {"single_limit_units": 2_999_999}}),
    (Reason.DAILY_LIMIT, {"facts": {"spent_units": 197_000_001}}),
    (Reason.INSUFFICIENT_BALANCE, {"facts": {"available_units": 2_999_999}}),
]


def case_of(*changes: dict[str, Any], now_ms: int = NOW_MS, rules: Rules = RULES) -> Case:
    """The good case, with changes to its parts."""
    merged: dict[str, dict[str, Any]] = {}
    for change in changes:
        for part, values in change.items():
            merged[part] = {**merged.get(part, {}), **values}
    card = replace(CARD, **merged.get("card", {}))
    terminal = replace(TERMINAL, **merged.get("terminal", {}))
    facts = replace(FACTS, **{"card": card, "terminal": terminal, **merged.get("facts", {})})
    evidence = replace(EVIDENCE, **merged.get("evidence", {}))
    request = replace(REQUEST, **{"evidence": evidence, **merged.get("request", {})})
    return Case(request, facts, rules, now_ms)


def reason_of(case: Case) -> Reason | Objection | PinReason | None:
    declined = decide(case).declined
    return None if declined is None else declined.reason


def test_a_good_tap_is_accepted_and_uses_up_its_counter() -> None:
    decision = decide(case_of())
    assert decision.declined is None
    assert decision.counter == 8


@pytest.mark.parametrize(("reason", "change"), SPOILT, ids=[str(reason) for reason, _ in SPOILT])
def test_each_thing_that_is_wrong_has_its_reason(reason: Reason, change: dict[str, Any]) -> None:
    assert reason_of(case_of(change)) == reason


@pytest.mark.parametrize("first", range(len(SPOILT)))
@pytest.mark.parametrize("second", range(len(SPOILT)))
def test_of_two_wrong_things_the_earlier_check_speaks(first: int, second: int) -> None:
    case = case_of(SPOILT[first][1], SPOILT[second][1])
    assert reason_of(case) == SPOILT[min(first, second)][0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"request": {"accept_until_ms": NOW_MS}}, None),
        ({"request": {"accept_until_ms": NOW_MS - 1}}, Reason.ACCEPT_UNTIL_PASSED),
        ({"request": {"accept_until_ms": NOW_MS + TAP_VALIDITY_MS + CLOCK_SKEW_MS}}, None),
        (
            {"request": {"accept_until_ms": NOW_MS + TAP_VALIDITY_MS + CLOCK_SKEW_MS + 1}},
            Reason.CLOCK_SKEW,
        ),
        ({"request": {"tapped_at_ms": NOW_MS + CLOCK_SKEW_MS}}, None),
        ({"request": {"tapped_at_ms": NOW_MS + CLOCK_SKEW_MS + 1}}, Reason.CLOCK_SKEW),
        ({"request": {"amount_units": 50_000_000}}, None),
        ({"request": {"amount_units": 50_000_001}}, Reason.SINGLE_LIMIT),
        ({"facts": {"spent_units": 197_000_000}}, None),
        ({"facts": {"available_units": 3_000_000}}, None),
        ({"facts": {"available_units": -5}}, Reason.INSUFFICIENT_BALANCE),
        ({"card": {"status": "expired"}}, Reason.CARD_EXPIRED),
        ({"card": {"expires_at_ms": NOW_MS + 1}}, None),
        ({"card": {"expires_at_ms": NOW_MS}}, Reason.CARD_EXPIRED),
        ({"card": {"expires_at_ms": NOW_MS, "status": "frozen"}}, Reason.CARD_FROZEN),
        ({"facts": {"terminal": None}}, Reason.TERMINAL_UNKNOWN),
        ({"terminal": {"merchant_status": "closed"}}, Reason.INVALID_MERCHANT),
        ({"evidence": {"card_uuid": "card-2"}}, Reason.CARD_PROOF_INVALID),
        ({"evidence": {"card_uuid": "card-1"}}, None),
        ({"evidence": {"key_version": 2}}, Reason.CARD_PROOF_INVALID),
        ({"evidence": {"counter": 9}}, None),
    ],
)
def test_the_bounds_are_exact(change: dict[str, Any], reason: Reason | None) -> None:
    assert reason_of(case_of(change)) == reason


def test_a_card_that_can_prove_itself_is_not_accepted_by_its_serial_number() -> None:
    uid_only = {"evidence": {"profile": Profile.UID, "counter": None, "key_version": None}}
    lenient = Rules("TUSD", 6, accept_uid_cards=True)
    assert reason_of(case_of(uid_only, rules=lenient)) == Reason.CARD_PROOF_INVALID
    uid_card = {"card": {"profile": "uid"}}
    assert reason_of(case_of(uid_only, uid_card, rules=lenient)) is None
    assert reason_of(case_of(uid_only, uid_card)) == Reason.CARD_PROFILE_DISABLED


def test_a_decline_after_the_proof_uses_up_the_tap_and_one_before_does_not() -> None:
    assert decide(case_of({"card": {"status": "frozen"}})).counter == 8
    assert decide(case_of({"evidence": {"counter": 7}})).counter is None
    assert decide(case_of({"request": {"accept_until_ms": NOW_MS - 1}})).counter is None


def test_an_app_names_its_card_without_a_proof() -> None:
    app = {
        "evidence": {
            "profile": Profile.APP,
            "uid_digest": None,
            "card_uuid": "card-1",
            "counter": None,
            "key_version": None,
        },
        "request": {"accept_until_ms": None, "currency": None},
    }
    decision = decide(case_of(app))
    assert decision.declined is None
    assert decision.counter is None


def test_a_limit_says_what_is_left_in_the_words_of_people() -> None:
    declined = decide(case_of({"facts": {"spent_units": 199_999_999 - 2_200_000}})).declined
    assert declined is not None
    assert declined.text == "Insufficient daily limit: 2.200001 left today"
    assert declined.left_units == 2_200_001


def test_what_a_customer_owns_is_not_told_to_the_merchant() -> None:
    declined = decide(case_of({"facts": {"available_units": 1_234_567}})).declined
    assert declined is not None
    assert declined.left_units is None
    assert "1.2" not in declined.text


def test_large_amounts_are_sent_first() -> None:
    assert [priority(units) for units in (1, 1_000_000, 1_000_001)] == [5, 5, 10]


@pytest.mark.parametrize(
    ("time_zone", "day"),
    [("UTC", "2027-01-15"), ("Asia/Tokyo", "2027-01-16"), ("America/Los_Angeles", "2027-01-15")],
)
def test_the_day_is_the_cards_own(time_zone: str, day: str) -> None:
    just_before_midnight_utc = NOW_MS + (15 * 60 + 59) * 60_000  # 2027-01-15T23:59Z
    assert spend_day(just_before_midnight_utc, time_zone) == day


# --- charges --------------------------------------------------------------------------------------

CHARGE = Charge(
    id="chg-1",
    terminal_id=REQUEST.terminal_id,
    merchant_id="kiosk",
    user_id="bob",
    reference="order-1",
    idempotency_key=None,
    amount_units=REQUEST.amount_units,
    currency="TUSD",
    status=ChargeStatus.ARMED,
    reason_code=None,
    payment_id=None,
    created_at_ms=NOW_MS - 10_000,
    deadline_ms=NOW_MS,
    armed_at_ms=None,
    ended_at_ms=None,
    changed_at_ms=NOW_MS,
)


def charged(charge: Charge | None = CHARGE, **request: Any) -> Case:
    asked = {"charge_id": "chg-1", "currency": "TUSD", **request}
    return case_of({"facts": {"charge": charge}, "request": asked})


@pytest.mark.parametrize("status", [ChargeStatus.WAITING, ChargeStatus.ARMED])
def test_a_tap_pays_the_charge_that_it_names(status: ChargeStatus) -> None:
    assert reason_of(charged(replace(CHARGE, status=status))) is None
    # A tap that names none has nothing to do with a charge that is open.
    assert reason_of(case_of({"facts": {"charge": None}})) is None


@pytest.mark.parametrize(
    ("charge", "reason"),
    [
        (None, Objection.UNKNOWN),
        (replace(CHARGE, terminal_id="counter-2"), Objection.UNKNOWN),
        (replace(CHARGE, status=ChargeStatus.CANCELLED), Objection.CANCELLED),
        (replace(CHARGE, status=ChargeStatus.EXPIRED), Objection.EXPIRED),
        (replace(CHARGE, status=ChargeStatus.APPROVED), Objection.CLOSED),
        (replace(CHARGE, status=ChargeStatus.DECLINED), Objection.CLOSED),
        (replace(CHARGE, status=ChargeStatus.REFUSED), Objection.CLOSED),
        (replace(CHARGE, deadline_ms=NOW_MS - 1), Objection.EXPIRED),
        (replace(CHARGE, amount_units=CHARGE.amount_units + 1), Objection.MISMATCH),
        (replace(CHARGE, currency="EURC"), Objection.MISMATCH),
    ],
)
def test_a_tap_pays_no_other_charge(charge: Charge | None, reason: Objection) -> None:
    decision = decide(charged(charge))
    assert decision.declined is not None
    assert decision.declined.reason is reason
    assert decision.counter == EVIDENCE.counter  # the tap is used up all the same

"""What the gateway makes of taps that were taken without asking: the whole table, purely."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taprail_common.errors import InputError
from taprail_common.wire import (
    CLOCK_SKEW_MS,
    MAX_BODY_BYTES,
    SIGNED_VALIDITY_S,
    TAP_VALIDITY_MS,
    SigningTerms,
)
from taprail_gateway.offline_policy import (
    Limits,
    Seller,
    Standing,
    Terms,
    issue,
    longest_s,
    objection,
    revision,
)
from taprail_gateway.reasons import Reason

NOW = 1_800_000_000_000
AGE_S, AGE = 3_600, 3_600_000
LIMITS = Limits(per_tap_units=10, max_count=3, sum_units=25, max_age_s=AGE_S)
TERMS = Terms(4, LIMITS, set_at_ms=NOW - 10 * AGE)
SIGNING = SigningTerms(
    chain_id=1,
    token="0x" + "ab" * 20,
    token_name="X" * 1_000,
    token_version="2",
    payee="0x" + "cd" * 20,
)
SELLER = Seller("t1", "cafe", "USDC", SIGNING)


@dataclass(frozen=True)
class Tap:
    tapped_at_ms: int = NOW - AGE // 2
    accept_until_ms: int | None = NOW + AGE // 2
    amount_units: int = 10
    is_offline: bool = True
    signs: bool = True


TAP, ALONE = Tap(), Standing(TERMS)


@pytest.mark.parametrize(
    ("tap", "standing", "reason"),
    [
        (TAP, ALONE, None),
        (replace(TAP, accept_until_ms=NOW - 1), ALONE, Reason.ACCEPT_UNTIL_PASSED),
        (replace(TAP, tapped_at_ms=NOW + CLOCK_SKEW_MS + 1), ALONE, Reason.CLOCK_SKEW),
        (replace(TAP, signs=False), ALONE, Reason.OFFLINE_NOT_ALLOWED),
        (TAP, Standing(), Reason.OFFLINE_NOT_ALLOWED),
        (replace(TAP, accept_until_ms=NOW + AGE // 2 + 1), ALONE, Reason.OFFLINE_NOT_ALLOWED),
        (TAP, Standing(replace(TERMS, set_at_ms=NOW)), Reason.OFFLINE_NOT_ALLOWED),
        (TAP, Standing(replace(TERMS, ended_at_ms=NOW - AGE)), None),
        (TAP, Standing(replace(TERMS, ended_at_ms=NOW - 2 * AGE)), Reason.OFFLINE_NOT_ALLOWED),
        (replace(TAP, amount_units=11), ALONE, Reason.OFFLINE_LIMIT),
        (TAP, Standing(TERMS, 2, 15), None),
        (TAP, Standing(TERMS, 3, 15), Reason.OFFLINE_LIMIT),
        (TAP, Standing(TERMS, 2, 16), Reason.OFFLINE_LIMIT),
    ],
)
def test_each_bound(tap: Tap, standing: Standing, reason: Reason | None) -> None:
    assert objection(tap, standing, NOW) is reason


def test_nothing_of_it_is_for_taps_that_were_asked_about() -> None:
    online = replace(TAP, is_offline=False, tapped_at_ms=NOW, accept_until_ms=NOW + TAP_VALIDITY_MS)
    assert objection(online, Standing(), NOW) is None
    # The longer life of an offline tap cannot be had by leaving its name away.
    assert objection(replace(TAP, is_offline=False), ALONE, NOW) is Reason.CLOCK_SKEW
    assert longest_s(online, ALONE) == SIGNED_VALIDITY_S + CLOCK_SKEW_MS // 1000
    assert longest_s(TAP, ALONE) == longest_s(online, ALONE) + AGE_S


@given(
    st.builds(
        Tap,
        tapped_at_ms=st.integers(NOW - 2 * AGE, NOW + AGE),
        accept_until_ms=st.integers(NOW - AGE, NOW + 3 * AGE),
        amount_units=st.integers(1, 30),
        signs=st.booleans(),
    ),
    st.builds(Standing, st.just(TERMS), st.integers(0, 5), st.integers(0, 40)),
)
def test_what_is_let_through_is_within_every_bound(tap: Tap, standing: Standing) -> None:
    if objection(tap, standing, NOW) is not None:
        return
    assert tap.signs
    assert tap.accept_until_ms is not None
    assert NOW <= tap.accept_until_ms <= tap.tapped_at_ms + AGE
    assert tap.amount_units <= LIMITS.per_tap_units
    assert standing.waiting + 1 <= LIMITS.max_count
    assert standing.waiting_units + tap.amount_units <= LIMITS.sum_units


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"per_tap_units": 0}, "amount"),
        ({"sum_units": 9}, "sum"),
        ({"max_count": 0}, "count"),
        ({"max_count": 51}, "count"),
        ({"max_age_s": 59}, "age"),
        ({"max_age_s": 86_401}, "age"),
    ],
)
def test_limits_that_make_no_sense_are_refused(change: dict[str, int], field: str) -> None:
    with pytest.raises(InputError, match=field):
        replace(LIMITS, **change)


def test_a_policy_takes_no_amount_that_needs_a_pin_and_fits_into_an_answer() -> None:
    frozen = [f"0x{number:040x}" for number in range(256)]
    policy = issue(SELLER, TERMS, frozen, NOW)
    assert policy is not None
    assert len(policy.to_json()) < MAX_BODY_BYTES
    assert policy.names(frozen[255])
    assert not policy.names("0x" + "ff" * 20)
    assert (policy.revision, policy.version) == (revision(TERMS, frozen[::-1]), 4)
    assert policy.revision != revision(TERMS, frozen[1:])
    asks_above_3 = issue(replace(SELLER, ask_pin_above_units=3), TERMS, [], NOW)
    assert asks_above_3 is not None
    assert asks_above_3.per_tap_units == 3
    assert issue(replace(SELLER, ask_pin_above_units=0), TERMS, [], NOW) is None

"""How use is remembered: windows against an exact count, and amounts of a fixed memory."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taprail_common.money import MAX_AMOUNT_UNITS
from taprail_gateway.activity import HOUR_MS, MINUTE_MS, UNUSED, Activity

NOW_MS = 1_800_000_000_000 // HOUR_MS * HOUR_MS


def after(times_ms: list[int], *, declined: bool = False) -> Activity:
    activity = UNUSED
    for at_ms in times_ms:
        activity = activity.after(at_ms, declined=declined)
    return activity


def test_what_was_never_used_has_nothing() -> None:
    assert UNUSED.taps_in_a_minute(NOW_MS) == UNUSED.taps_in_an_hour(NOW_MS) == 0
    assert UNUSED.declines_in_an_hour(NOW_MS) == 0


@pytest.mark.parametrize(
    ("later_ms", "taps"),
    [(0, 10), (59_999, 10), (60_000, 10), (75_000, 7), (90_000, 5), (119_999, 0), (120_000, 0)],
)
def test_a_minute_is_forgotten_bit_by_bit(later_ms: int, taps: int) -> None:
    assert after([NOW_MS] * 10).taps_in_a_minute(NOW_MS + later_ms) == taps


def test_an_hour_counts_what_its_minutes_have_forgotten() -> None:
    activity = after([NOW_MS + minute * 3 * MINUTE_MS for minute in range(20)])
    assert activity.taps_in_an_hour(NOW_MS + HOUR_MS - 1) == 20
    assert activity.taps_in_a_minute(NOW_MS + HOUR_MS - 1) == 0


def test_declines_are_taps_too() -> None:
    activity = after([NOW_MS] * 3, declined=True).after(NOW_MS, declined=False)
    assert activity.taps_in_an_hour(NOW_MS) == 4
    assert activity.declines_in_an_hour(NOW_MS) == 3


def test_a_steady_stream_is_counted_exactly() -> None:
    every_ms = 2_000
    times = [NOW_MS + number * every_ms for number in range(200)]
    activity = UNUSED
    for at_ms in times:
        activity = activity.after(at_ms, declined=False)
        exact = sum(at_ms - MINUTE_MS < each <= at_ms for each in times)
        assert abs(activity.taps_in_a_minute(at_ms) - exact) <= 1


@given(st.lists(st.integers(0, 3 * HOUR_MS), max_size=60), st.integers(0, 4 * HOUR_MS))
def test_no_window_counts_more_than_two_periods_hold(offsets: list[int], later_ms: int) -> None:
    times = sorted(NOW_MS + offset for offset in offsets)
    now_ms = max([NOW_MS + later_ms, *times])
    activity = after(times)
    held = sum(each > now_ms - 2 * MINUTE_MS for each in times)
    assert 0 <= activity.taps_in_a_minute(now_ms) <= held


@given(st.lists(st.integers(0, 10 * HOUR_MS), min_size=1, max_size=30))
def test_a_clock_that_jumps_breaks_nothing(offsets: list[int]) -> None:
    """Whatever the order of the times: no count is below zero or above all taps."""
    activity = after([NOW_MS + offset for offset in offsets])
    for at_ms in (NOW_MS, NOW_MS + offsets[-1], NOW_MS + 20 * HOUR_MS):
        assert 0 <= activity.taps_in_an_hour(at_ms) <= len(offsets)


def test_a_clock_set_far_back_does_not_count_for_ever() -> None:
    ahead = after([NOW_MS + 1_000 * HOUR_MS] * 50)
    assert ahead.after(NOW_MS, declined=False).taps_in_an_hour(NOW_MS) == 1


def paid(amounts: list[int]) -> Activity:
    activity = UNUSED
    for amount in amounts:
        activity = activity.after(NOW_MS, declined=False, amount_units=amount)
    return activity


def test_the_usual_amount_is_the_mean_at_first() -> None:
    activity = paid([100, 200, 300])
    assert activity.usual_units == 200
    assert activity.payments == 3
    assert 0 < activity.spread_units <= 150


def test_the_usual_amount_follows_a_new_habit() -> None:
    activity = paid([100] * 50 + [1_000] * 40)
    assert 950 <= activity.usual_units <= 1_000
    assert activity.spread_units < 100


def test_a_decline_is_no_payment() -> None:
    activity = paid([100] * 5)
    declined = activity.after(NOW_MS, declined=True)
    assert declined[-3:] == activity[-3:]


@given(st.lists(st.integers(1, MAX_AMOUNT_UNITS), min_size=1, max_size=40))
def test_amounts_stay_between_the_least_and_the_most(amounts: list[int]) -> None:
    """Which also says that they fit the 64 bits of their columns."""
    activity = paid(amounts)
    assert min(amounts) - 8 <= activity.usual_units <= max(amounts) + 8
    assert -4 <= activity.spread_units <= max(amounts)


def test_the_size_does_not_grow() -> None:
    chance = random.Random(1)
    old = paid([chance.randrange(1, MAX_AMOUNT_UNITS) for _ in range(5_000)])
    assert len(old) == len(UNUSED)
    assert max(old) < 2**63

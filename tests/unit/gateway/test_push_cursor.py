"""A cursor covers what was told, and no more, however late numbers come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taprail_gateway.push_cursor import MAX_GAPS, Cursor, ranges

NUMBERS = st.sets(st.integers(1, 60), min_size=1)


@given(told=NUMBERS)
def test_it_covers_what_was_told_and_nothing_else(told: set[int]) -> None:
    newest = max(told)
    missing = ranges(set(range(1, newest)) - told)
    cursor = Cursor.at(newest, missing)
    covered = {number for number in range(1, newest + 2) if cursor.covers(number)}
    if len(missing) <= MAX_GAPS:
        assert covered == told
    else:
        assert covered <= told  # something is told again, nothing is left out
    assert all(cursor.covers(number) for number in range(1, cursor.settled + 1))


@given(told=NUMBERS)
def test_its_text_is_read_back(told: set[int]) -> None:
    cursor = Cursor.at(max(told), ranges(set(range(1, max(told))) - told))
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text",
    ["", "x", "-1", "7.", "7.3-1", "7.9", "7.3.2", "9" * 30, "7" + ".1" * 9, "\u0667", "7\n", 7],
)
def test_what_is_no_cursor_is_none(text: object) -> None:
    assert Cursor.parse(text) is None


def test_gaps_after_the_step_are_not_its_own() -> None:
    assert Cursor.at(10, [(3, 4), (8, 8), (12, 15)]) == Cursor(10, ((3, 4), (8, 8)))

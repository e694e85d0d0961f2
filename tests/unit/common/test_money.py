"""Amounts: exact in both directions, bounded, and never a float."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taprail_common.errors import InputError
from taprail_common.money import MAX_AMOUNT_UNITS, check_amount, format_amount, parse_amount


@pytest.mark.parametrize(
    ("text", "units"),
    [("12.50", 12_500_000), ("0.000001", 1), ("1", 1_000_000), (" 3.2 ", 3_200_000)],
)
def test_parse(text: str, units: int) -> None:
    assert parse_amount(text, 6) == units


@pytest.mark.parametrize(
    "text",
    ["", "0", "0.00", "-1", "+1", "1e3", "1,50", "1.2345678", ".5", "1.", "٣", "0x10", "1 000"],
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_amount(text, 6)
    assert caught.value.field == "amount"


def test_more_digits_than_the_token_has_are_refused() -> None:
    with pytest.raises(InputError, match="at most 2 digits"):
        parse_amount("1.234", 2)


def test_bounds() -> None:
    assert check_amount(MAX_AMOUNT_UNITS) == 2**53 - 1
    for wrong in (0, -1, MAX_AMOUNT_UNITS + 1):
        with pytest.raises(InputError):
            check_amount(wrong)


@given(st.integers(1, MAX_AMOUNT_UNITS), st.integers(0, 6))
def test_text_and_back(units: int, decimals: int) -> None:
    assert parse_amount(format_amount(units, decimals), decimals) == units


@pytest.mark.parametrize(
    ("units", "decimals", "text"),
    [(12_500_000, 6, "12.50"), (1, 6, "0.000001"), (-3_200_000, 6, "-3.20"), (7, 0, "7")],
)
def test_format(units: int, decimals: int, text: str) -> None:
    assert format_amount(units, decimals) == text

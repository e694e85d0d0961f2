"""Amounts on the display: by language and currency, and every digit that matters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taprail_common.money import MAX_AMOUNT_UNITS, MAX_DECIMALS
from taprail_terminal.feedback.amounts import amount_text, sign_of, sum_text
from taprail_terminal.feedback.messages import CATALOGUES, ENGLISH, Catalogue, Language

VIETNAMESE = CATALOGUES[Language.VIETNAMESE]


@pytest.mark.parametrize(
    ("units", "decimals", "currency", "english", "vietnamese"),
    [
        (12_500_000, 6, "USDC", "12.50 USDC", "12,50 USDC"),
        (1_250_500_001, 6, "USDC", "1,250.500001 USDC", "1.250,500001 USDC"),
        (999, 2, "EUR", "9.99 €", "9,99 €"),
        (250_000, 0, "VND", "250,000 ₫", "250.000 ₫"),
        (250_000_000_000, 6, "VNDC", "250,000 VNDC", "250.000 VNDC"),
        (250_000_500_000, 6, "VNDC", "250,000.50 VNDC", "250.000,50 VNDC"),
        (1, 6, "USDC", "0.000001 USDC", "0,000001 USDC"),
    ],
)
def test_an_amount_is_written_as_its_readers_write_it(
    units: int, decimals: int, currency: str, english: str, vietnamese: str
) -> None:
    assert sum_text(units, decimals, currency, ENGLISH) == english
    assert sum_text(units, decimals, currency, VIETNAMESE) == vietnamese


@given(
    st.integers(1, MAX_AMOUNT_UNITS),
    st.integers(0, MAX_DECIMALS),
    st.sampled_from(["USDC", "VND", "JPYC", "EUR"]),
    st.sampled_from(list(CATALOGUES.values())),
)
def test_no_digit_is_lost(units: int, decimals: int, currency: str, words: Catalogue) -> None:
    text = amount_text(units, decimals, currency, words)
    whole, _, fraction = text.replace(words["number.group"], "").partition(words["number.point"])
    assert int(whole) * 10**decimals + int(fraction.ljust(decimals, "0") or "0") == units


def test_a_token_keeps_its_name() -> None:
    assert (sign_of("USDC"), sign_of("USD")) == ("USDC", "$")

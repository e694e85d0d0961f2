"""Each reason code has words for customers and words for operators, and there are no others."""

from __future__ import annotations

import pytest

from taprail_common.operator_words import WORDS, what_to_do
from taprail_gateway.charges import Objection
from taprail_gateway.pins import PinReason
from taprail_gateway.reasons import Reason
from taprail_terminal.card_session import BANK_CARD, UNKNOWN_CARD
from taprail_terminal.feedback.messages import ENGLISH
from taprail_terminal.readers.polling import TWO_CARDS
from taprail_terminal.sale import (
    CARD_CHANGED,
    NOT_SETTLED,
    PAYMENT_FAILED,
    CardTorn,
    CardUnreadable,
    NotSent,
)
from taprail_terminal.signing_session import CANNOT_SIGN, NOT_BY_CARD, NOT_READY

DECLINES = {*map(str, Reason), *map(str, Objection), *map(str, PinReason)}
REFUSALS = {
    each.code for each in (BANK_CARD, UNKNOWN_CARD, TWO_CARDS, CANNOT_SIGN, NOT_BY_CARD, NOT_READY)
}
AGAIN = {CARD_CHANGED, CardTorn("").code, CardUnreadable("").code, NotSent("", "").code}
RETURNED = {NOT_SETTLED, PAYMENT_FAILED}


def test_the_table_is_complete() -> None:
    codes = DECLINES | REFUSALS | AGAIN | RETURNED
    assert codes <= set(WORDS)
    customers = {key.split(".")[1] for key in ENGLISH if key.startswith("reason.")}
    assert set(WORDS) == customers


@pytest.mark.parametrize("code", WORDS)
def test_operators_get_one_short_sentence_of_their_own(code: str) -> None:
    words = WORDS[code]
    assert words != ENGLISH[f"reason.{code}"]
    assert 10 < len(words) <= 160
    assert words.isascii()  # a serial console may know nothing else
    assert words.count("`") % 2 == 0


def test_a_code_of_a_newer_program_has_no_advice() -> None:
    assert what_to_do("card_too_young") is None

"""Amounts as a customer reads them, by language and currency, and never rounded.

Answers for text only. What an amount is worth, and how many digits it has, is in `money`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from taprail_common.money import format_amount
from taprail_terminal.feedback.messages import Catalogue

_GROUP_DIGITS: Final = 3


@dataclass(frozen=True, slots=True)
class _Habit:
    """How a currency is written: its sign, and whether it has small coins."""

    sign: str
    has_coins: bool = True


# Signs by Unicode; no coins where ISO 4217 has exponent 0, or where nobody has seen one for decades
# (VND has 0 there too). Tokens keep their own names: a promise of a dollar is not a dollar.
_HABITS: Final = {
    "USD": _Habit("$"),
    "EUR": _Habit("€"),
    "GBP": _Habit("£"),
    "JPY": _Habit("¥", has_coins=False),
    "KRW": _Habit("KRW", has_coins=False),
    "VND": _Habit("₫", has_coins=False),
    "JPYC": _Habit("JPYC", has_coins=False),
    "VNDC": _Habit("VNDC", has_coins=False),
}


def sign_of(currency: str) -> str:
    """What stands beside an amount: the currency's sign, or its code where it has none."""
    habit = _HABITS.get(currency)
    return currency if habit is None else habit.sign


def amount_text(amount_units: int, decimals: int, currency: str, words: Catalogue) -> str:
    """An amount like "1,250.50" or "250.000": every digit that matters, and no other."""
    whole, _, fraction = format_amount(amount_units, decimals).partition(".")
    habit = _HABITS.get(currency)
    if habit is not None and not habit.has_coins and not fraction.strip("0"):
        fraction = ""
    grouped = _grouped(whole, words["number.group"])
    return f"{grouped}{words['number.point']}{fraction}" if fraction else grouped


def sum_text(amount_units: int, decimals: int, currency: str, words: Catalogue) -> str:
    """An amount with what it is of, for a line of text."""
    return f"{amount_text(amount_units, decimals, currency, words)} {sign_of(currency)}"


def _grouped(digits: str, separator: str) -> str:
    head = len(digits) % _GROUP_DIGITS
    groups = [digits[at : at + _GROUP_DIGITS] for at in range(head, len(digits), _GROUP_DIGITS)]
    return separator.join([digits[:head], *groups] if head else groups)

"""Amounts are integers in a token's smallest unit; text only at the edges.

Answers for the bounds of an amount and for its exact conversion from and to decimal text. It knows
nothing of currencies: the number of decimals comes from the token.
"""

from __future__ import annotations

import re
from typing import Final

from taprail_common.errors import InputError

# The largest integer that every JSON reader keeps exactly (RFC 8259 section 6, IEEE 754 double).
MAX_AMOUNT_UNITS: Final = 2**53 - 1

# USDC, EURC and PYUSD have 6. With more, everyday amounts would not fit MAX_AMOUNT_UNITS.
MAX_DECIMALS: Final = 6

# Fewer digits than this look odd on a price tag: 12.5 is shown as 12.50.
_SHOWN_DECIMALS: Final = 2

_DECIMAL_TEXT = re.compile(r"(\d{1,16})(?:\.(\d{1,6}))?", re.ASCII)


def parse_amount(text: str, decimals: int) -> int:
    """Turn "12.50" into units (12_500_000 at 6 decimals).

    Raises InputError when the text is no plain positive decimal number, has more digits after the
    point than the token, or exceeds MAX_AMOUNT_UNITS.
    """
    match = _DECIMAL_TEXT.fullmatch(text.strip())
    if match is None:
        raise InputError("amount", f"{text[:40]!r} is not an amount; write it like 12.50")
    whole, fraction = match.group(1), match.group(2) or ""
    if len(fraction) > decimals:
        raise InputError("amount", f"at most {decimals} digits may follow the point")
    return check_amount(int(whole) * 10**decimals + int(fraction.ljust(decimals, "0") or "0"))


def check_amount(amount_units: int) -> int:
    """Give the amount back when it is one that TapRail moves; else raise InputError."""
    if not 0 < amount_units <= MAX_AMOUNT_UNITS:
        raise InputError("amount", f"must be between 1 and {MAX_AMOUNT_UNITS} units")
    return amount_units


def format_amount(amount_units: int, decimals: int) -> str:
    """Show units as decimal text: at least two digits after the point, all that matter."""
    sign, units = ("-", -amount_units) if amount_units < 0 else ("", amount_units)
    whole, rest = divmod(units, 10**decimals)
    if decimals == 0:
        return f"{sign}{whole}"
    fraction = str(rest).rjust(decimals, "0").rstrip("0")
    return f"{sign}{whole}.{fraction.ljust(min(_SHOWN_DECIMALS, decimals), '0')}"

"""Taps that a terminal took while it could not ask: what it may, and whether one kept to it.

Pure: the policy's row and what else waited come in. A terminal checks all of this itself before it
takes a card; here it is checked again, because a terminal can be broken into. Who is wrongly let
through harms nobody but the merchant, who would be paid; so in doubt about a moment (clocks differ
by `CLOCK_SKEW_MS`) the tap counts as taken. All else about it is decided as of any other tap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from taprail_common.clock import rfc3339
from taprail_common.errors import InputError
from taprail_common.money import check_amount
from taprail_common.offline_wire import (
    FROZEN_DIGITS,
    LEAST_AGE_S,
    MAX_COUNT,
    MOST_AGE_S,
    OfflinePolicy,
)
from taprail_common.wire import (
    CLOCK_SKEW_MS,
    SIGNED_VALIDITY_S,
    TAP_VALIDITY_MS,
    SigningTerms,
    from_ms,
)
from taprail_gateway.reasons import Reason


@dataclass(frozen=True, slots=True)
class Limits:
    """What an operator allows a terminal. Raises InputError that names the field."""

    per_tap_units: int
    max_count: int
    sum_units: int
    max_age_s: int

    def __post_init__(self) -> None:
        check_amount(self.per_tap_units)
        check_amount(self.sum_units)
        if self.sum_units < self.per_tap_units:
            raise InputError("sum", "must be no less than what one tap may pay")
        if not 1 <= self.max_count <= MAX_COUNT:
            raise InputError("count", f"must be 1 to {MAX_COUNT}")
        if not LEAST_AGE_S <= self.max_age_s <= MOST_AGE_S:
            raise InputError("age", f"must be {LEAST_AGE_S} to {MOST_AGE_S} seconds")


@dataclass(frozen=True, slots=True)
class Terms:
    """One version of a terminal's policy, and when it held; `ended_at_ms` is None while it does."""

    version: int
    limits: Limits
    set_at_ms: int
    ended_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a tap is held against: the version that it names, and the other offline taps of its
    terminal that had not reached the gateway when it was made."""

    terms: Terms | None = None
    waiting: int = 0
    waiting_units: int = 0


NOWHERE: Final = Standing()


class Tap(Protocol):
    """What of a payment request these rules look at."""

    @property
    def tapped_at_ms(self) -> int: ...
    @property
    def accept_until_ms(self) -> int | None: ...
    @property
    def amount_units(self) -> int: ...
    @property
    def is_offline(self) -> bool: ...
    @property
    def signs(self) -> bool: ...


WORDS: Final = {
    Reason.ACCEPT_UNTIL_PASSED: "The tap is too old and was not charged",
    # A terminal whose clock is ahead would keep its taps chargeable for longer than a tap lives.
    Reason.CLOCK_SKEW: "The terminal's clock is wrong",
    Reason.OFFLINE_NOT_ALLOWED: "The terminal may not take this without asking",
    Reason.OFFLINE_LIMIT: "The terminal took more without asking than it may",
}
"""An objection as people read it on a decline."""


def objection(tap: Tap, standing: Standing, now_ms: int) -> Reason | None:
    """Why a tap comes too late, or from a terminal that may not have taken it; None if neither."""
    until_ms = tap.accept_until_ms
    if until_ms is None:
        return None
    if now_ms > until_ms:
        return Reason.ACCEPT_UNTIL_PASSED
    if tap.tapped_at_ms > now_ms + CLOCK_SKEW_MS:
        return Reason.CLOCK_SKEW
    if tap.is_offline:
        return _offline(tap, until_ms, standing)
    return Reason.CLOCK_SKEW if until_ms - now_ms > TAP_VALIDITY_MS + CLOCK_SKEW_MS else None


def longest_s(tap: Tap, standing: Standing) -> int:
    """How long what a card has signed may be valid still: longer, where the tap was to wait."""
    waits_s = standing.terms.limits.max_age_s if tap.is_offline and standing.terms else 0
    return SIGNED_VALIDITY_S + CLOCK_SKEW_MS // 1000 + waits_s


def _offline(tap: Tap, until_ms: int, standing: Standing) -> Reason | None:
    terms = standing.terms
    if terms is None or not tap.signs:
        return Reason.OFFLINE_NOT_ALLOWED
    limits, age_ms = terms.limits, terms.limits.max_age_s * 1000
    # A policy that has ended was signed for so long, and its terminal may not have heard of it.
    end_ms = None if terms.ended_at_ms is None else terms.ended_at_ms + age_ms + CLOCK_SKEW_MS
    is_late = end_ms is not None and tap.tapped_at_ms > end_ms
    is_early = tap.tapped_at_ms < terms.set_at_ms - CLOCK_SKEW_MS
    if is_late or is_early or until_ms - tap.tapped_at_ms > age_ms:
        return Reason.OFFLINE_NOT_ALLOWED
    is_within = (
        tap.amount_units <= limits.per_tap_units
        and standing.waiting < limits.max_count
        and standing.waiting_units + tap.amount_units <= limits.sum_units
    )
    return None if is_within else Reason.OFFLINE_LIMIT


@dataclass(frozen=True, slots=True)
class Seller:
    """Whom a policy is for; `ask_pin_above_units` is what takes a PIN, which nobody could check
    offline."""

    terminal_id: str
    merchant_id: str
    currency: str
    signing: SigningTerms
    ask_pin_above_units: int | None = None


def revision(terms: Terms, frozen: Sequence[str]) -> str:
    """Names a policy's content, but for when it was issued."""
    digest = hashlib.sha256(" ".join(sorted(frozen)).encode()).hexdigest()[:16]
    return f"{terms.version}-{digest}"


def issue(seller: Seller, terms: Terms, frozen: Sequence[str], now_ms: int) -> OfflinePolicy | None:
    """The policy to be signed; `frozen` are accounts of cards. None where a PIN is asked for
    everything."""
    limits, pin_above = terms.limits, seller.ask_pin_above_units
    per_tap = limits.per_tap_units if pin_above is None else min(limits.per_tap_units, pin_above)
    if per_tap <= 0:
        return None
    return OfflinePolicy(
        terminal_id=seller.terminal_id,
        merchant_id=seller.merchant_id,
        currency=seller.currency,
        version=terms.version,
        issued_at=from_ms(now_ms),
        per_tap_units=per_tap,
        max_count=limits.max_count,
        sum_units=limits.sum_units,
        max_age_s=limits.max_age_s,
        revision=revision(terms, frozen),
        frozen=tuple(sorted(account[-FROZEN_DIGITS:] for account in frozen)),
        signing=seller.signing,
    )


def loss_text(amount: str, terminal_id: str, tapped_at_ms: int, why: str) -> str:
    """What an operator is told of a tap that was taken and cannot be charged."""
    return f"{amount} taken offline at {terminal_id} on {rfc3339(tapped_at_ms)}, declined: {why}"

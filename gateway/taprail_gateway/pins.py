"""A card's PIN, as a decision sees it: when one is asked for, and what a wrong one costs.

Pure. Above a card's threshold a payment needs the PIN; three wrong ones in a row freeze the card.
Only a tap that has proved itself comes here, so nobody can freeze a card that they do not hold.
Whether a PIN is right was found out before (`pin_desk`), since that takes a tenth of a second; what
decides is whether it was found out about the PIN that the card still has.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_TRIES: Final = 3


class PinReason(StrEnum):
    """Why a payment is declined for its PIN; also reasons of the public contract."""

    REQUIRED = "pin_required"
    WRONG = "pin_wrong"
    BLOCKED = "pin_blocked"


SOFT: Final = frozenset({PinReason.REQUIRED, PinReason.WRONG})
"""After which the same sale may be tapped again, with the right PIN."""


@dataclass(frozen=True, slots=True)
class CardPin:
    """What is known of a card's PIN. `set_at_ms` tells one PIN from the one before."""

    above_units: int
    tries_left: int
    set_at_ms: int


@dataclass(frozen=True, slots=True)
class PinTried:
    """A PIN came with the tap, and is right or wrong for the one that was set then."""

    set_at_ms: int
    is_right: bool


@dataclass(frozen=True, slots=True)
class PinJudgement:
    """`tries_left` is what the card has left from now on; None when that does not change."""

    reason: PinReason | None = None
    text: str = ""
    tries_left: int | None = None


_FINE: Final = PinJudgement()


def judge(pin: CardPin | None, amount_units: int, tried: PinTried | None) -> PinJudgement:
    """What the PIN says to a payment; `pin` is None for a card without one."""
    if pin is None or amount_units <= pin.above_units:
        return _FINE
    if pin.tries_left == 0:
        return PinJudgement(PinReason.BLOCKED, "The card's PIN is blocked")
    if tried is None or tried.set_at_ms != pin.set_at_ms:
        return PinJudgement(PinReason.REQUIRED, "This amount needs the card's PIN")
    if tried.is_right:
        return _FINE if pin.tries_left == MAX_TRIES else PinJudgement(tries_left=MAX_TRIES)
    left = pin.tries_left - 1
    if left == 0:
        return PinJudgement(PinReason.BLOCKED, "Wrong PIN: the card is frozen now", 0)
    return PinJudgement(PinReason.WRONG, f"Wrong PIN: {left} more before the card is frozen", left)

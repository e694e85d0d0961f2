"""`[fraud]`: what each rule looks for, how many points it gives, and how many are too many."""

from __future__ import annotations

from typing import Final, Self

from pydantic import Field, model_validator

from taprail_common.config import Settings

_MOST: Final = 1_000_000


class FraudRule(Settings):
    """`over`: what is still usual. `points`: what more than that gives; 0 switches the rule off."""

    over: int = Field(ge=0, le=_MOST)
    points: int = Field(ge=0, le=1_000)


def _rule(over: int, points: int) -> FraudRule:
    return FraudRule(over=over, points=points)


class FraudSettings(Settings):
    """By default no single rule declines anything, nor do all that only count taps: a busy counter
    is no fraud. It takes what looks wrong as well."""

    decline_points: int = Field(default=100, ge=1, le=_MOST)
    """From here on a tap is declined."""
    alert_points: int = Field(default=70, ge=1, le=_MOST)
    """From here on an operator is told."""
    card_minute: FraudRule = _rule(10, 30)
    """Taps of one card within a minute."""
    card_hour: FraudRule = _rule(60, 20)
    terminal_minute: FraudRule = _rule(60, 10)
    """Taps at one terminal within a minute."""
    terminal_hour: FraudRule = _rule(1_800, 10)
    card_declines: FraudRule = _rule(5, 30)
    """Declined taps of one card within an hour, of those that proved themselves."""
    terminal_declines: FraudRule = _rule(60, 20)
    """Declined taps at one terminal within an hour, of any kind."""
    amount: FraudRule = _rule(5, 40)
    """How many times its usual amount a card may pay, once it has paid some times."""
    counter_jump: FraudRule = _rule(100, 40)
    """Taps that a card has made elsewhere since the last one here: someone may be reading it."""
    new_card: FraudRule = _rule(24, 20)
    """Hours since a card was issued, within which it is new."""

    @model_validator(mode="after")
    def _alerts_first(self) -> Self:
        if self.alert_points > self.decline_points:
            raise ValueError("alert_points must not be above decline_points")
        return self


DEFAULTS: Final = FraudSettings()

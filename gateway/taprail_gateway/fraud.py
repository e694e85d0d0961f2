"""How suspicious a tap is: rules that each give points and a sentence, and what the points mean.

Pure: a tap, what is known of its card and its terminal, and the settings go in; the rules that
fired come out, so that a decline can be explained to whoever asks. Every rule looks at a fixed
number of numbers (see `activity`), so none of them slows down as a card grows old.

What anyone can bring about who has only copied a card's data (a replayed tap) counts for nothing
against the card: else a stranger could have it declined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from taprail_gateway.activity import HOUR_MS, Activity
from taprail_gateway.fraud_settings import FraudRule, FraudSettings

MIN_PAYMENTS: Final = 5
"""So many times a card must have paid before an amount can be unusual for it."""

_SPREADS: Final = 4
"""Mean deviations from the mean beyond which an amount is unusual; RFC 6298 section 2 waits for as
many. Without it a card that pays 1 or 100 by turns would be suspected for ever."""


@dataclass(frozen=True, slots=True)
class Tap:
    """What the rules look at. `counter_step`: by how much the card's tap counter rose since the
    last tap here; None when it has none, or was never tapped here."""

    card: Activity
    terminal: Activity
    amount_units: int
    counter_step: int | None
    card_age_ms: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class Fired:
    """One rule that found something: its name in the settings, its points, and why, for people."""

    rule: str
    points: int
    text: str


@dataclass(frozen=True, slots=True)
class Risk:
    """All rules that fired, and what follows."""

    fired: tuple[Fired, ...]
    points: int
    declines: bool
    alerts: bool

    @property
    def text(self) -> str:
        """The sentences of all rules that fired."""
        return "; ".join(each.text for each in self.fired)


NONE: Final = Risk((), 0, declines=False, alerts=False)

_Rule = Callable[[Tap, int], str | None]
"""Why the rule fires, when there is more than is usual; else None."""


def assess(tap: Tap, settings: FraudSettings) -> Risk:
    """Ask every rule."""
    fired = tuple(_fired(tap, settings))
    if not fired:
        return NONE
    points = sum(each.points for each in fired)
    return Risk(
        fired,
        points,
        declines=points >= settings.decline_points,
        alerts=points >= settings.alert_points,
    )


def _fired(tap: Tap, settings: FraudSettings) -> Iterator[Fired]:
    for name, rule in _RULES.items():
        wanted: FraudRule = getattr(settings, name)
        if wanted.points:
            text = rule(tap, wanted.over)
            if text is not None:
                yield Fired(name, wanted.points, text)


def _card_minute(tap: Tap, over: int) -> str | None:
    taps = tap.card.taps_in_a_minute(tap.now_ms) + 1
    return f"{taps} taps of the card within a minute" if taps > over else None


def _card_hour(tap: Tap, over: int) -> str | None:
    taps = tap.card.taps_in_an_hour(tap.now_ms) + 1
    return f"{taps} taps of the card within an hour" if taps > over else None


def _terminal_minute(tap: Tap, over: int) -> str | None:
    taps = tap.terminal.taps_in_a_minute(tap.now_ms) + 1
    return f"{taps} taps at the terminal within a minute" if taps > over else None


def _terminal_hour(tap: Tap, over: int) -> str | None:
    taps = tap.terminal.taps_in_an_hour(tap.now_ms) + 1
    return f"{taps} taps at the terminal within an hour" if taps > over else None


def _card_declines(tap: Tap, over: int) -> str | None:
    declines = tap.card.declines_in_an_hour(tap.now_ms)
    return f"{declines} declines of the card within an hour" if declines > over else None


def _terminal_declines(tap: Tap, over: int) -> str | None:
    declines = tap.terminal.declines_in_an_hour(tap.now_ms)
    return f"{declines} declines at the terminal within an hour" if declines > over else None


def _amount(tap: Tap, over: int) -> str | None:
    usual, spread = tap.card.usual_units, tap.card.spread_units
    if tap.card.payments < MIN_PAYMENTS or tap.amount_units <= usual + _SPREADS * spread:
        return None
    # What is usual is between the customer and the gateway: the sentence goes to a merchant.
    return f"more than {over} times its usual amount" if tap.amount_units > over * usual else None


def _counter_jump(tap: Tap, over: int) -> str | None:
    if tap.counter_step is None or tap.counter_step - 1 <= over:
        return None
    return f"{tap.counter_step - 1} taps of the card that were not made here"


def _new_card(tap: Tap, over: int) -> str | None:
    return f"a card issued within {over} hours" if tap.card_age_ms < over * HOUR_MS else None


_RULES: Final[dict[str, _Rule]] = {
    "card_minute": _card_minute,
    "card_hour": _card_hour,
    "terminal_minute": _terminal_minute,
    "terminal_hour": _terminal_hour,
    "card_declines": _card_declines,
    "terminal_declines": _terminal_declines,
    "amount": _amount,
    "counter_jump": _counter_jump,
    "new_card": _new_card,
}
"""By their names in the settings."""

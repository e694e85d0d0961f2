"""What each view looks and sounds like: the EMV grammar of lights and sounds, as a pure function.

Answers for meaning, told by position, pattern, words and sound together, never by colour alone.
It draws no pixel (`screens`) and drives no pin (`gpio`).

    phase           1 2 3 4   red    amber   sound         (— on, · off, ~ changing)
    idle            ~ · · ·   ·      ·                     a wink every five seconds
    ready           — · · ·   ·      ·
    reading         — — · ·   ·      ·
    pin             — — — ~   ·      ·       short beep    card read, lift it; type the PIN
    waiting         — — — —   ·      ·       short beep    card read, lift it: no approval
    approved        ~ ~ ~ ~   ·      ·       rising        all four flash together
    settled         ~ ~ ~ ~   ·      ·                     one after the other, again and again
    declined        · · · ·   —      ·       double low
    card refused    · · · ·   ~      ·       double low
    unknown         · · · ·   ·      ~ slow  long middle
    offline         — ~ ~ —   ·      —       high, middle  taken; the gateway is yet to be asked
    try again       ~ · · ·   ·      ·       quick ticks   quick, where the card belongs
    out of service  · · · ·   —      —

A card that is forgotten on the reader changes none of these lights: what came of the sale stays,
and three high tones ask for it to be taken away.

Idle, ready and card read are those of EMV Contactless Book A, user interface requirements; it
leaves the result of the payment to the terminal, and so the rest is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from taprail_terminal.feedback import sounds
from taprail_terminal.feedback.amounts import amount_text, sign_of, sum_text
from taprail_terminal.feedback.lights import OFF, ON, Lights, Pattern
from taprail_terminal.feedback.messages import ENGLISH, Catalogue, reason_text
from taprail_terminal.feedback.sounds import Sound
from taprail_terminal.offline import LOSS
from taprail_terminal.sale import NOT_SETTLED, PAYMENT_FAILED, Phase, View


class Icon(StrEnum):
    """A picture that needs no language."""

    NONE = "none"
    WAVE = "wave"
    CHECK = "check"
    LINK = "link"
    CROSS = "cross"
    HOURGLASS = "hourglass"
    CLOCK = "clock"
    KEYS = "keys"
    RETRY = "retry"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Screen:
    """What the display says. With an `amount` it is the largest thing on it."""

    headline: str
    lines: tuple[str, ...] = ()
    icon: Icon = Icon.NONE
    amount: str | None = None
    currency: str = ""
    lift_card: str | None = None
    """Words of the bar that asks to take the card away; None shows no bar."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that a customer sees and hears."""

    lights: Lights
    sound: Sound
    screen: Screen


# EMV Contactless Book A, user interface: idle is about 200 ms of light every 5 s.
_IDLE_WINK: Final = Pattern(period_ms=5000, on_ms=200)
_QUICK: Final = Pattern(period_ms=250, on_ms=125)
_FLASH: Final = Pattern(period_ms=500, on_ms=250)
_BLINK: Final = Pattern(period_ms=1000, on_ms=500)
# Slow enough to say "patience", and unlike anything else on the front.
_SLOW: Final = Pattern(period_ms=2000, on_ms=1000)


def _filling(position: int) -> Pattern:
    return Pattern(
        period_ms=1600, on_ms=1600 - 300 * (position + 1), offset_ms=300 * (position + 1)
    )


_LIGHTS: Final[dict[Phase, Lights]] = {
    Phase.IDLE: Lights(emv=(_IDLE_WINK, OFF, OFF, OFF)),
    Phase.READY: Lights(emv=(ON, OFF, OFF, OFF)),
    Phase.READING: Lights(emv=(ON, ON, OFF, OFF)),
    Phase.PIN: Lights(emv=(ON, ON, ON, _BLINK)),
    Phase.WAITING: Lights(emv=(ON, ON, ON, ON)),
    Phase.APPROVED: Lights(emv=(_FLASH, _FLASH, _FLASH, _FLASH)),
    Phase.SETTLED: Lights(emv=(_filling(0), _filling(1), _filling(2), _filling(3))),
    Phase.DECLINED: Lights(red=ON),
    Phase.CARD_REFUSED: Lights(red=_BLINK),
    Phase.UNKNOWN: Lights(amber=_SLOW),
    # Amber, so that it is no approval; the two in the middle, so that it is not unknown either.
    Phase.OFFLINE: Lights(emv=(ON, _BLINK, _BLINK, ON), amber=ON),
    Phase.TRY_AGAIN: Lights(emv=(_QUICK, OFF, OFF, OFF)),
    Phase.OUT_OF_SERVICE: Lights(red=ON, amber=ON),
}

_SOUNDS: Final[dict[Phase, Sound]] = {
    Phase.PIN: sounds.CARD_READ,
    Phase.WAITING: sounds.CARD_READ,
    Phase.APPROVED: sounds.APPROVED,
    Phase.DECLINED: sounds.DECLINED,
    Phase.CARD_REFUSED: sounds.DECLINED,
    Phase.UNKNOWN: sounds.UNKNOWN,
    Phase.OFFLINE: sounds.OFFLINE,
    Phase.TRY_AGAIN: sounds.TRY_AGAIN,
}


def scene(view: View, words: Catalogue = ENGLISH) -> Scene:
    """What the view looks and sounds like."""
    screen = _SCREENS[view.phase](view, words)
    sound = _SOUNDS.get(view.phase, sounds.SILENCE)
    return Scene(_LIGHTS[view.phase], sounds.CARD_LEFT if view.left_behind else sound, screen)


def self_test_screen(words: Catalogue = ENGLISH) -> Screen:
    """What the display shows while it is being tested."""
    return Screen(words["test.headline"], (words["test.line"],), Icon.CHECK)


def _idle(view: View, words: Catalogue) -> Screen:
    if view.typed:
        screen = _prompt(view, words, "typed.prompt", Icon.KEYS)
        return replace(screen, amount=_as_typed(view, words))
    return _result(view, words, "idle", Icon.WAVE, (view.idle_text or words["idle.line"],))


def _ready(view: View, words: Catalogue) -> Screen:
    # A card that lies there already is not read: it has to come anew, for this amount.
    return _prompt(view, words, "ready.lift" if view.card_present else "ready.prompt", Icon.WAVE)


def _reading(view: View, words: Catalogue) -> Screen:
    # No "lift card" here: the card has to stay.
    screen = _prompt(view, words, "reading.prompt", Icon.HOURGLASS)
    return replace(screen, lift_card=None)


def _pin(view: View, words: Catalogue) -> Screen:
    screen = _prompt(view, words, "pin.prompt", Icon.KEYS)
    return replace(screen, headline=view.typed) if view.typed else screen


def _waiting(view: View, words: Catalogue) -> Screen:
    # Once the card is away, whoever comes next is the one to read this.
    key = "waiting.prompt" if view.card_present else "waiting.next"
    return _prompt(view, words, key, Icon.HOURGLASS)


def _approved(view: View, words: Catalogue) -> Screen:
    shows_code = view.auth_code is not None and not view.late
    code = (words["auth_code"].format(code=view.auth_code),) if shows_code else ()
    return _result(view, words, "approved", Icon.CHECK, (*_sum(view, words), *code))


def _settled(view: View, words: Catalogue) -> Screen:
    lines = (*_sum(view, words), words["settled.line"])
    return _result(view, words, "settled", Icon.LINK, lines)


def _declined(view: View, words: Catalogue) -> Screen:
    came_back = view.reason_code in {NOT_SETTLED, PAYMENT_FAILED, LOSS}
    key = "not_settled" if came_back else "declined"
    return _result(view, words, key, Icon.CROSS, _why(view, words, words["not_charged"]))


def _unknown(view: View, words: Catalogue) -> Screen:
    # Who waits sees it stay; who sells may go on beneath it.
    going_on = (words["next_sale"].format(sum=_as_typed(view, words)),) if view.typed else ()
    lines = (words["unknown.line"], *(going_on or _sum(view, words)))
    return _result(view, words, "unknown", Icon.HOURGLASS, lines)


def _offline(view: View, words: Catalogue) -> Screen:
    lines = (*_sum(view, words), words["offline.line"])
    return _result(view, words, "offline", Icon.CLOCK, lines)


def _try_again(view: View, words: Catalogue) -> Screen:
    # By its code alone: what went wrong on the air in detail is for the log.
    why = words.get(f"reason.{view.reason_code}", words["try_again.line"])
    return _result(view, words, "try_again", Icon.RETRY, (why,))


def _card_refused(view: View, words: Catalogue) -> Screen:
    lines = _why(view, words, words["card_refused.line"])
    return _result(view, words, "card_refused", Icon.CROSS, lines)


def _out_of_service(view: View, words: Catalogue) -> Screen:
    # The reader's fault is told to the technician (`status`), not to the customer.
    line = words.get(f"reason.{view.reason}", words["out_of_service.line"])
    return _result(view, words, "out_of_service", Icon.CLOSED, (line,))


_SCREENS: Final[dict[Phase, Callable[[View, Catalogue], Screen]]] = {
    Phase.IDLE: _idle,
    Phase.READY: _ready,
    Phase.READING: _reading,
    Phase.PIN: _pin,
    Phase.WAITING: _waiting,
    Phase.APPROVED: _approved,
    Phase.SETTLED: _settled,
    Phase.DECLINED: _declined,
    Phase.UNKNOWN: _unknown,
    Phase.OFFLINE: _offline,
    Phase.TRY_AGAIN: _try_again,
    Phase.CARD_REFUSED: _card_refused,
    Phase.OUT_OF_SERVICE: _out_of_service,
}


def _prompt(view: View, words: Catalogue, key: str, icon: Icon) -> Screen:
    """The amount, and what to do."""
    return Screen(
        words[key],
        icon=icon,
        amount=_amount(view, words),
        currency=sign_of(view.currency),
        lift_card=_lift_card(view, words),
    )


def _result(view: View, words: Catalogue, key: str, icon: Icon, lines: tuple[str, ...]) -> Screen:
    """What came of it, and why."""
    total = _sum(view, words)
    if view.late and total:
        # Which sale this is about comes first: the customer of the current one must not be misled.
        earlier = words["earlier_sale"].format(sum=_amount(view, words))
        lines = (earlier, *(line for line in lines if line not in total))
    return Screen(words[f"{key}.headline"], lines, icon, lift_card=_lift_card(view, words))


def _why(view: View, words: Catalogue, otherwise: str) -> tuple[str, ...]:
    reason = view.reason_code or view.reason
    if reason is None:
        return (otherwise,)
    left_units = view.left_units
    left = None if left_units is None else _text(view, left_units, words)
    if view.tries_left:
        left = str(view.tries_left)
    return (reason_text(reason, left, words),)


def _as_typed(view: View, words: Catalogue) -> str:
    return view.typed.replace(".", words["number.point"])


def _text(view: View, amount_units: int, words: Catalogue) -> str:
    return amount_text(amount_units, view.decimals, view.currency, words)


def _amount(view: View, words: Catalogue) -> str | None:
    return None if view.amount_units is None else _text(view, view.amount_units, words)


def _sum(view: View, words: Catalogue) -> tuple[str, ...]:
    if view.amount_units is None:
        return ()
    return (sum_text(view.amount_units, view.decimals, view.currency, words),)


def _lift_card(view: View, words: Catalogue) -> str | None:
    # What is late is about another card, and needs the room for its words.
    if not view.card_present or view.late:
        return None
    return words["card_left"] if view.left_behind else words["lift_card"]

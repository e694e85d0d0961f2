"""What is typed at this terminal: amounts where they are set here, and PINs.

Answers for whom a key is for: a PIN while one is asked for, else an amount; the cancel key takes
back what stands there. It decides nothing about a sale (`checkout`) and reads no keypad
(`keypad_device`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from nacl.signing import VerifyKey

from taprail_common.errors import IllegalTransitionError, InputError
from taprail_common.money import parse_amount
from taprail_common.pin_block import seal_pin
from taprail_terminal.checkout_state import Checkout
from taprail_terminal.keypad import AmountLine, Command, Key, PinLine
from taprail_terminal.outcome import CardProof
from taprail_terminal.sale import Arm, Cancel, Event, Phase, Typed

_SETS_AMOUNT: Final = frozenset(Phase) - {Phase.PIN, Phase.READY, Phase.READING, Phase.WAITING}
"""In which an amount may be typed: nobody is asked for another one."""

_log = structlog.get_logger()


class Counter(Protocol):
    """What of the sale a keypad uses."""

    @property
    def state(self) -> Checkout: ...
    def apply(self, event: Event) -> None: ...
    def give_pin(self, pin: str) -> None: ...
    def leave_pin(self) -> None: ...


@dataclass(frozen=True, slots=True)
class GatewayPins:
    """PINs for a gateway: when to ask for one, and the seal. `above_units` gives what it has said;
    None: only what a card wants."""

    key: VerifyKey
    above_units: Callable[[], int | None]

    def asks_above(self, amount_units: int) -> bool:
        """Whether a PIN is asked for before this amount is sent."""
        above_units = self.above_units()
        return above_units is not None and amount_units > above_units

    def seal(self, request_id: str, card: CardProof, pin: str) -> str:
        """The PIN as it may travel and be stored."""
        return seal_pin(self.key, request_id, card.proof, pin)


class KeypadDesk:
    """One terminal's keypad; belongs to the event loop. `decimals` is None where no amounts are
    typed."""

    def __init__(self, counter: Counter, decimals: int | None) -> None:
        self._counter = counter
        self._amount = None if decimals is None else AmountLine(decimals)
        self._pin = PinLine()
        self._pin_of: str | None = None

    def press(self, key: Key) -> None:
        """A key went down."""
        state = self._counter.state
        phase, request_id = state.phase, state.view.request_id
        if phase is not Phase.PIN or request_id != self._pin_of:
            # The digits of a PIN that was left do not wait for the next customer.
            self._pin, self._pin_of = PinLine(), request_id
        try:
            if phase is Phase.PIN:
                self._type_pin(key)
            elif key is Command.CANCEL:
                self._take_back()
            elif self._amount is not None and phase in _SETS_AMOUNT:
                self._type_amount(self._amount, key)
        except IllegalTransitionError as exc:
            _log.debug("a key at the wrong moment", reason=str(exc))

    def _type_pin(self, key: Key) -> None:
        if key is Command.CANCEL:
            self._pin = PinLine()
            self._counter.leave_pin()
        elif key is not Command.ENTER:
            self._pin = self._pin.press(key)
            self._counter.apply(Typed(self._pin.shown))
        elif self._pin.is_whole:
            digits, self._pin = self._pin.digits, PinLine()
            self._counter.give_pin(digits)

    def _type_amount(self, line: AmountLine, key: Key) -> None:
        if key is not Command.ENTER:
            typed = line.press(key)
            self._counter.apply(Typed(typed.text))
            self._amount = typed
            return
        try:
            amount_units = parse_amount(line.text.removesuffix("."), line.decimals)
        except InputError:
            return  # nothing, or nought: it stays there to be gone on with
        self._counter.apply(Arm(amount_units))
        self._amount = AmountLine(line.decimals)

    def _take_back(self) -> None:
        """What is typed first, then what is asked for."""
        if self._amount is not None and self._amount.text:
            self._amount = AmountLine(self._amount.decimals)
            self._counter.apply(Typed(""))
        else:
            self._counter.apply(Cancel())

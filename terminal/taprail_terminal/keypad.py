"""A keypad's keys, and the line that they write: pure, without a keypad.

Answers for which of the kernel's events is a key that counts, and for what may stand on the line.
Source of the codes: linux/input-event-codes.h.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from taprail_common.pin_block import PIN_DIGITS

EV_KEY: Final = 0x01
_PRESSED: Final = 1
"""The value of a key that goes down; 0 is up, 2 a repetition by the kernel, which types nothing."""

MAX_AMOUNT_KEYS: Final = 17
"""As long as the largest amount with its point."""


class Command(Enum):
    """Keys that are no sign."""

    ENTER = "enter"
    BACK = "back"
    CANCEL = "cancel"


Key = str | Command
"""A digit, the point, or a command."""

_KEYS: Final[dict[int, Key]] = {
    **{code: str((code - 1) % 10) for code in range(2, 12)},  # KEY_1 to KEY_9, KEY_0
    **dict(zip((82, 79, 80, 81, 75, 76, 77, 71, 72, 73), "0123456789", strict=True)),  # KEY_KP0 …
    52: ".",  # KEY_DOT
    83: ".",  # KEY_KPDOT
    51: ".",  # KEY_COMMA: what some pads send for it
    121: ".",  # KEY_KPCOMMA
    28: Command.ENTER,  # KEY_ENTER
    96: Command.ENTER,  # KEY_KPENTER
    14: Command.BACK,  # KEY_BACKSPACE
    111: Command.BACK,  # KEY_DELETE
    1: Command.CANCEL,  # KEY_ESC
    55: Command.CANCEL,  # KEY_KPASTERISK: pads without Esc
}


def key_of(kind: int, code: int, value: int) -> Key | None:
    """The key that an input event stands for; None for all that types nothing."""
    return _KEYS.get(code) if (kind, value) == (EV_KEY, _PRESSED) else None


@dataclass(frozen=True, slots=True)
class AmountLine:
    """An amount that is being typed."""

    decimals: int
    text: str = ""

    def press(self, key: Key) -> AmountLine:
        """The line after a key; one that may not stand here changes nothing."""
        if key is Command.BACK:
            return replace(self, text=self.text[:-1])
        if not isinstance(key, str) or len(self.text) >= MAX_AMOUNT_KEYS:
            return self
        whole, point, fraction = self.text.partition(".")
        if key == ".":
            may = self.decimals > 0 and not point
            return replace(self, text=f"{self.text or '0'}.") if may else self
        if point:
            return self if len(fraction) >= self.decimals else replace(self, text=self.text + key)
        return replace(self, text=key if whole == "0" else self.text + key)


@dataclass(frozen=True, slots=True)
class PinLine:
    """A PIN that is being typed; shows how many digits it has, and never which."""

    digits: str = ""

    def press(self, key: Key) -> PinLine:
        """The line after a key."""
        if key is Command.BACK:
            return PinLine(self.digits[:-1])
        if not isinstance(key, str) or not key.isdigit() or len(self.digits) >= PIN_DIGITS[1]:
            return self
        return PinLine(self.digits + key)

    @property
    def shown(self) -> str:
        """A dot for each digit."""
        return "•" * len(self.digits)

    @property
    def is_whole(self) -> bool:
        """Whether it may be sent: a PIN, or nothing from who has none."""
        return not self.digits or len(self.digits) >= PIN_DIGITS[0]

    def __repr__(self) -> str:
        return f"PinLine({self.shown})"

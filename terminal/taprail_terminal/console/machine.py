"""What the machine under the terminal says of itself: power, temperature, time service, buttons.

Answers for reading a few files of Linux and of a Raspberry Pi's firmware. A file that is not there
means that this machine does not measure it, which is no fault.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from taprail_terminal.feedback.parts import PartHealth, healthy

# Raspberry Pi firmware, `vcgencmd get_throttled`: bit 0 under-voltage now, bit 16 since the start.
_UNDER_VOLTAGE_NOW: Final = 1 << 0
_UNDER_VOLTAGE_SEEN: Final = 1 << 16

# A Raspberry Pi slows down at 80 degrees (its documentation, "Frequency management").
_HOT_MILLIDEGREES: Final = 80_000

_UNREADABLE_TAPS: Final = 3
_NOT_READ: Final = frozenset({"try_again"})


@dataclass(frozen=True, slots=True)
class MachineFiles:
    """Where the machine says it."""

    throttled: Path = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
    temperature: Path = Path("/sys/class/thermal/thermal_zone0/temp")
    time_synchronized: Path = Path("/run/systemd/timesync/synchronized")


def look_at_power(throttled_file: Path) -> PartHealth:
    """What a Raspberry Pi's firmware says of its supply; other machines say nothing."""
    try:
        flags = int(throttled_file.read_text().strip(), 16)
    except (FileNotFoundError, ValueError):
        return healthy("power", "not measured on this machine")
    if flags & (_UNDER_VOLTAGE_NOW | _UNDER_VOLTAGE_SEEN):
        when = "now" if flags & _UNDER_VOLTAGE_NOW else "since the last start"
        fix = "use the official power supply and a short cable"
        return PartHealth("power", ok=False, detail=f"under-voltage {when}", fix=fix)
    return healthy("power", "voltage is fine")


def look_at_temperature(file: Path) -> PartHealth:
    """How warm the processor is."""
    try:
        millidegrees = int(file.read_text().strip())
    except (FileNotFoundError, ValueError):
        return healthy("temperature", "not measured on this machine")
    detail = f"{millidegrees / 1000:.0f} C"
    if millidegrees < _HOT_MILLIDEGREES:
        return healthy("temperature", detail)
    fix = "give it air and take it out of the sun; it slows down to protect itself"
    return PartHealth("temperature", ok=False, detail=detail, fix=fix)


def look_at_buttons(keypad: Path | None) -> PartHealth:
    """Whether the keypad that the configuration names is there and may be read."""
    if keypad is None:
        return healthy("buttons", "not fitted (no [keypad] device)")
    if not keypad.exists():
        fix = "plug the keypad in, or correct [keypad] device"
        return PartHealth("buttons", ok=False, detail=f"{keypad} is not there", fix=fix)
    if not os.access(keypad, os.R_OK):
        fix = "put the agent's user into the group input"
        return PartHealth("buttons", ok=False, detail=f"{keypad} may not be read", fix=fix)
    return healthy("buttons", f"{keypad} is there")


def look_at_cards(outcomes: Sequence[str]) -> PartHealth:
    """Whether the last cards could be read, whatever was decided about them then."""
    last = outcomes[-_UNREADABLE_TAPS:]
    if not last:
        return healthy("card", "none since the start: put one on the reader to try it")
    if len(last) == _UNREADABLE_TAPS and _NOT_READ.issuperset(last):
        fix = "try another card, one at a time; keep metal and other readers away from the antenna"
        detail = f"the last {_UNREADABLE_TAPS} cards could not be read"
        return PartHealth("card", ok=False, detail=detail, fix=fix)
    return healthy("card", f"the last one was read ({last[-1]})")

"""Named drivers of lights, buzzer and display, loaded when they are asked for.

Answers for turning a name of the configuration into parts. "none" is a choice that a person makes;
an unknown name or a part that does not answer stops the program with what to do. Nothing here ever
picks a driver by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from taprail_common.errors import OperatorError
from taprail_terminal.feedback.lights import Lights
from taprail_terminal.feedback.part_thread import Player
from taprail_terminal.feedback.scene import Screen
from taprail_terminal.feedback.sounds import Sound

NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class Signals:
    """What lights up and what sounds; None is a part that is not fitted."""

    lights: Player[Lights] | None
    buzzer: Player[Sound] | None


SignalsFactory = Callable[[Sequence[int], int | None], Signals]
DisplayFactory = Callable[[int, int], Player[Screen]]
F = TypeVar("F")


def open_signals(driver: str, light_pins: Sequence[int], buzzer_pin: int | None) -> Signals:
    """Lights and buzzer of the driver on these pins (BCM); raises OperatorError."""
    return _named("lights", driver, _SIGNALS)(light_pins, buzzer_pin)


def open_display(driver: str, i2c_port: int, i2c_address: int) -> Player[Screen] | None:
    """The display of the driver; None for "none". Raises OperatorError."""
    return None if driver == NONE else _named("display", driver, _DISPLAYS)(i2c_port, i2c_address)


def gpio_signals(
    light_pins: Sequence[int], buzzer_pin: int | None, pin_factory: Any = None
) -> Signals:
    """Lights and buzzer by gpiozero; `pin_factory` None is the Raspberry Pi's own."""
    from taprail_terminal.feedback.gpio import GpioBuzzer, GpioLights

    lights = GpioLights(light_pins, pin_factory)
    try:
        buzzer = None if buzzer_pin is None else GpioBuzzer(buzzer_pin, pin_factory)
    except OperatorError:
        lights.close()
        raise
    return Signals(lights, buzzer)


def oled_display(open_serial: Callable[[], Any]) -> Player[Screen]:
    """An SSD1306 over a luma serial interface."""
    from taprail_terminal.feedback.oled import OledDisplay

    return OledDisplay(open_serial)


def _no_signals(_light_pins: Sequence[int], _buzzer_pin: int | None) -> Signals:
    return Signals(lights=None, buzzer=None)


def _ssd1306_i2c(port: int, address: int) -> Player[Screen]:
    from taprail_terminal.feedback.oled import i2c_serial

    return oled_display(i2c_serial(port, address))


_SIGNALS: Final[dict[str, SignalsFactory]] = {"gpio": gpio_signals, NONE: _no_signals}
_DISPLAYS: Final[dict[str, DisplayFactory]] = {"ssd1306-i2c": _ssd1306_i2c}


SIGNALS_NAMES: Final = frozenset({*_SIGNALS, NONE})
DISPLAY_NAMES: Final = frozenset({*_DISPLAYS, NONE})
"""What a configuration may name."""


def _named(part: str, driver: str, table: dict[str, F]) -> F:
    if driver in table:
        return table[driver]
    known = ", ".join(sorted({*table, NONE}))
    raise OperatorError(f"[{part}] driver {driver!r} is unknown", fix=f"use one of: {known}")

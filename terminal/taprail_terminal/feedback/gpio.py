"""Lights and buzzer on the pins of a Raspberry Pi, through gpiozero.

Answers for which wire is which and for the levels on it. When something lights up or sounds is
decided in `lights` and `sounds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gpiozero import LED, PWMOutputDevice
from gpiozero.exc import BadPinFactory, GPIOZeroError

from taprail_common.errors import OperatorError, PartError
from taprail_terminal.feedback.lights import LIGHT_COUNT, Lights
from taprail_terminal.feedback.sounds import Sound, sounding

# BCM numbers that carry none of I2C (2, 3), the reader's UART (14, 15) and SPI (7 to 11).
DEFAULT_LIGHT_PINS: Final = (5, 6, 13, 19, 26, 16)
DEFAULT_BUZZER_PIN: Final = 12
"""PWM0 (BCM2835 ARM Peripherals, section 9.5): a clean tone even when the processor is busy."""

_SQUARE: Final = 0.5
"""Duty cycle at which a piezo is loudest."""

_FIX: Final = "check the [lights] pins and their wires"


class GpioLights:
    """Six LEDs: four EMV lights from left to right, red, amber."""

    name = "lights"

    def __init__(self, pins: Sequence[int], pin_factory: Any = None) -> None:
        """Take the pins (BCM); raises OperatorError when they cannot be had."""
        if len(pins) != LIGHT_COUNT:
            raise OperatorError(
                f"[lights] pins names {len(pins)} pins",
                fix=f"name {LIGHT_COUNT}: four EMV lights, red, amber",
            )
        self._leds: list[Any] = []
        try:
            for pin in pins:
                self._leds.append(_open(LED, "lights", pin, pin_factory))
        except OperatorError:
            self.close()
            raise

    def play(self, order: Lights, elapsed_ms: int) -> int | None:
        """Bring the LEDs to their state at this time; gives ms until the next change."""
        try:
            for led, is_lit in zip(self._leds, order.lit(elapsed_ms), strict=True):
                if bool(led.value) is not is_lit:
                    led.value = is_lit
        except (GPIOZeroError, OSError) as exc:
            raise PartError(self.name, _reason(exc), fix=_FIX) from exc
        return order.next_change_ms(elapsed_ms)

    def close(self) -> None:
        """All dark, pins given back."""
        for led in self._leds:
            led.close()


class GpioBuzzer:
    """A passive piezo on one pin."""

    name = "buzzer"

    def __init__(self, pin: int, pin_factory: Any = None) -> None:
        """Take the pin (BCM); raises OperatorError when it cannot be had."""
        self._pwm: Any = _open(PWMOutputDevice, "buzzer", pin, pin_factory)

    def play(self, order: Sound, elapsed_ms: int) -> int | None:
        """Sound what the sequence has at this time; gives ms until that changes."""
        frequency_hz, wait_ms = sounding(order, elapsed_ms)
        try:
            if frequency_hz:
                self._pwm.frequency = frequency_hz
            self._pwm.value = _SQUARE if frequency_hz else 0
        except (GPIOZeroError, OSError) as exc:
            raise PartError(self.name, _reason(exc), fix=_FIX) from exc
        return wait_ms

    def close(self) -> None:
        """Silent, pin given back."""
        self._pwm.close()


def _open(kind: Any, part: str, pin: int, pin_factory: Any) -> Any:
    try:
        return kind(pin, pin_factory=pin_factory)
    except BadPinFactory as exc:
        raise OperatorError(
            f"{part}: this machine has no GPIO that gpiozero can use",
            fix='install python3-lgpio on a Raspberry Pi, or set [lights] driver = "none"',
        ) from exc
    except (GPIOZeroError, OSError) as exc:
        raise OperatorError(f"{part}: pin {pin} cannot be used ({_reason(exc)})", fix=_FIX) from exc


def _reason(exc: Exception) -> str:
    return str(exc) or type(exc).__name__

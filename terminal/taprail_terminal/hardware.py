"""The edges of the machine, by name: what the terminal is given instead of reaching for it.

`hardware_from` is what a real terminal uses. Whoever builds a `Hardware` of other parts is another
program: no setting of this one leads there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from taprail_common.errors import OperatorError
from taprail_terminal.config import TerminalConfig
from taprail_terminal.feedback.absent import AbsentPart
from taprail_terminal.feedback.drivers import Signals, open_display, open_signals
from taprail_terminal.feedback.part_thread import Player
from taprail_terminal.feedback.scene import Screen
from taprail_terminal.readers import make_driver
from taprail_terminal.readers.base import Driver
from taprail_terminal.readers.resets import reset_for


@dataclass(frozen=True, slots=True)
class Hardware:
    """Makers of the parts. Each is called once at start; `reader` again after each loss."""

    reader: Callable[[], Driver]
    signals: Callable[[], Signals]
    display: Callable[[], Player[Screen] | None]
    reset: Callable[[], None] | None = None
    """Takes the reader's power for a moment, where that is possible."""


def hardware_from(config: TerminalConfig, *, needs_all: bool = True) -> Hardware:
    """The parts that the configuration names. Raises OperatorError when one cannot be, unless not
    all are needed: the console then says which it is."""
    reader, lights, display = config.reader, config.lights, config.display
    if needs_all:
        make_driver(reader.driver, reader.port).check()

    def signals() -> Signals:
        try:
            return open_signals(lights.driver, lights.pins, lights.buzzer_pin)
        except OperatorError as exc:
            if needs_all:
                raise
            return Signals(AbsentPart("lights", exc), AbsentPart("buzzer", exc))

    def screen() -> Player[Screen] | None:
        try:
            return open_display(display.driver, display.i2c_port, display.i2c_address)
        except OperatorError as exc:
            if needs_all:
                raise
            return AbsentPart("display", exc)

    return Hardware(
        reader=lambda: make_driver(reader.driver, reader.port),
        signals=signals,
        display=screen,
        reset=reset_for(reader.port, reader.reset_pin),
    )

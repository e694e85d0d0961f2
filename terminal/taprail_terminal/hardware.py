"""The edges of the machine, by name: what the terminal is given instead of reaching for it.

`hardware_from` is what a real terminal uses. Whoever builds a `Hardware` of other parts is another
program: no setting of this one leads there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from taprail_terminal.config import TerminalConfig
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


def hardware_from(config: TerminalConfig, *, needs_reader: bool = True) -> Hardware:
    """The parts that the configuration names. Raises OperatorError when one cannot be."""
    reader, lights, display = config.reader, config.lights, config.display
    if needs_reader:
        make_driver(reader.driver, reader.port).check()
    return Hardware(
        reader=lambda: make_driver(reader.driver, reader.port),
        signals=lambda: open_signals(lights.driver, lights.pins, lights.buzzer_pin),
        display=lambda: open_display(display.driver, display.i2c_port, display.i2c_address),
        reset=reset_for(reader.port, reader.reset_pin),
    )

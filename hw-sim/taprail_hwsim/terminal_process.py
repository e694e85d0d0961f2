"""A terminal as a program of the simulator: the product's own agent, wired to a simulated panel.

Only the outermost edges differ from `taprail terminal run`: gpiozero's pins are mock pins, the
display's bus is a socket, and a keypad, where one is wanted, a pipe. The reader's driver is the
configured one, on a serial port as always.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from taprail_common.cli import run_command
from taprail_common.logs import configure_logs
from taprail_hwsim import keypad
from taprail_hwsim.panel.link import PanelWires
from taprail_terminal.cli import say_ready
from taprail_terminal.config import TerminalConfig, load_config
from taprail_terminal.feedback.drivers import gpio_signals, oled_display
from taprail_terminal.hardware import Hardware
from taprail_terminal.readers import make_driver
from taprail_terminal.slim import import_socketio


def hardware(config: TerminalConfig, wires: PanelWires) -> Hardware:
    """The configured reader, and a panel at the other end of the wires."""
    reader, lights = config.reader, config.lights
    return Hardware(
        reader=lambda: make_driver(reader.driver, reader.port),
        signals=lambda: gpio_signals(lights.pins, lights.buzzer_pin, wires.pin_factory()),
        display=lambda: oled_display(lambda: wires),
    )


def main() -> None:
    """Run until SIGTERM; one line of JSON on stdout when the terminal is ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--panel", type=Path, required=True, help="socket of the panel")
    parser.add_argument("--keypad", action="store_true", help="its keypad is a pipe")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    configure_logs(json=config.log.json_lines, level=config.log.level)
    import_socketio()
    if arguments.keypad:
        sys.modules["evdev"] = keypad.library()
    from taprail_terminal.app import main as run_terminal  # as light as the product's own process

    wires = PanelWires(arguments.panel)
    run_terminal(config, hardware(config, wires), say_ready)


if __name__ == "__main__":
    run_command(main)

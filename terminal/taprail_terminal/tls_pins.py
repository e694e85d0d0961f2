"""The certificates that this terminal knows its gateway by, kept in `tls_pins.json`.

The first come from pairing, the next from each hello that the gateway's key has signed. Without
any, an https address is checked as a browser would.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from taprail_common.client.pins import PinnedCertificates
from taprail_common.errors import InputError
from taprail_terminal.atomic_file import read_json, write_json
from taprail_terminal.paired import kept

PINS_FILE: Final = "tls_pins.json"
_PIN: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX: Final = 2


def known_pins(state_dir: Path) -> tuple[str, ...]:
    """What was heard last; what pairing gave where that cannot be read."""
    try:
        heard = read_json(state_dir / PINS_FILE)
    except InputError:
        heard = None
    if isinstance(heard, list) and 0 < len(heard) <= _MAX and all(map(_is_pin, heard)):
        return tuple(heard)
    answer = kept(state_dir)
    return () if answer is None else answer.tls_pins


def _is_pin(value: object) -> bool:
    return isinstance(value, str) and _PIN.fullmatch(value) is not None


class Pins:
    """What a terminal's connections are checked against."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._checks = PinnedCertificates(known_pins(state_dir))

    @property
    def checks(self) -> PinnedCertificates | None:
        """None where no certificate is known."""
        return self._checks if self._checks.pins else None

    def hear(self, pins: tuple[str, ...]) -> None:
        """Know these from now on: stored first, at once or not at all. None at all changes
        nothing, so that no hello takes the pins away."""
        if pins and pins != self._checks.pins:
            write_json(self._state_dir / PINS_FILE, list(pins))
            self._checks.pins = pins

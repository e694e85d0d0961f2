"""What this terminal's connections are held against: the certificates that it knows.

The first come from pairing, the next from each hello that the gateway's key has signed. Without
any, an https address is checked as a browser would.
"""

from __future__ import annotations

from pathlib import Path

from taprail_common.client.pins import PinnedCertificates
from taprail_terminal.atomic_file import write_json
from taprail_terminal.tls_known import PINS_FILE, known_pins

__all__ = ["PINS_FILE", "Pins", "known_pins"]


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

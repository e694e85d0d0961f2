"""Which certificates this terminal knows its gateway by: `tls_pins.json` in the state folder.

Answers for reading and forgetting them, and for refusing an address without TLS once there are
any: whoever sat between would need no certificate then. `tls_pins` holds connections against them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from taprail_common.errors import InputError, OperatorError
from taprail_terminal.atomic_file import read_json, remove_file
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


def forget_heard(state_dir: Path) -> None:
    """Know only what pairing gives; raises OSError."""
    remove_file(state_dir / PINS_FILE)


def check_address(url: str, state_dir: Path) -> None:
    """Raise OperatorError for an address without TLS of a gateway whose certificate is known."""
    if urlsplit(url).scheme == "http" and known_pins(state_dir):
        raise OperatorError(
            f"[terminal] gateway_url {url[:100]} is without TLS, and this terminal knows its"
            " gateway by a certificate",
            fix="write https; or, for a gateway without a certificate, pair the terminal anew",
        )


def _is_pin(value: object) -> bool:
    return isinstance(value, str) and _PIN.fullmatch(value) is not None

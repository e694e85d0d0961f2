"""Keeps out of a process's memory what its libraries would load and it never uses."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable


def import_without(module: str, unused: Iterable[str]) -> None:
    """Import a module as if others were not installed; afterwards they can be imported as ever."""
    hidden = [name for name in unused if name not in sys.modules]
    # The import system takes None for "there is no such module".
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        importlib.import_module(module)
    finally:
        for name in hidden:
            del sys.modules[name]

"""Keeps out of a terminal's memory what it never uses: 10 MB on a Pi with 512.

python-socketio imports its clients for blocking programs and its message brokers' libraries where
they are installed. A terminal is asynchronous and has no broker. For a terminal's own process only:
who shares a process with other users of these libraries must not hide them.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

UNUSED: Final = ("requests", "websocket", "redis", "valkey", "kombu", "aio_pika", "kafka")


def import_socketio() -> None:
    """Import it as if those were not installed; afterwards they can be imported as ever."""
    hidden = [name for name in UNUSED if name not in sys.modules]
    # The import system takes None for "there is no such module".
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        importlib.import_module("socketio")
    finally:
        for name in hidden:
            del sys.modules[name]

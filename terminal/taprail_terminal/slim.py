"""Keeps out of a terminal's memory what it never uses: 10 MB on a Pi with 512.

python-socketio imports its clients for blocking programs and its message brokers' libraries where
they are installed. A terminal is asynchronous and has no broker. For a terminal's own process only:
who shares a process with other users of these libraries must not hide them.
"""

from __future__ import annotations

from typing import Final

from taprail_common.slim import import_without

UNUSED: Final = ("requests", "websocket", "redis", "valkey", "kombu", "aio_pika", "kafka")


def import_socketio() -> None:
    """Import it as if those were not installed; afterwards they can be imported as ever."""
    import_without("socketio", UNUSED)

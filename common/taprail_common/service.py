"""What a service tells systemd: that it is ready, that it goes down, and that it is still alive.

Answers for sd_notify(3) and for feeding the watchdog. The watchdog is fed only by a health check
that has come back: what is wedged while its process lives is started anew. Without systemd nothing
is told to anybody, and nothing else changes.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TextIO

import structlog

from taprail_common.errors import TapRailError

FEEDS_PER_LIMIT: Final = 3
"""sd_watchdog_enabled(3) recommends two; a third lets one be late."""

_US_PER_S: Final = 1_000_000

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """Whoever started this service; `address` is where it listens, None when nobody does.
    `journal` names the file that is tied to the journal."""

    address: str | None = None
    watchdog_s: float | None = None
    journal: str | None = None

    @classmethod
    def named_in(cls, environment: Mapping[str, str]) -> ServiceManager:
        """As systemd says it to what it starts (sd_notify(3), sd_watchdog_enabled(3), and
        systemd.exec(5) for $JOURNAL_STREAM)."""
        limit_us = environment.get("WATCHDOG_USEC", "")
        is_for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        is_watched = limit_us.isdigit() and int(limit_us) > 0 and is_for_us
        watchdog_s = int(limit_us) / _US_PER_S if is_watched else None
        journal = environment.get("JOURNAL_STREAM")
        return cls(environment.get("NOTIFY_SOCKET") or None, watchdog_s, journal)

    def is_journal(self, stream: TextIO) -> bool:
        """Whether what is written to this stream goes to the journal."""
        try:
            status = os.fstat(stream.fileno())
        except (OSError, ValueError):  # no file at all, as in tests
            return False
        return self.journal == f"{status.st_dev}:{status.st_ino}"

    def ready(self) -> None:
        """Work can begin."""
        self._tell("READY=1")

    def status(self, text: str) -> None:
        """What `systemctl status` says of us, in one line."""
        self._tell("STATUS=" + " ".join(text.split()))

    def stopping(self) -> None:
        """We are on our way out."""
        self._tell("STOPPING=1")

    async def feed(self, is_well: Callable[[], Awaitable[object]]) -> None:
        """Feed the watchdog after each check that comes back well, until cancelled. One that fails
        is made again; when none is well for the whole limit, or one hangs, the watchdog starves:
        the restart finishes interrupted work first."""
        if self.watchdog_s is None:
            return
        while True:
            try:
                await is_well()
                self._tell("WATCHDOG=1")
            except TapRailError as exc:
                _log.warning("the service is not well", reason=str(exc))
            await asyncio.sleep(self.watchdog_s / FEEDS_PER_LIMIT)

    def _tell(self, message: str) -> None:
        if self.address is None:
            return
        # "@" stands for the nul of an abstract address (sd_notify(3)).
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.connect(address)
                line.send(message.encode())
        except OSError as exc:
            _log.warning("systemd could not be told", message=message, reason=exc.strerror)


SERVICE_MANAGER: Final = ServiceManager.named_in(os.environ)
"""Of this process; read once, at start."""

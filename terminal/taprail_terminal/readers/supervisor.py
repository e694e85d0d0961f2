"""Keeps a reader going: starts it, notices that it is lost or hangs, and opens it again.

Answers for the border between the reader's thread and the event loop, which never waits for a
driver. It hears of a card only while it is armed: a card that came in the same instant in which the
till cancelled is read in vain and forgotten, until it has left.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from taprail_common.errors import PartError, TapRailError
from taprail_terminal.readers.base import Driver
from taprail_terminal.readers.polling import (
    ChargeSource,
    Gone,
    Lost,
    Opened,
    Poller,
    Report,
    Sensed,
    Torn,
)

HANG_LIMIT_S: Final = 2.25
"""Longer than any call of a driver may take, short enough to notice a loss within 3 s."""
OPEN_LIMIT_S: Final = 8.0
"""Opening tries several line speeds, and a USB adapter on a Pi takes 1.5 s for its first byte."""
CLOSE_LIMIT_S: Final = 2.0
WATCH_EVERY_S: Final = 0.25
REOPEN_AFTER_S: Final = (0.5, 1.0, 2.0, 4.0, 5.0)
"""Pauses before each try in a row; the last one stays. Healed within 15 s without a person."""
MAX_ABANDONED: Final = 3
"""Threads that hang inside a driver cannot be ended, so they are not made without end either."""

_log = structlog.get_logger()


class Reader:
    """A supervised reader. `on_report(report, at_s)` is called in the event loop."""

    def __init__(
        self,
        make_driver: Callable[[], Driver],
        on_report: Callable[[Report, float], None],
        charge: ChargeSource = lambda: None,
    ) -> None:
        self._make_driver = make_driver
        self._on_report = on_report
        self._charge = charge
        self._armed = False
        self._void = False
        self._sensed = 0
        self._poller: Poller | None = None
        self._abandoned: list[threading.Thread] = []
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self.description: str | None = None
        """The reader's name and version while it works."""
        self.trouble: str | None = "not opened yet"
        """Why it does not work, in one line."""

    def start(self) -> None:
        """Begin to open the reader."""
        self._task = asyncio.create_task(self._supervise(), name="reader")

    async def stop(self) -> None:
        """End the reader's thread; waits a moment for it to leave the reader as it found it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, CLOSE_LIMIT_S)

    def arm(self) -> None:
        """Let one card be read."""
        self._armed = True
        if self._poller is not None:
            self._poller.permit(self._sensed)

    def disarm(self) -> None:
        """Let none be read. A card that is being read already is still reported."""
        self._armed = False
        if self._poller is not None:
            self._poller.permit(None)

    async def _supervise(self) -> None:
        tries = 0
        while True:
            poller_opened, reason = await self._run_once()
            _log.warning("reader lost", reason=reason)
            self.description, self.trouble = None, reason
            self._on_report(Lost(reason), time.monotonic())
            tries = 0 if poller_opened else tries + 1
            await asyncio.sleep(REOPEN_AFTER_S[min(tries, len(REOPEN_AFTER_S) - 1)])
            while len(self._abandoned) >= MAX_ABANDONED:
                await asyncio.sleep(REOPEN_AFTER_S[-1])
                self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]

    async def _run_once(self) -> tuple[bool, str]:
        """One life of the reader; whether it opened, and why it ended."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        reasons: list[str] = []

        def post(report: Report, at_s: float) -> None:
            loop.call_soon_threadsafe(self._deliver, poller, report, at_s)

        def run() -> None:
            try:
                poller.run()
            except PartError as exc:
                reasons.append(str(exc))
            except Exception as exc:  # noqa: BLE001 - a driver's bug must cost this run only
                reasons.append(f"reader: failed unexpectedly ({exc!r})")
            if not loop.is_closed():
                loop.call_soon_threadsafe(ended.set)

        try:
            poller = Poller(self._make_driver(), post, self._charge)
        except TapRailError as exc:  # checked at start; a package may still vanish in an upgrade
            return False, str(exc)
        self._poller, self._sensed, self._void = poller, 0, False
        if self._armed:
            self.arm()
        thread = threading.Thread(target=run, name="reader", daemon=True)
        thread.start()
        self._thread = thread
        try:
            hung = not await _ended_or_hung(poller, ended)
        finally:
            self._poller = None
            poller.stop()
        if hung:
            self._abandoned.append(thread)
            return poller.opened, "reader: hangs"
        return poller.opened, reasons[0] if reasons else "reader: stopped"

    def _deliver(self, poller: Poller, report: Report, at_s: float) -> None:
        if poller is not self._poller:
            return  # a run that was given up says something late
        if isinstance(report, Opened):
            self.description, self.trouble = report.description, None
            _log.info("reader open", reader=report.description)
        if isinstance(report, Sensed):
            self._sensed += 1
            self._void, self._armed = not self._armed, False
        if not self._void:
            self._on_report(report, at_s)
        if isinstance(report, Gone | Torn):
            self._void = False


async def _ended_or_hung(poller: Poller, ended: asyncio.Event) -> bool:
    """True when the run ended by itself, False when a call of its driver hangs."""
    while True:
        try:
            async with asyncio.timeout(WATCH_EVERY_S):
                await ended.wait()
        except TimeoutError:
            limit_s = HANG_LIMIT_S if poller.opened else OPEN_LIMIT_S
            if time.monotonic() - poller.busy_since_s > limit_s:
                return False
        else:
            return True

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
from contextlib import suppress
from typing import Final

import structlog

from taprail_common.errors import OperatorError, PartError, TapRailError
from taprail_terminal.readers.base import Driver
from taprail_terminal.readers.ladder import STEADY_S, Rung, Sign, next_rung, pause_s
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

HANG_LIMIT_S: Final = 2.0
"""Longer than any call of a driver may take, short enough to notice a loss within 3 s."""
OPEN_LIMIT_S: Final = 8.0
"""Opening tries several line speeds, and a USB adapter on a Pi takes 1.5 s for its first byte."""
CLOSE_LIMIT_S: Final = 2.0
WATCH_EVERY_S: Final = 0.1
RESET_LIMIT_S: Final = 3.0
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
        reset: Callable[[], None] | None = None,
    ) -> None:
        self._make_driver = make_driver
        self._on_report = on_report
        self._charge = charge
        self._reset = reset
        self._rung = Rung.NONE
        self.stuck = asyncio.Event()
        """Set when nothing but a new process can help: a driver's calls hang for ever."""
        self._armed = False
        self._by_itself = False
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
        self.sign: Sign | None = None
        """What kind of trouble that is; None: it was not opened, or is not meant to be."""

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

    async def reset(self) -> None:
        """Close the reader, take its power where that is wired, and open it again."""
        await self.stop()
        if self._reset is not None:
            await _bounded(self._reset, RESET_LIMIT_S)
        self.start()

    def arm(self, *, by_itself: bool = False) -> None:
        """Let one card be read. With `by_itself` nobody has asked for this sale, so that a card
        which was put back after its own read has to leave first."""
        self._armed, self._by_itself = True, by_itself
        if self._poller is not None:
            self._poller.permit(self._sensed, by_itself=by_itself)

    def disarm(self) -> None:
        """Let none be read. A card that is being read already is still reported."""
        self._armed = False
        if self._poller is not None:
            self._poller.permit(None)

    async def _supervise(self) -> None:
        tries = 0
        while True:
            began_s = time.monotonic()
            poller_opened, sign, reason = await self._run_once()
            if poller_opened and time.monotonic() - began_s > STEADY_S:
                tries, self._rung = 0, next_rung(self._rung, Sign.STEADY)
            rung = self._rung
            if poller_opened and rung is Rung.NONE:
                rung = Rung.RF_CYCLE  # the mild remedies were tried within the run
            self._rung = next_rung(rung, sign)
            _log.warning("reader lost", reason=reason, next=self._rung.value)
            self.description, self.trouble, self.sign = None, reason, sign
            self._on_report(Lost(reason), time.monotonic())
            await asyncio.sleep(pause_s(tries))
            tries += 1
            await self._climb()

    async def _climb(self) -> None:
        """Carry out what the ladder says, as far as it is not just opening the reader again."""
        if self._rung is Rung.NEW_PROCESS:
            self.stuck.set()
        if self._rung is Rung.HARD_RESET and self._reset is not None:
            await _bounded(self._reset, RESET_LIMIT_S)
        while len(self._abandoned) >= MAX_ABANDONED:
            self.stuck.set()
            await asyncio.sleep(pause_s(MAX_ABANDONED))
            self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]

    async def _run_once(self) -> tuple[bool, Sign, str]:
        """One life of the reader: whether it opened, and how and why it ended."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        ends: list[tuple[Sign, str]] = []

        def post(report: Report, at_s: float) -> None:
            loop.call_soon_threadsafe(self._deliver, poller, report, at_s)

        def run() -> None:
            try:
                poller.run()
            except PartError as exc:
                ends.append(_judged(driver, exc))
            except Exception as exc:  # noqa: BLE001 - a driver's bug must cost this run only
                ends.append((Sign.FAILED, f"reader: failed unexpectedly ({exc!r})"))
            if not loop.is_closed():
                loop.call_soon_threadsafe(ended.set)

        try:
            driver = self._make_driver()
        except TapRailError as exc:  # checked at start; a package may still vanish in an upgrade
            return False, Sign.ABSENT, str(exc)
        poller = Poller(driver, post, self._charge)
        self._poller, self._sensed, self._void = poller, 0, False
        if self._armed:
            self.arm(by_itself=self._by_itself)
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
            return poller.opened, Sign.HUNG, "reader: hangs"
        sign, reason = ends[0] if ends else (Sign.FAILED, "reader: stopped")
        return poller.opened, sign, reason

    def _deliver(self, poller: Poller, report: Report, at_s: float) -> None:
        if poller is not self._poller:
            return  # a run that was given up says something late
        if isinstance(report, Opened):
            self.description, self.trouble, self.sign = report.description, None, None
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


def _judged(driver: Driver, failure: PartError) -> tuple[Sign, str]:
    """Whether a reader that failed is there at all, and why it failed. Called in the thread of its
    run."""
    try:
        driver.check()
    except OperatorError as exc:
        return Sign.ABSENT, exc.message
    return Sign.FAILED, failure.message


async def _bounded(work: Callable[[], None], limit_s: float) -> None:
    """Do blocking work in a thread that nobody waits for longer than this."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try:
            work()
        except PartError as exc:
            _log.warning("reader not reset", reason=str(exc))
        loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="reader-reset", daemon=True).start()
    with suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), limit_s)

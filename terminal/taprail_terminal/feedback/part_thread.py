"""A thread that drives one part: the newest order wins, and a failing part is tried again.

Answers for never blocking whoever gives an order, for timed changes without a busy loop, and for a
part's health. What an order means is up to the player that it is given.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import structlog

from taprail_common.clock import Clock
from taprail_common.errors import PartError
from taprail_terminal.feedback.parts import PartHealth, broken, healthy

# A display that was plugged in again comes back within this time; a dead one costs little.
RETRY_MS: Final = 2000
_JOIN_TIMEOUT_S: Final = 2.0

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Player(Protocol[T_contra]):
    """Drives a part; raises PartError when the part does not do it."""

    name: str

    def play(self, order: T_contra, elapsed_ms: int) -> int | None:
        """Carry out what the order says for this time after it began.

        Gives the time in ms after which it wants to be called again, None when it does not.
        """
        ...

    def close(self) -> None:
        """Leave the part dark and silent, and give it back."""
        ...


@dataclass(slots=True)
class _Job(Generic[T]):
    order: T
    began_s: float
    ticket: int | None = None
    lasts_ms: int | None = None
    done: Future[PartHealth] | None = None


class PartThread(Generic[T]):
    """Owns a player. `on_driven(ticket)` is called in the thread once an order was carried out,
    or was found to be impossible: a broken part keeps nobody waiting."""

    def __init__(
        self, player: Player[T], clock: Clock, on_driven: Callable[[int], None] | None = None
    ) -> None:
        self.name = player.name
        self._player = player
        self._clock = clock
        self._on_driven = on_driven
        self._changed = threading.Condition()
        self._current: _Job[T] | None = None
        self._interlude: _Job[T] | None = None
        self._closing = False
        self._health = healthy(player.name, "not used yet")
        self._thread = threading.Thread(target=self._run, name=f"part-{self.name}", daemon=True)
        self._thread.start()

    def put(self, order: T, ticket: int | None = None) -> None:
        """Give a new order; it replaces the one before, even an unfinished test."""
        with self._changed:
            self._current = _Job(order, self._clock.monotonic_s(), ticket)
            self._end_interlude()
            self._changed.notify()

    def interlude(self, order: T, lasts_ms: int) -> Future[PartHealth]:
        """Play something in between, then go on with the current order; gives the health after."""
        done: Future[PartHealth] = Future()
        done.set_running_or_notify_cancel()  # from here on it gets its result, wanted or not
        with self._changed:
            self._end_interlude()
            began_s = self._clock.monotonic_s()
            self._interlude = _Job(order, began_s, lasts_ms=lasts_ms, done=done)
            self._changed.notify()
        return done

    def health(self) -> PartHealth:
        """How the part was when it was last driven."""
        return self._health

    def close(self) -> None:
        """End the thread and give the part back; bounded, even when the part hangs."""
        with self._changed:
            self._closing = True
            self._end_interlude()
            self._changed.notify()
        self._thread.join(_JOIN_TIMEOUT_S)

    def _run(self) -> None:
        job: _Job[T] | None = None
        wait_ms: int | None = None
        while not self._closing:
            job = self._next_job(job, wait_ms)
            wait_ms = None if job is None else self._drive(job)
        self._close_player()

    def _next_job(self, driven: _Job[T] | None, wait_ms: int | None) -> _Job[T] | None:
        """Wait until there is another job than the one just driven, or its next time has come."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self._job() is not driven,
                None if wait_ms is None else wait_ms / 1000,
            )
            return None if self._closing else self._job()

    def _job(self) -> _Job[T] | None:
        return self._interlude or self._current

    def _drive(self, job: _Job[T]) -> int | None:
        elapsed_ms = round((self._clock.monotonic_s() - job.began_s) * 1000)
        try:
            wait_ms = self._player.play(job.order, elapsed_ms)
            self._note(healthy(self.name))
        except PartError as exc:
            self._note(broken(exc))
            wait_ms = RETRY_MS
        except Exception as exc:  # noqa: BLE001 - a driver's bug must not end a sale or its lights
            structlog.get_logger().exception("part.bug", part=self.name)
            self._note(broken(PartError(self.name, f"{type(exc).__name__} in its driver")))
            wait_ms = RETRY_MS
        if job.lasts_ms is not None:
            return self._after_interlude(job, job.lasts_ms - elapsed_ms, wait_ms)
        if job.ticket is not None and self._on_driven is not None:
            ticket, job.ticket = job.ticket, None
            self._on_driven(ticket)
        return wait_ms

    def _after_interlude(self, job: _Job[T], left_ms: int, wait_ms: int | None) -> int | None:
        if left_ms > 0 and self._health.ok:
            return left_ms if wait_ms is None else min(wait_ms, left_ms)
        with self._changed:
            if self._interlude is job:
                self._end_interlude()
        return 0

    def _end_interlude(self) -> None:
        job, self._interlude = self._interlude, None
        if job is not None and job.done is not None:
            job.done.set_result(self._health)

    def _note(self, health: PartHealth) -> None:
        if health.ok != self._health.ok:
            log = structlog.get_logger()
            if health.ok:
                log.info("part.healed", part=self.name)
            else:
                log.warning("part.failed", part=self.name, detail=health.detail, fix=health.fix)
        self._health = health

    def _close_player(self) -> None:
        try:
            self._player.close()
        except PartError as exc:
            structlog.get_logger().warning("part.close_failed", part=self.name, detail=exc.message)

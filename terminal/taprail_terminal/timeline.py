"""What happens at the terminal, told as it happens, and the time that each stage of a tap took.

Answers for handing events to whoever watches, each with the monotonic time at which it happened,
and for the trace of a tap. No event names a card. A watcher that does not keep up loses its
connection, never the terminal its pace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from taprail_common.clock import Clock

MAX_WATCHERS: Final = 8
WATCHER_BACKLOG: Final = 512
"""Events that a watcher may lag behind; a tap makes about ten."""

STAGES: Final = ("field", "read", "stored", "request_sent", "verdict", "shown", "settled")
"""The stages of a tap, in their order; each is counted from `field`."""

Occurrence = dict[str, Any]


class WatcherLostError(Exception):
    """The watcher fell behind; what it has missed cannot be told any more."""


class Timeline:
    """Tells events to watchers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._watchers: list[asyncio.Queue[Occurrence | None]] = []
        self._view: Occurrence | None = None

    def tell(self, event: str, *, at_s: float | None = None, **details: Any) -> None:
        """An event, at a monotonic time (now, if none is given). Details that are None stay out."""
        now_s = self._clock.monotonic_s()
        at_s = now_s if at_s is None else at_s
        wall_ms = self._clock.now_ms() - round((now_s - at_s) * 1000)
        told = {name: value for name, value in details.items() if value is not None}
        occurrence = {"event": event, "at_s": at_s, "wall_ms": wall_ms, **told}
        if event == "view":
            self._view = occurrence
        for watcher in self._watchers:
            _offer(watcher, occurrence)

    @contextmanager
    def watch(self) -> Iterator[Callable[[], Any]]:
        """Gives a coroutine function that waits for the next event; raises WatcherLostError.

        The first event is what is shown now: who comes late has to know where things are.
        """
        queue: asyncio.Queue[Occurrence | None] = asyncio.Queue(WATCHER_BACKLOG)
        if self._view is not None:
            queue.put_nowait(self._view)

        async def next_event() -> Occurrence:
            occurrence = await queue.get()
            if occurrence is None:
                raise WatcherLostError
            return occurrence

        self._watchers.append(queue)
        try:
            yield next_event
        finally:
            self._watchers.remove(queue)


def _offer(queue: asyncio.Queue[Occurrence | None], occurrence: Occurrence) -> None:
    if queue.qsize() >= WATCHER_BACKLOG - 1:
        if not queue.full():
            queue.put_nowait(None)
        return
    queue.put_nowait(occurrence)


@dataclass(slots=True)
class Tap:
    """One card on the reader: when each stage was reached, and what came of it."""

    tap_id: str
    at_ms: int
    began_s: float
    request_id: str | None = None
    outcome: str = "reading"
    reason: str = ""
    stages_s: dict[str, float] = field(default_factory=dict)

    def reach(self, stage: str, at_s: float) -> None:
        """A stage was reached, for the first time: a second post of a request changes nothing."""
        self.stages_s.setdefault(stage, at_s)

    @property
    def stages_ms(self) -> dict[str, int]:
        """Milliseconds from the card's first sign to each stage, in their order."""
        reached = self.stages_s
        return {
            stage: round((reached[stage] - self.began_s) * 1000)
            for stage in STAGES
            if stage in reached
        }

    def to_json(self) -> dict[str, Any]:
        """The trace as it is stored."""
        return {
            "tap": self.tap_id,
            "request": self.request_id,
            "atMs": self.at_ms,
            "outcome": self.outcome,
            "reason": self.reason,
            "stagesMs": self.stages_ms,
        }

"""A clock that moves only when a test says so, and wakes those who sleep by it, in order."""

from __future__ import annotations

import asyncio
import heapq
import itertools

# A task that is woken may take several turns of the loop to come to its next wait: a future, a
# gather around it, a lock. More than that is work which the test has to await by itself.
_TURNS = 20


class ManualClock:
    """A `Clock` whose two times stand still between calls of `advance` and `step_wall`."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._wall_ms = now_ms
        self._passed_ms = 0
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return self._wall_ms

    def monotonic_s(self) -> float:
        """Seconds since this clock was made."""
        return self._passed_ms / 1000

    @property
    def sleepers(self) -> int:
        """How many sleep now."""
        return sum(1 for _, _, waking in self._sleepers if not waking.done())

    def step_wall(self, by_ms: int) -> None:
        """Set the wall clock, forward or back, as an administrator or NTP does. Wakes nobody."""
        self._wall_ms += by_ms

    async def sleep(self, seconds: float) -> None:
        """Sleep until the clock has been advanced so far."""
        waking = asyncio.get_running_loop().create_future()
        due_ms = self._passed_ms + max(0, round(seconds * 1000))
        heapq.heappush(self._sleepers, (due_ms, next(self._order), waking))
        await waking

    async def advance(self, seconds: float) -> None:
        """Let time pass: every sleeper whose time has come is woken at its own moment, in order,
        and may go on, and sleep again, before the next one is."""
        end_ms = self._passed_ms + round(seconds * 1000)
        if end_ms < self._passed_ms:
            raise ValueError("monotonic time does not go back; see step_wall")
        await _let_others_run()
        while self._sleepers and self._sleepers[0][0] <= end_ms:
            due_ms, _, waking = heapq.heappop(self._sleepers)
            self._move_to(due_ms)
            if not waking.done():  # else: it was cancelled
                waking.set_result(None)
                await _let_others_run()
        self._move_to(end_ms)

    def _move_to(self, passed_ms: int) -> None:
        self._wall_ms += passed_ms - self._passed_ms
        self._passed_ms = passed_ms


async def _let_others_run() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)

"""How the queues are doing, for apps, dashboards and monitoring.

Whoever asks often is given what was read a moment ago: a look costs a reading thread a hundredth of
its time at most, whatever the load. `payment`, `mint` and `webhook` are of the whole ledger, and so
are the same at every gateway on it; `notification` and `cache` are of this gateway.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Protocol

from sqlalchemy import Connection

from taprail_common.api.queues import Health
from taprail_gateway.ledger import queue_rates
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.queue_rates import MINUTE_MS, Done, Open, PaymentRates
from taprail_gateway.settle.live import LiveSettings, QueueMode

_FRESH_S: Final = 1.0
_SHARE: Final = 100
"""What was read is good for so many times as long as reading it took, and for a second at least."""

_LATE_S: Final[Mapping[str, int]] = {
    "mint": 600,
    "notification": 5,
    "webhook": 600,
    "cache": 60,
}
"""How old the oldest may be before a queue is `degraded`; a payment's deadline is a setting."""


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue; `completed` and `failed` are of the window, `per_minute` of the last minute."""

    status: Health
    waiting: int
    active: int
    completed: int
    failed: int
    delayed: int
    oldest_s: float | None
    per_minute: int


@dataclass(frozen=True, slots=True)
class Report:
    """All of them at one time."""

    at_ms: int
    queues: dict[str, Queue]
    states: dict[str, int]
    average_s: float | None
    per_s: float
    failures: dict[str, int]
    hit_rate: float | None
    """Of what was looked up in memory lately; None when nothing was."""


@dataclass(frozen=True, slots=True)
class Caches:
    """What requests look up in memory: asked for since the start, under way, and refused; `hits`
    of what was asked for were there."""

    asked: int
    under_way: int
    refused: int
    hits: int = 0


class Told(Protocol):
    """The last step that listeners were told of, and the sockets that were too slow."""

    @property
    def seq(self) -> int: ...
    @property
    def behind(self) -> int: ...


@dataclass
class Sources:
    """What is known outside the ledger.

    `told` is None while nobody can listen; `works_on` names the side queues that are configured.
    """

    live: LiveSettings
    obstacles: Callable[[], Collection[str]] = tuple
    told: Callable[[], Told | None] = lambda: None
    caches: Callable[[], Caches] = lambda: Caches(0, 0, 0)
    works_on: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class _Read:
    """What one look at the ledger gives."""

    payments: PaymentRates
    mint: tuple[Open, Done]
    webhook: tuple[Open, Done]
    notification: tuple[Open, Done]
    unread: tuple[int, int | None]


class QueueHealth:
    """Reports; belongs to one event loop."""

    def __init__(self, ledger: Ledger, sources: Sources) -> None:
        self._ledger = ledger
        self._clock = ledger.clock
        self.sources = sources
        self._asking = asyncio.Lock()
        self._last: Report | None = None
        self._good_until_s = 0.0
        self._asked: deque[tuple[int, Caches]] = deque()  # when, and what was asked for by then

    async def report(self) -> Report:
        """How they are doing, at most a moment ago; raises StorageError or Overloaded."""
        async with self._asking:  # one reads for all who ask meanwhile
            began_s = self._clock.monotonic_s()
            if self._last is None or began_s >= self._good_until_s:
                self._last = await self._look()
                took_s = self._clock.monotonic_s() - began_s
                self._good_until_s = began_s + max(_FRESH_S, _SHARE * took_s)
            return self._last

    async def _look(self) -> Report:
        now_ms = self._clock.now_ms()
        told = self.sources.told()
        seq = 0 if told is None else told.seq
        read = await self._ledger.read(partial(_read, told=seq, now_ms=now_ms))
        queues = {
            "payment": self._payment(read.payments, now_ms),
            "mint": self._side("mint", *read.mint, now_ms),
            "notification": self._notification(told, *read.notification, now_ms),
            "webhook": self._side("webhook", *read.webhook, now_ms),
            "cache": self._cache(*read.unread, now_ms),
        }
        average_ms = read.payments.average_ms
        return Report(
            now_ms,
            queues,
            read.payments.states,
            None if average_ms is None else round(average_ms / 1000, 3),
            round(read.payments.done.last_minute * 1000 / MINUTE_MS, 3),
            read.payments.failures,
            self._hit_rate(),
        )

    def _payment(self, rates: PaymentRates, now_ms: int) -> Queue:
        live = self.sources.live
        queue = _queue(rates.open, rates.done, now_ms)
        if live.queue_mode is QueueMode.PAUSED:
            return queue(Health.STOPPED)
        is_late = (_age_s(rates.open.oldest_ms, now_ms) or 0) > live.now.confirmation_timeout_s
        is_held_up = live.queue_mode is QueueMode.DRAINING or bool(self.sources.obstacles())
        return queue(Health.DEGRADED if is_late or is_held_up else Health.HEALTHY)

    def _side(self, name: str, opened: Open, done: Done, now_ms: int) -> Queue:
        queue = _queue(opened, done, now_ms)
        if name not in self.sources.works_on:
            return queue(Health.STOPPED)
        is_late = (_age_s(opened.oldest_ms, now_ms) or 0) > _LATE_S[name]
        is_failing = done.failed > done.completed
        return queue(Health.DEGRADED if is_late or is_failing else Health.HEALTHY)

    def _notification(self, told: Told | None, opened: Open, done: Done, now_ms: int) -> Queue:
        """`failed` counts sockets that were closed since the start because they were too slow."""
        if told is None:
            return _queue(opened, done, now_ms)(Health.STOPPED)
        queue = _queue(opened, replace(done, failed=told.behind), now_ms)
        is_late = (_age_s(opened.oldest_ms, now_ms) or 0) > _LATE_S["notification"]
        return queue(Health.DEGRADED if is_late else Health.HEALTHY)

    def _cache(self, unread: int, oldest_ms: int | None, now_ms: int) -> Queue:
        caches = self.sources.caches()
        asked = self._asked_lately(caches, now_ms)
        done = Done(caches.asked, caches.refused, asked)
        queue = _queue(Open(unread, 0, caches.under_way, oldest_ms), done, now_ms)
        is_late = (_age_s(oldest_ms, now_ms) or 0) > _LATE_S["cache"]
        return queue(Health.DEGRADED if is_late else Health.HEALTHY)

    def _asked_lately(self, caches: Caches, now_ms: int) -> int:
        """Per minute, since the last look that is a minute old; since the first when none is."""
        self._asked.append((now_ms, caches))
        while len(self._asked) > 2 and self._asked[1][0] <= now_ms - MINUTE_MS:
            self._asked.popleft()
        since_ms, before = self._asked[0]
        passed_ms = max(now_ms - since_ms, MINUTE_MS)
        return round((caches.asked - before.asked) * MINUTE_MS / passed_ms)

    def _hit_rate(self) -> float | None:
        """Over the same time; since the start, at the first look."""
        (_, before), (_, now) = self._asked[0], self._asked[-1]
        if len(self._asked) == 1:
            before = Caches(0, 0, 0)
        asked = now.asked - before.asked
        return round((now.hits - before.hits) / asked, 4) if asked else None


def _read(connection: Connection, *, told: int, now_ms: int) -> _Read:
    return _Read(
        queue_rates.payment_rates(connection, now_ms),
        queue_rates.mint_rates(connection, now_ms),
        queue_rates.webhook_rates(connection, now_ms),
        queue_rates.steps_after(connection, told, now_ms),
        queue_rates.unread_accounts(connection),
    )


def _queue(opened: Open, done: Done, now_ms: int) -> Callable[[Health], Queue]:
    return lambda health: Queue(
        health,
        waiting=opened.waiting,
        active=opened.active,
        completed=done.completed,
        failed=done.failed,
        delayed=opened.delayed,
        oldest_s=_age_s(opened.oldest_ms, now_ms),
        per_minute=done.last_minute,
    )


def _age_s(since_ms: int | None, now_ms: int) -> float | None:
    return None if since_ms is None else round(max(0, now_ms - since_ms) / 1000, 3)

"""One queue and its handler: due rows in, and what came of them back into the ledger.

Queues do not wait for each other, and neither do rows: only those of one payment (and receiver) go
one after the other, which is the queue's business. So whoever is slow to take something keeps no
other waiting, within the bounds on what is under way at once. A row is handed on at least once. A
failure is written down with the time of the next try; after too many the row is dead, with an
alert. Whatever a handler does, the payment is not touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final, Generic, Protocol, TypeVar

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_common.errors import TapRailError
from taprail_gateway.backoff import Backoff
from taprail_gateway.callbacks.handlers import Handler, Work
from taprail_gateway.ledger import leases
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.errors import Overloaded, StorageError
from taprail_gateway.ledger.leases import Lease, LeaseLostError

BATCH: Final = 100
"""Rows read at once, and under way at most."""

HANDLE_TIMEOUT_S: Final = 30.0
"""For one row, so that what hangs becomes a failure."""

# Not the handler's fault: the row is as it was, and whoever looks next finds it so.
_OURS: Final = (LeaseLostError, StorageError, Overloaded)

_log = structlog.get_logger("callbacks")


class Row(Protocol):
    """What waits in a queue."""

    @property
    def id(self) -> int: ...
    @property
    def tries(self) -> int: ...
    @property
    def about(self) -> str:
        """What it tells of, for the log."""
        ...


R = TypeVar("R", bound=Row)


class Queue(Protocol[R]):
    """Where the rows of a line are: each of these works inside the caller's transaction."""

    @property
    def name(self) -> str: ...
    @property
    def max_tries(self) -> int:
        """Of one row; then it is dead."""
        ...

    @property
    def backoff(self) -> Backoff:
        """The waits between them."""
        ...

    def due(self, connection: Connection, now_ms: int, limit: int) -> list[R]: ...
    def next_due_ms(self, connection: Connection, after_ms: int) -> int | None: ...
    def finish(self, connection: Connection, row_ids: Sequence[int], at_ms: int) -> None: ...
    def put_off(self, connection: Connection, row: R, due_at_ms: int, error: str) -> None: ...
    def bury(self, connection: Connection, row: R, at_ms: int, error: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Handled(Generic[R]):
    """A row whose handler is done with it."""

    lease: Lease
    row: R
    work: Work
    at_ms: int


class Finisher(Generic[R]):
    """Finishes rows, each together with its handler's work; many share a commit."""

    def __init__(self, queue: Queue[R]) -> None:
        self._queue = queue

    def run(self, connection: Connection, items: Sequence[Handled[R]], /) -> list[None]:
        for lease in {item.lease.fence: item.lease for item in items}.values():
            leases.guard(connection, lease)
        self._queue.finish(connection, [item.row.id for item in items], items[0].at_ms)
        for item in items:
            item.work(connection)
        return [None] * len(items)


class Line(Generic[R]):
    """The rows of one queue. `begin` hands on what is due now, and waits for none of it."""

    def __init__(
        self, queue: Queue[R], handler: Handler[R], ledger: Ledger, clock: Clock, random: Random
    ) -> None:
        self.name = queue.name
        self._queue = queue
        self._handler = handler
        self._ledger = ledger
        self._clock = clock
        self._random = random
        self._room = asyncio.Semaphore(handler.at_once)
        self._finisher = Finisher(queue)
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._failures: list[tuple[Lease, BaseException]] = []

    async def begin(self, lease: Lease, on_end: Callable[[], None]) -> int | None:
        """Hand on what is due and not under way; `on_end` is called whenever one of them has ended,
        since then there may be more to do. Else look again after so many ms; None: nothing waits
        for its time.

        Raises what ended a row that is nobody's failure (LeaseLostError, StorageError, Overloaded):
        nothing is lost by that.
        """
        self._raise_failure(lease)
        # A row that ends while we read is in what we read, and must not be begun once more.
        busy = set(self._under_way)
        now_ms = self._clock.now_ms()
        batch, next_ms = await self._ledger.read(partial(self._look, now_ms=now_ms))
        for row in [row for row in batch if row.id not in busy][: BATCH - len(self._under_way)]:
            task = asyncio.create_task(self._serve(lease, row))
            self._under_way[row.id] = task
            task.add_done_callback(partial(self._ended, lease, row, on_end))
        return None if next_ms is None else max(1, next_ms - self._clock.now_ms())

    async def tick(self, lease: Lease) -> None:
        """Hand on one batch, and wait for its end; raises as `begin` does."""
        await self.begin(lease, _nobody)
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        self._raise_failure(lease)

    async def stop(self) -> None:
        """Leave off wherever it is."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._failures.clear()

    def _look(self, connection: Connection, now_ms: int) -> tuple[list[R], int | None]:
        batch = self._queue.due(connection, now_ms, BATCH)
        return batch, self._queue.next_due_ms(connection, now_ms)

    def _ended(
        self, lease: Lease, row: R, on_end: Callable[[], None], task: asyncio.Task[None]
    ) -> None:
        del self._under_way[row.id]
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            self._failures.append((lease, failure))
        on_end()

    def _raise_failure(self, lease: Lease) -> None:
        """Of what an older lease has begun, only that it was lost, which is known."""
        failures, self._failures = self._failures, []
        for theirs, failure in failures:
            if theirs is lease or not isinstance(failure, LeaseLostError):
                raise failure

    async def _serve(self, lease: Lease, row: R) -> None:
        async with self._room:
            failure = await self._try(lease, row)
        if failure is not None:
            await self._note_failure(lease, row, failure)

    async def _try(self, lease: Lease, row: R) -> str | None:
        """Handle a row and finish it; why that failed, if it did."""
        try:
            async with asyncio.timeout(HANDLE_TIMEOUT_S):
                work = await self._handler.handle(row)
            crash("callbacks.handled")
            handled = Handled(lease, row, work, self._clock.now_ms())
            await self._ledger.write_batched(self._finisher, handled)
            crash("callbacks.finished")
        except _OURS:
            raise
        except TimeoutError:
            return f"not done within {HANDLE_TIMEOUT_S:.0f} s"
        except TapRailError as exc:
            return str(exc)
        except Exception as exc:  # noqa: BLE001 - a handler's bug is its own failure: noted, bounded
            _log.exception("callbacks.bug", queue=self.name, about=row.about)
            return f"an unforeseen error ({type(exc).__name__})"
        return None

    async def _note_failure(self, lease: Lease, row: R, failure: str) -> None:
        tries, now_ms = row.tries + 1, self._clock.now_ms()
        is_last = tries >= self._queue.max_tries
        due_at_ms = now_ms + self._queue.backoff.wait_ms(tries, self._random)

        def note(connection: Connection) -> None:
            leases.guard(connection, lease)
            if is_last:
                self._queue.bury(connection, row, now_ms, failure)
            else:
                self._queue.put_off(connection, row, due_at_ms, failure)

        await self._ledger.write(note)
        crash("callbacks.put_off")
        _log.warning(
            "callbacks.given_up" if is_last else "callbacks.put_off",
            queue=self.name,
            about=row.about,
            tries=tries,
            reason=failure,
        )


def _nobody() -> None:
    """Waits for the end by itself."""

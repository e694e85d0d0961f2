"""Group commit: one thread writes, and everything that waits shares the next commit.

One fsync per payment would bound the gateway by its disk. So the writer takes all that has queued
up while the last commit was under way, runs it in one transaction, commits once, and then answers
everybody at once. Nothing waits on purpose: a lone write is committed alone, at once.

When something in a group of several raises, all of it is rolled back and each item is run again in
a transaction of its own, so that only the culprit fails. A savepoint for each item would cost two
statements on every item of every group, to make cheaper what hardly ever happens. Therefore work
must depend on nothing but its connection and its arguments: it may be run twice.

On a server that several gateways share, two groups may want the same rows. Every piece of work
changes its rows in the order of their keys, but two pieces after each other do not: there only the
items of one batcher share a commit. And what was read may be changed before it is written: an item
whose guard does not hold, or whose row is there already, is run again and reads anew.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, Protocol, TypeVar

import structlog
from sqlalchemy import Connection, Engine

from taprail_common.crash import crash
from taprail_common.errors import TapRailError
from taprail_gateway.ledger.collisions import in_transaction
from taprail_gateway.ledger.errors import (
    Overloaded,
    StorageError,
    is_collision,
    is_overtaken,
    storage_error,
)

MAX_GROUP: Final = 64
"""Items in one commit: the fsync is paid off by then, and a longer group only adds delay."""

MAX_QUEUED: Final = 2_000
"""Items waiting; about half a second of work, after which a caller is better off told so."""

_DRAIN_S: Final = 60.0
"""More than a full queue takes on a slow disk; beyond it the disk hangs."""

_log = structlog.get_logger("ledger")

Item = TypeVar("Item", contravariant=True)  # noqa: PLC0105 - `Item_contra` would not read
Result = TypeVar("Result")
Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Batcher(Protocol[Item, Result]):
    """Work that is done for several items together; the same object collects its own."""

    def run(self, connection: Connection, items: Sequence[Item], /) -> list[Result]:
        """One result per item, in their order. May be run twice: see the module."""
        ...


class _EachAlone:
    """The batcher of plain work: a function of the connection."""

    def run(
        self, connection: Connection, items: Sequence[Callable[[Connection], Any]], /
    ) -> list[Any]:
        return [work(connection) for work in items]


EACH_ALONE: Final = _EachAlone()


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    batcher: Batcher[Any, Any]
    item: Any
    future: asyncio.Future[Any]


class GroupCommit:
    """The writer thread and its queue. `submit` belongs to the event loop that started it."""

    def __init__(
        self, engine: Engine, *, shared: bool, after_commit: Callable[[], None] | None = None
    ) -> None:
        """`shared`: with other gateways. `after_commit` is called by the writer when it has told
        of a group."""
        self._engine = engine
        self._shared = shared
        self._after_commit = after_commit
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # A daemon: a program that ends without `close` must not hang in a thread, and what it
        # leaves undone was acknowledged to nobody.
        self._thread = threading.Thread(target=self._write, name="ledger-writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Start writing; results are delivered to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        """Finish everything that was submitted, then stop; raises StorageError if it hangs."""
        if self._loop is None:
            return
        self._loop = None
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, _DRAIN_S)
        if self._thread.is_alive():
            raise StorageError("the ledger's writer does not come to an end", fix="check the disk")

    def submit(self, batcher: Batcher[Any, Any], item: object) -> asyncio.Future[Any]:
        """Queue one item; the future resolves after the commit that holds it is on disk."""
        if self._loop is None:
            raise StorageError("the ledger is closed", code="ledger_closed")
        if self._queue.qsize() >= MAX_QUEUED:
            raise Overloaded(f"{MAX_QUEUED} writes are waiting", fix="try again in a second")
        future = self._loop.create_future()
        self._queue.put(_Job(batcher, item, future))
        return future

    def _write(self) -> None:
        while jobs := self._next_group():
            for outcomes in self._commit_each(_by_batcher(jobs) if self._shared else [jobs]):
                _deliver(outcomes)
            if self._after_commit is not None:
                self._after_commit()

    def _next_group(self) -> list[_Job]:
        """Wait for work and take what is there; nothing once everything is drained."""
        jobs: list[_Job] = []
        job = self._queue.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == MAX_GROUP:
                return jobs
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return jobs
        if jobs:
            self._queue.put(None)  # the end is seen again, after this last group
        return jobs

    def _commit_each(self, groups: list[list[_Job]]) -> Iterator[list[Outcome]]:
        for position, jobs in enumerate(groups):
            outcomes = self._commit(jobs)
            yield outcomes
            error = outcomes[-1][2]
            if isinstance(error, StorageError):
                # Each of the others would wait for the same lock or disk, one after the other.
                late = chain.from_iterable(groups[position + 1 :])
                yield [(job.future, None, error) for job in late]
                return

    def _commit(self, jobs: list[_Job]) -> list[Outcome]:
        try:
            results = self._transaction(jobs)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it is handed to who asked
            return self._after_failure(jobs, exc)
        return [(job.future, result, None) for job, result in zip(jobs, results, strict=True)]

    def _transaction(self, jobs: list[_Job]) -> list[Any]:
        def work(connection: Connection) -> list[Any]:
            results = _run(connection, jobs)
            crash("ledger.before_commit")
            return results

        # Of a group, whose items are run alone then, only what says nothing about any of them.
        again = is_overtaken if self._shared and len(jobs) == 1 else is_collision
        results = in_transaction(self._engine, work, again=again)
        crash("ledger.after_commit")
        return results

    def _after_failure(self, jobs: list[_Job], exc: BaseException) -> list[Outcome]:
        failure = storage_error(exc)
        if failure is not None:
            _log.error("ledger.storage", reason=str(failure), writes=len(jobs))
            return _all_failed(jobs, failure, exc)
        if len(jobs) == 1:
            return [(jobs[0].future, None, exc)]
        return list(chain.from_iterable(self._commit_each([[job] for job in jobs])))


def _by_batcher(jobs: list[_Job]) -> list[list[_Job]]:
    """Those of one batcher together, and plain work each alone."""
    groups: dict[int, list[_Job]] = {}
    for job in jobs:
        groups.setdefault(id(job if job.batcher is EACH_ALONE else job.batcher), []).append(job)
    return list(groups.values())


def _run(connection: Connection, jobs: list[_Job]) -> list[Any]:
    """Hand each batcher its own items together; results in the order of the jobs."""
    positions: dict[int, list[int]] = {}
    for position, job in enumerate(jobs):
        positions.setdefault(id(job.batcher), []).append(position)
    results: list[Any] = [None] * len(jobs)
    for own in positions.values():
        given = jobs[own[0]].batcher.run(connection, [jobs[position].item for position in own])
        for position, result in zip(own, given, strict=True):
            results[position] = result
    return results


def _all_failed(jobs: list[_Job], failure: TapRailError, cause: BaseException) -> list[Outcome]:
    failure.__cause__ = cause
    return [(job.future, None, failure) for job in jobs]


def _deliver(outcomes: list[Outcome]) -> None:
    if not outcomes:
        return
    try:
        outcomes[0][0].get_loop().call_soon_threadsafe(_resolve, outcomes)
    except RuntimeError:  # the loop is closed: it ended without waiting for us
        _log.warning("ledger.nobody_waits", writes=len(outcomes))


def _resolve(outcomes: list[Outcome]) -> None:
    for future, result, error in outcomes:
        if future.done():  # its caller has gone; the write stands
            continue
        if error is None:
            future.set_result(result)
        elif isinstance(error, StopIteration):  # the one exception that a future refuses
            future.set_exception(RuntimeError("the work raised StopIteration"))
        else:
            future.set_exception(error)

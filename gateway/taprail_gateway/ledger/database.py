"""The ledger as the gateway sees it: open it, write to it, read from it.

Answers for connections, threads and the checks at the door. What is written is up to the work that
comes in: see `transitions` and `queries`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from sqlalchemy import URL, Connection

from taprail_common.clock import Clock
from taprail_gateway.ledger import migrate as migrations
from taprail_gateway.ledger.checkpoints import Checkpoints
from taprail_gateway.ledger.collisions import in_transaction
from taprail_gateway.ledger.engines import is_server, ledger_url, read_engine, write_engine
from taprail_gateway.ledger.errors import Overloaded, storage_errors
from taprail_gateway.ledger.group_commit import EACH_ALONE, Batcher, GroupCommit
from taprail_gateway.ledger.process_lock import ProcessLock
from taprail_gateway.ledger.sqlite_engine import ledger_file

READ_THREADS: Final = 3
"""Reads are short and share the interpreter with everything else: more threads gain nothing."""

MAX_READS: Final = 256
"""Reads under way or waiting, beyond which a caller is told to come back."""

_SWITCH_INTERVAL_S: Final = 0.0005
"""How long one thread may keep the interpreter from another (Python's default is 5 ms).

The writer gives the interpreter up at each of its calls of the driver and has to wait for it after
each: behind a busy event loop that made the slowest hundredth of the commits half as long again.
"""

_I = TypeVar("_I")
_T = TypeVar("_T")


class Ledger:
    """One database. `write` and `read` need `start`; `write_now` and `read_now` do not."""

    def __init__(self, url: URL, clock: Clock) -> None:
        self.clock = clock
        self.write_engine = write_engine(url)
        self.read_engine = read_engine(url, connections=READ_THREADS + 1)
        self._lock: ProcessLock | None = None
        self._checkpoints: Checkpoints | None = None
        if not is_server(url):
            self._lock = ProcessLock(ledger_file(url))
            self._checkpoints = Checkpoints(self.write_engine, ledger_file(url))
        self._writer = GroupCommit(
            self.write_engine,
            shared=is_server(url),
            after_commit=self._checkpoints.after_commit if self._checkpoints else None,
        )
        self._readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="ledger-reader")
        self.reads_under_way = 0
        self.reads_refused = 0
        """Since the start, because too many were under way."""

    @classmethod
    def open(cls, url: str | URL, *, clock: Clock, migrate: bool = False) -> Ledger:
        """Open a ledger of this program's version; `migrate` brings an older one up to it first.

        Raises OperatorError when there is none at the URL, or when it is older or newer.
        """
        parsed = ledger_url(url)
        if migrate:
            migrations.upgrade(parsed)
        migrations.check_version(parsed)
        return cls(parsed, clock)

    @property
    def is_exclusive(self) -> bool:
        """Whether this process, once started, is proven to be the only gateway on the ledger."""
        return self.write_engine.dialect.name == "sqlite"

    async def start(self) -> None:
        """Begin to write. A file is claimed for this process: OperatorError if it is already."""
        if self._lock is not None:
            self._lock.acquire()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        if self._checkpoints is not None:
            self._checkpoints.start()
        self._writer.start()

    async def close(self) -> None:
        """Finish all that was asked for, then let go of everything."""
        try:
            await self._writer.close()
            if self._checkpoints is not None:
                await asyncio.to_thread(self._checkpoints.close)
            await asyncio.to_thread(self._readers.shutdown)
        finally:
            self.dispose()

    def dispose(self) -> None:
        """Close the connections and give up the claim; enough for a ledger never started."""
        self._readers.shutdown(wait=False)
        self.read_engine.dispose()
        self.write_engine.dispose()
        if self._lock is not None:
            self._lock.release()

    async def write(self, work: Callable[[Connection], _T]) -> _T:
        """Do work in the next commit; returns when it is on disk.

        Work may be run twice (see `group_commit`). Raises what the work raises, Overloaded, or
        StorageError, after which the outcome is unknown.
        """
        result: _T = await self._writer.submit(EACH_ALONE, work)
        return result

    async def write_batched(self, batcher: Batcher[_I, _T], item: _I) -> _T:
        """Like `write`, for one of many alike: a commit hands a batcher all its items together."""
        result: _T = await self._writer.submit(batcher, item)
        return result

    async def read(self, query: Callable[[Connection], _T]) -> _T:
        """Read from one snapshot, in a thread of its own; raises Overloaded or StorageError."""
        if self.reads_under_way >= MAX_READS:
            self.reads_refused += 1
            raise Overloaded(f"{MAX_READS} reads are waiting", fix="try again in a second")
        self.reads_under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._readers, self.read_now, query
            )
        finally:
            self.reads_under_way -= 1

    def write_now(self, work: Callable[[Connection], _T]) -> _T:
        """Do work in a commit of its own, in this thread: for commands and start-up.

        Like `write`, it may run the work twice.
        """
        with storage_errors():
            return in_transaction(self.write_engine, work)

    def read_now(self, query: Callable[[Connection], _T]) -> _T:
        """Read from one snapshot, in this thread."""
        with storage_errors(), self.read_engine.begin() as connection:
            return query(connection)

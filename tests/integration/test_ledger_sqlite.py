"""What only a ledger in an SQLite file has: its syncs, its one writer, its full disk, its claim."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert

from taprail_common.clock import SystemClock
from taprail_common.errors import OperatorError
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.errors import StorageError
from taprail_gateway.ledger.schema import meta
from tests.support.ledger_writes import note, stored, writer_held


def _path(ledger_url: str) -> str:
    return ledger_url.removeprefix("sqlite:///")


async def test_a_failed_commit_is_never_acknowledged_and_can_be_repeated(
    ledger: Ledger, ledger_url: str
) -> None:
    await ledger.write(note("before"))
    with file_size_limit(log_bytes(ledger_url)):
        async with writer_held(ledger):
            waiting = [asyncio.create_task(ledger.write(note(f"key{i}"))) for i in range(10)]
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, StorageError) for outcome in outcomes)
    assert all(outcome.retryable for outcome in outcomes if isinstance(outcome, StorageError))
    assert await ledger.read(stored) == {"before"}
    assert await ledger.write(note("key0")) == "key0"


def log_bytes(ledger_url: str) -> int:
    return Path(_path(ledger_url) + "-wal").stat().st_size


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow beyond this: what a full disk does to a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_in_the_middle_of_the_work(ledger: Ledger) -> None:
    pages = await ledger.write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    await ledger.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages}").close())

    def big(connection: Connection) -> None:
        connection.execute(insert(meta).values(key="big", value="x" * 100_000))

    with pytest.raises(StorageError, match="full"):
        await ledger.write(big)
    assert await ledger.write(note("small")) == "small"


async def test_another_process_holds_the_lock_for_too_long(ledger: Ledger, ledger_url: str) -> None:
    await ledger.write(lambda c: c.exec_driver_sql("PRAGMA busy_timeout=50").close())
    other = sqlite3.connect(_path(ledger_url), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked by another process"):
        await ledger.write(note("a"))
    other.execute("ROLLBACK")
    other.close()
    assert await ledger.write(note("a")) == "a"


async def test_the_lock_is_taken_before_the_work_reads(ledger: Ledger, ledger_url: str) -> None:
    """Else two that read first and write then would be told so half way, and not wait."""

    def work(connection: Connection) -> None:
        stored(connection)
        other = sqlite3.connect(_path(ledger_url), timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()

    await ledger.write(work)


async def test_what_is_committed_is_synced(ledger: Ledger) -> None:
    def pragma(name: str) -> object:
        return ledger.write_now(lambda c: c.exec_driver_sql(f"PRAGMA {name}").scalar())

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2  # FULL: https://sqlite.org/pragma.html#pragma_synchronous
    assert pragma("foreign_keys") == 1


async def test_a_second_gateway_is_refused(ledger: Ledger, ledger_url: str) -> None:
    second = Ledger.open(ledger_url, clock=SystemClock())
    with pytest.raises(OperatorError, match=f"PID {os.getpid()}"):
        await second.start()
    second.dispose()
    await ledger.write(note("the first goes on"))

"""The write-ahead log of a running gateway's ledger: copied beside the writer, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert

from taprail_gateway.ledger.checkpoints import ROWS
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.schema import meta
from taprail_gateway.ledger.sqlite_engine import CHECKPOINT_PAGES
from tests.support.ledger_writes import stored

AT_ONCE = 100
ROUNDS = ROWS // AT_ONCE - 1
"""Before a checkpoint is due."""
MOST_ROUNDS = 4 * ROUNDS
"""Too few for SQLite to copy the log within a commit: each takes a few dozen pages."""

Grows = Callable[[], Awaitable[bool]]


@pytest.fixture
def grows(ledger: Ledger, ledger_url: str) -> Grows:
    """Writes a little, and says whether the log is longer by it than ever before."""
    log = Path(ledger_url.removeprefix("sqlite:///") + "-wal")
    numbers = count()

    def length() -> int:
        return log.stat().st_size if log.exists() else 0

    async def write() -> bool:
        before = length()
        keys = [f"key{next(numbers)}" for _ in range(AT_ONCE)]
        await asyncio.gather(*(ledger.write(partial(_store, key=key)) for key in keys))
        return length() > before

    return write


async def test_the_log_begins_anew_while_the_gateway_writes(ledger: Ledger, grows: Grows) -> None:
    for _ in range(ROUNDS):
        assert await grows()
    rounds = ROUNDS + await _rounds_until_anew(grows)
    keys = {f"key{number}" for number in range(rounds * AT_ONCE)}
    assert keys <= await ledger.read(stored)


async def test_the_log_waits_for_a_reader_and_then_begins_anew(
    ledger: Ledger, grows: Grows
) -> None:
    with ledger.read_engine.begin() as reader:
        before = stored(reader)
        for _ in range(2 * ROUNDS):
            assert await grows()
        assert stored(reader) == before
    await _rounds_until_anew(grows)


async def test_a_commit_copies_a_log_that_nobody_else_has_copied(ledger: Ledger) -> None:
    most = await ledger.write(lambda c: c.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar_one())
    assert most == CHECKPOINT_PAGES


async def _rounds_until_anew(grows: Grows) -> int:
    for number in range(MOST_ROUNDS):
        if not await grows():
            return number + 1
    raise AssertionError("the log grows and grows")


def _store(connection: Connection, key: str) -> None:
    connection.execute(insert(meta).values(key=key, value="1"))

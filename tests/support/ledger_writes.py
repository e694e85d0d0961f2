"""Small writes to a ledger, for tests of how they are committed: keys in the table `meta`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import Connection, insert, select

from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.schema import meta


class Notes:
    """A batcher: stores keys in `meta`, and remembers in which groups they came."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []

    def run(self, connection: Connection, items: Sequence[str], /) -> list[str]:
        self.groups.append(list(items))
        connection.execute(insert(meta), [{"key": item, "value": "1"} for item in items])
        return [item.upper() for item in items]


def note(key: str) -> Callable[[Connection], str]:
    def work(connection: Connection) -> str:
        connection.execute(insert(meta).values(key=key, value="1"))
        return key

    return work


def stored(connection: Connection) -> set[str]:
    return set(connection.execute(select(meta.c.key)).scalars())


@asynccontextmanager
async def writer_held(ledger: Ledger) -> AsyncIterator[None]:
    """Keep the writer busy inside a commit, so that what comes now has to queue."""
    held, free = threading.Event(), threading.Event()

    def work(_connection: Connection) -> None:
        held.set()
        assert free.wait(10)

    task = asyncio.create_task(ledger.write(work))
    assert await asyncio.to_thread(held.wait, 10)
    try:
        yield
    finally:
        free.set()
    await asyncio.gather(task, return_exceptions=True)

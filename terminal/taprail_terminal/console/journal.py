"""The terminal's own record of what technicians changed, until the gateway has it too and after.

Answers for *written before done*: a change that a power cut interrupts is in the journal, without
an outcome. SQLite with a sync for each commit; changes are few.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from taprail_common.errors import PartError
from taprail_common.technicians import MAX_CHANGES, MAX_COMMAND, Change, Changes

INTERRUPTED: Final = "interrupted"
_KEPT: Final = 1_000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS changes (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms INTEGER NOT NULL,
  technician TEXT NOT NULL,
  command TEXT NOT NULL,
  outcome TEXT NOT NULL,
  told INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS journal (id TEXT NOT NULL) STRICT;
"""
_UNTOLD: Final = (
    "SELECT seq, at_ms, technician, command, outcome FROM changes"
    " WHERE NOT told AND seq > ? ORDER BY seq LIMIT ?"
)

T = TypeVar("T")


class Journal:
    """The file at `path`. Raises PartError when the disk fails; then nothing is changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.changed = asyncio.Event()
        """There is something to tell the gateway."""
        self._open: set[int] = set()

    async def begin(self, technician: str, words: str, at_ms: int) -> int:
        """Write down what is about to be done; gives its number."""

        def work(database: sqlite3.Connection) -> int:
            cursor = database.execute(
                "INSERT INTO changes (at_ms, technician, command, outcome) VALUES (?, ?, ?, ?)",
                (at_ms, technician, _line(words), INTERRUPTED),
            )
            database.execute(
                "DELETE FROM changes WHERE told AND seq <= ?", ((cursor.lastrowid or 0) - _KEPT,)
            )
            return cursor.lastrowid or 0

        seq = await self._run(work)
        self._open.add(seq)
        return seq

    async def end(self, seq: int, outcome: str) -> None:
        """Write down what came of it."""
        await self._run(
            lambda db: (
                db.execute(
                    "UPDATE changes SET outcome = ? WHERE seq = ?", (_line(outcome), seq)
                ).rowcount
            )
        )
        self._open.discard(seq)
        self.changed.set()

    async def untold(self) -> Changes | None:
        """The oldest that the gateway does not have, without those that are going on."""

        def work(database: sqlite3.Connection) -> Changes | None:
            rows = database.execute(_UNTOLD, (0, MAX_CHANGES)).fetchall()
            first_open = min(self._open, default=2**53)
            made = [
                Change(seq=seq, at=at_ms, technician=who, command=what, outcome=outcome)
                for seq, at_ms, who, what, outcome in rows
                if seq < first_open
            ]
            return Changes(journal=_name(database), changes=tuple(made)) if made else None

        return await self._run(work)

    async def mark_told(self, up_to: int) -> None:
        """The gateway has these."""
        await self._run(
            lambda db: db.execute("UPDATE changes SET told = 1 WHERE seq <= ?", (up_to,)).rowcount
        )

    async def last(self, count: int) -> list[Change]:
        """The newest changes, oldest first."""

        def work(database: sqlite3.Connection) -> list[Change]:
            rows = database.execute(
                "SELECT seq, at_ms, technician, command, outcome FROM changes"
                " ORDER BY seq DESC LIMIT ?",
                (count,),
            ).fetchall()
            return [
                Change(seq=seq, at=at_ms, technician=who, command=what, outcome=outcome)
                for seq, at_ms, who, what, outcome in reversed(rows)
            ]

        return await self._run(work)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.to_thread(self._do, work)

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with _opened(self._path) as database, database:
                return work(database)
        except (sqlite3.Error, OSError) as exc:
            raise PartError(
                "journal", f"{self._path} fails ({exc})", fix="check the disk's space and health"
            ) from exc


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(path, timeout=5.0)
    try:
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(_SCHEMA)
        path.chmod(0o600)
        yield database
    finally:
        database.close()


def _name(database: sqlite3.Connection) -> str:
    row = database.execute("SELECT id FROM journal").fetchone()
    if row is None:
        row = (f"jnl_{secrets.token_hex(8)}",)
        database.execute("INSERT INTO journal (id) VALUES (?)", row)
    return str(row[0])


def _line(text: str) -> str:
    """One bounded line."""
    return "".join(each if each.isprintable() else " " for each in text)[:MAX_COMMAND]

"""The terminal's memory of money: every request it has made, until its outcome is known for good.

Answers for *stored before sent*: a request's exact bytes are on the disk before the first of them
leaves, and what the gateway signed is kept beside them as evidence. Each step is guarded by the
state that it leaves. It knows neither network nor display.

    stored ──▶ approved ──▶ settled
       │          ╰───────▶ failed
       ╰─────▶ declined

SQLite in WAL mode with synchronous=FULL: a commit is one append and one fsync of the log, where a
rollback journal needs three and a folder sync; both survive a power cut. All statements run in one
thread of their own, so the event loop never waits for the card that a Pi calls its disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from taprail_common.errors import IllegalTransitionError, OperatorError, PartError
from taprail_terminal.offline import Exposure, OfflineNo, OfflineRefusedError
from taprail_terminal.outbox_rows import STEPS, Evidence, OutboxCounts, OutboxRow, RequestState

__all__ = [
    "KEEP_FINISHED",
    "KEEP_FINISHED_MS",
    "KEEP_LEAST",
    "MAX_UNRESOLVED",
    "PRUNE_EVERY",
    "Evidence",
    "Outbox",
    "OutboxCounts",
    "OutboxRow",
    "RequestState",
]

PART: Final = "outbox"

MAX_UNRESOLVED: Final = 100
"""Requests without an outcome. A till that sells on while so many are unknown is not connected."""
KEEP_FINISHED: Final = 10_000
KEEP_FINISHED_MS: Final = 90 * 24 * 3600 * 1000
"""How much evidence of finished sales is kept: the newer of both bounds deletes."""
KEEP_LEAST: Final = 1_000
"""Whatever the clock says: one that is set ahead by years makes all evidence look old."""
PRUNE_EVERY: Final = 200
"""Requests between two prunings; one deletes as many rows as came since the last."""

MAX_LOST: Final = 50
"""Losses that are listed; all of them are counted."""

_SCHEMA_VERSION: Final = len(STEPS)

_SELECT: Final = (
    "SELECT request_id, amount_units, currency, body, signature, stored_at_ms, state,"
    " came_back_at_ms IS NOT NULL, offline, told_at_ms IS NOT NULL"
    " FROM requests WHERE {where} ORDER BY number"
)
"""`where` is always a text of this module; values travel as parameters."""

T = TypeVar("T")
Limit = Callable[[Exposure], OfflineNo | None]


class Outbox:
    """The store at `path`. Raises PartError when the disk fails, OperatorError for a wrong file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outbox")
        self._database: sqlite3.Connection | None = None
        self._since_prune = 0

    async def open(self, now_ms: int) -> None:
        """Open or create the file, check it and prune what is old."""
        await self._run(lambda _database: None, now_ms=now_ms)

    async def close(self) -> None:
        """Finish what is queued and close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=True)

    async def store(self, row: OutboxRow, limit: Limit | None = None) -> None:
        """Put a request on the disk for good. Only then may it be sent, or told to be taken.

        `limit` looks at what was taken offline so far, in the transaction that adds this one.
        Raises OfflineRefusedError, and nothing is stored, when it objects.
        """
        await self._run(lambda database: self._store(database, row, limit))

    async def exposure(self) -> Exposure:
        """What was taken offline and waits for the gateway, and what it has declined."""
        return await self._run(_exposure)

    async def resolve(
        self, request_id: str, state: RequestState, verdict: Evidence, at_ms: int
    ) -> bool:
        """Write down a verified verdict; False when the same one was known already. A yes to what
        the customer was told is taken needs no showing.

        Raises IllegalTransitionError when the request had another outcome.
        """
        return await self._run(lambda db: _resolve(db, request_id, state, verdict, at_ms))

    async def finish(
        self, request_id: str, state: RequestState, notice: Evidence, at_ms: int
    ) -> bool:
        """Write down that an approved request is settled or failed; False if it is not approved.

        A failure is an outcome that nobody has been shown yet, and so is the end of a request that
        had come back.
        """
        return await self._run(lambda db: _finish(db, request_id, state, notice, at_ms))

    async def come_back(self, request_id: str, at_ms: int) -> None:
        """Write down that staff is told of an approved request which the chain has not settled."""
        await self._run(lambda db: _come_back(db, request_id, at_ms))

    async def mark_shown(self, request_id: str, at_ms: int) -> None:
        """Write down that lights and display have shown a request's outcome."""
        await self._run(lambda db: _mark_shown(db, request_id, at_ms))

    async def mark_told(self, request_id: str, at_ms: int) -> None:
        """Write down that a customer was shown that a sale is taken without the gateway."""
        await self._run(lambda db: _mark_told(db, request_id, at_ms))

    async def lost(self) -> list[OutboxRow]:
        """The newest sales that were taken offline and declined later."""
        return await self._run(_lost)

    async def find(self, request_id: str) -> OutboxRow | None:
        """One request."""
        rows = await self._run(lambda db: _rows(db, "request_id = ?", request_id))
        return rows[0] if rows else None

    async def unseen(self) -> list[OutboxRow]:
        """All requests whose outcome nobody has been shown, oldest first: those without a verdict,
        and those whose verdict or failure came when there was no more time to show it."""
        return await self._run(lambda db: _rows(db, "shown_at_ms IS NULL"))

    async def unfinished(self) -> list[OutboxRow]:
        """All requests whose end is not known, oldest first: those without a verdict, and approved
        ones that the chain has not settled."""
        return await self._run(lambda db: _rows(db, "state IN ('stored', 'approved')"))

    async def counts(self) -> OutboxCounts:
        """The health figure of a terminal."""
        return await self._run(_counts)

    async def check(self) -> OutboxCounts:
        """Prove that the file can be written, by a commit that changes nothing; then count."""
        return await self._run(_write_and_count)

    async def _run(
        self, work: Callable[[sqlite3.Connection], T], *, now_ms: int | None = None
    ) -> T:
        def run() -> T:
            try:
                if self._database is None:
                    self._database = _open(self._path)
                if now_ms is not None:
                    with self._database:
                        _prune(self._database, now_ms)
                return work(self._database)
            except sqlite3.Error as exc:
                raise PartError(
                    PART, f"{self._path} fails ({exc})", fix="check the disk's space and health"
                ) from exc

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    def _store(self, database: sqlite3.Connection, row: OutboxRow, limit: Limit | None) -> None:
        if _counts(database).unresolved >= MAX_UNRESOLVED:
            raise PartError(PART, "too many sales are unknown", fix="connect to the gateway first")
        self._since_prune += 1
        # In the same commit: an error of either leaves nothing stored, as whoever asked is told.
        with database:
            database.execute("BEGIN IMMEDIATE")
            if limit is not None and (no := limit(_exposure(database))) is not None:
                raise OfflineRefusedError(no)
            if self._since_prune >= PRUNE_EVERY:
                _prune(database, row.stored_at_ms)
                self._since_prune = 0
            database.execute(
                "INSERT INTO requests (request_id, amount_units, currency, body, signature,"
                " stored_at_ms, offline, state) VALUES (?, ?, ?, ?, ?, ?, ?, 'stored')",
                (
                    row.request_id,
                    row.amount_units,
                    row.currency,
                    row.body,
                    row.signature,
                    row.stored_at_ms,
                    row.offline,
                ),
            )

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
    except (OSError, sqlite3.Error) as exc:
        raise OperatorError(
            f"outbox {path} cannot be made ({exc})",
            fix="let state_dir be a folder on a disk that can be written",
        ) from exc
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > _SCHEMA_VERSION:
            raise OperatorError(f"outbox {path} is from a newer TapRail", fix="upgrade this one")
        path.chmod(0o600)  # it holds card proofs and, for plain tags, serial numbers
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA journal_size_limit = 4194304")
        if version < _SCHEMA_VERSION:
            steps = "".join(STEPS[version:])
            database.executescript(
                f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;"
            )
    except (OSError, sqlite3.Error) as exc:
        database.close()
        raise OperatorError(
            f"outbox {path} cannot be used ({exc})",
            fix="keep the file, it is evidence; move it away and check its sales at the gateway",
        ) from exc
    except OperatorError:
        database.close()
        raise
    return database


def _resolve(
    database: sqlite3.Connection,
    request_id: str,
    state: RequestState,
    verdict: Evidence,
    at_ms: int,
) -> bool:
    finished_at_ms = at_ms if state is RequestState.DECLINED else None
    with database:
        changed = database.execute(
            "UPDATE requests SET state = ?1, verdict = ?2, verdict_signature = ?3,"
            " verdict_at_ms = ?4, finished_at_ms = ?5,"
            " shown_at_ms = iif(?1 = 'approved' AND told_at_ms IS NOT NULL, ?4, shown_at_ms)"
            " WHERE request_id = ?6 AND state = 'stored'",
            (state.value, verdict.body, verdict.signature, at_ms, finished_at_ms, request_id),
        ).rowcount
    if changed:
        return True
    known = _rows(database, "request_id = ?", request_id)
    if not known or (known[0].state is RequestState.DECLINED) != (state is RequestState.DECLINED):
        was = known[0].state if known else "unknown"
        raise IllegalTransitionError(f"a request that is {was} cannot become {state}")
    return False


def _finish(
    database: sqlite3.Connection,
    request_id: str,
    state: RequestState,
    notice: Evidence,
    at_ms: int,
) -> bool:
    with database:
        cursor = database.execute(
            "UPDATE requests SET state = ?, notice = ?, notice_signature = ?, finished_at_ms = ?,"
            " shown_at_ms = iif(? OR came_back_at_ms IS NOT NULL, NULL, shown_at_ms)"
            " WHERE request_id = ? AND state = 'approved'",
            (
                state.value,
                notice.body,
                notice.signature,
                at_ms,
                state is RequestState.FAILED,
                request_id,
            ),
        )
    return cursor.rowcount == 1


def _come_back(database: sqlite3.Connection, request_id: str, at_ms: int) -> None:
    with database:
        database.execute(
            "UPDATE requests SET came_back_at_ms = ? WHERE request_id = ? AND state = 'approved'"
            " AND came_back_at_ms IS NULL",
            (at_ms, request_id),
        )


def _mark_shown(database: sqlite3.Connection, request_id: str, at_ms: int) -> None:
    with database:
        database.execute(
            "UPDATE requests SET shown_at_ms = ?"
            " WHERE request_id = ? AND state <> 'stored' AND shown_at_ms IS NULL",
            (at_ms, request_id),
        )


def _mark_told(database: sqlite3.Connection, request_id: str, at_ms: int) -> None:
    with database:
        database.execute(
            "UPDATE requests SET told_at_ms = ?"
            " WHERE request_id = ? AND offline = 1 AND told_at_ms IS NULL",
            (at_ms, request_id),
        )


def _lost(database: sqlite3.Connection) -> list[OutboxRow]:
    return _rows(database, f"number IN ({_NEWEST_LOST})", MAX_LOST)


def _rows(database: sqlite3.Connection, where: str, *values: str | int) -> list[OutboxRow]:
    cursor = database.execute(_SELECT.format(where=where), values)
    return [
        replace(
            OutboxRow(*fields),
            state=RequestState(state),
            came_back=bool(came_back),
            offline=bool(offline),
            told=bool(told),
        )
        for *fields, state, came_back, offline, told in cursor
    ]


def _counts(database: sqlite3.Connection) -> OutboxCounts:
    counts = database.execute(
        "SELECT count(*) FILTER (WHERE state = 'stored'),"
        " count(*) FILTER (WHERE state = 'approved'),"
        " min(stored_at_ms) FILTER (WHERE state = 'stored')"
        " FROM requests WHERE state IN ('stored', 'approved')"
    ).fetchone()
    return OutboxCounts(*counts)


def _exposure(database: sqlite3.Connection) -> Exposure:
    figures = database.execute(
        "SELECT count(*) FILTER (WHERE state = 'stored'),"
        " coalesce(sum(amount_units) FILTER (WHERE state = 'stored'), 0),"
        " min(stored_at_ms) FILTER (WHERE state = 'stored'),"
        " max(stored_at_ms) FILTER (WHERE state = 'stored'),"
        " count(*) FILTER (WHERE state = 'declined'),"
        " coalesce(sum(amount_units) FILTER (WHERE state = 'declined'), 0)"
        " FROM requests WHERE offline = 1 AND state IN ('stored', 'declined')"
    ).fetchone()
    return Exposure(*figures)


def _write_and_count(database: sqlite3.Connection) -> OutboxCounts:
    with database:
        database.execute("BEGIN IMMEDIATE")
        database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    return _counts(database)


_NEWEST_LOST: Final = (
    "SELECT number FROM requests WHERE offline = 1 AND state = 'declined'"
    " ORDER BY number DESC LIMIT ?"
)
_NEWEST: Final = (
    "SELECT number FROM requests WHERE state NOT IN ('stored', 'approved')"
    " ORDER BY number DESC LIMIT 1 OFFSET ?"
)
_PRUNE: Final = (
    "DELETE FROM requests WHERE state NOT IN ('stored', 'approved') AND number <= ({newest})"
    " AND (finished_at_ms < ? OR number <= ({newest}))"
)


def _prune(database: sqlite3.Connection, now_ms: int) -> None:
    """Delete old evidence of what has come to its end, and of nothing else: a clock that jumps
    ahead must not take a sale's evidence before the chain has settled it, nor that of the newest.
    """
    database.execute(
        _PRUNE.format(newest=_NEWEST),
        (KEEP_LEAST, now_ms - KEEP_FINISHED_MS, KEEP_FINISHED),
    )

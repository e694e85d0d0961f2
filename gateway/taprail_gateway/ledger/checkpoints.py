"""Copies an SQLite ledger's write-ahead log into its file, beside the writer.

SQLite does so by itself within the commit that makes the log too long: some thousand pages and a
sync of the file, for which everybody waits whose payment is in the queue. So a thread with a
connection of its own does it, every so many rows and without a lock that the writer needs
(https://sqlite.org/c3ref/wal_checkpoint_v2.html, PASSIVE). It leaves what was committed meanwhile,
and the log begins anew only when nothing is left: that little the writer copies itself, between two
commits. Where all of this comes too late, SQLite's own checkpoint (`sqlite_engine`) bounds the log;
a reader who keeps an old snapshot open holds up all three.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Final, cast

import structlog
from sqlalchemy import Connection, Engine, event

from taprail_gateway import cores

ROWS: Final = 5_000
"""Changed between two checkpoints. A row costs the log one page to three, with its indexes, so
SQLite's own bound is not reached; and a page that is changed again and again is copied once."""

_PASSES: Final = 2
"""The first takes as long as some commits, the second has only these to copy."""

_END_S: Final = 10.0
"""More than a pass takes on a slow disk; SQLite goes on from wherever it was broken off."""

_COUNTED: Final = "checkpoints.counted"
"""Of a connection's own data: how many of its changes were counted already."""

_log = structlog.get_logger("ledger")


class Checkpoints:
    """Makes checkpoints from `start` to `close`, as the writer's commits make them due."""

    def __init__(self, engine: Engine, file: Path) -> None:
        self._file = file
        self._rows = 0
        self._is_due = threading.Event()
        self._is_nearly_done = threading.Event()
        self._ends = False
        # A daemon, as the writer is: a checkpoint that did not happen is made later.
        self._thread = threading.Thread(target=self._run, name="ledger-checkpoint", daemon=True)
        event.listen(engine, "commit", self._count)

    def start(self) -> None:
        """Begin; the ledger is there."""
        self._thread.start()

    def close(self) -> None:
        """End after the pass that is under way; nothing to do if it never began."""
        self._ends = True
        self._is_due.set()
        if self._thread.is_alive():
            self._thread.join(_END_S)

    def after_commit(self) -> None:
        """To be called by the writer, between two of its transactions."""
        if self._rows >= ROWS:
            self._rows = 0
            self._is_due.set()
        if self._is_nearly_done.is_set():
            self._is_nearly_done.clear()
            self._copy()

    def _count(self, connection: Connection) -> None:
        # By commands in other threads, too: a number that is a little off does no harm.
        rows = cast("sqlite3.Connection", connection.connection.dbapi_connection).total_changes
        self._rows += rows - connection.info.get(_COUNTED, 0)
        connection.info[_COUNTED] = rows

    def _run(self) -> None:
        cores.roam()
        while self._is_due.wait() and not self._ends:
            self._is_due.clear()
            for _ in range(_PASSES):
                self._copy()
            self._is_nearly_done.set()

    def _copy(self) -> None:
        """Copy what is in the log and no reader needs there; sync the file."""
        try:
            with closing(sqlite3.connect(self._file, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous=FULL")
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as exc:
            # The log keeps everything, and who commits next meets the same disk.
            _log.warning("ledger.no_checkpoint", reason=str(exc))

"""The ledger in an SQLite file: the embedded engine, for one gateway.

The driver is put into autocommit and every BEGIN is written by us: the sqlite3 module's own idea of
when a transaction begins differs between Python versions, and breaks savepoints and DDL. A writer
begins IMMEDIATE, so that it waits for the lock at the start, within a bound, and never fails half
way.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from taprail_common.errors import OperatorError

LOCK_WAIT_MS: Final = 5_000
"""How long a writer waits for another process's transaction; admin commands take milliseconds."""

_CACHE_KIB: Final = 32 * 1024
CHECKPOINT_PAGES: Final = 16_000
"""In the log (64 MB) before a commit makes a checkpoint itself. `checkpoints` does so long before,
in a running gateway; the default of 1,000 would be first, and everybody would wait for it."""

# The log is cut back to this after a checkpoint, so that one burst does not keep it big for good.
_LOG_LIMIT_BYTES: Final = 64 * 1024 * 1024

_WRITE_PRAGMAS: Final = (
    # FULL syncs the log at every commit: what was acknowledged survives a power cut
    # (https://sqlite.org/pragma.html#pragma_synchronous: NORMAL may lose it in WAL mode).
    "synchronous=FULL",
    "foreign_keys=ON",
    f"busy_timeout={LOCK_WAIT_MS}",
    f"cache_size=-{_CACHE_KIB}",
    f"wal_autocheckpoint={CHECKPOINT_PAGES}",
    f"journal_size_limit={_LOG_LIMIT_BYTES}",
)
_READ_PRAGMAS: Final = (f"busy_timeout={LOCK_WAIT_MS}", "query_only=ON")


def ledger_file(url: URL) -> Path:
    """The file of a URL that `engines.ledger_url` has checked."""
    return Path(url.database or "")


def write_engine(url: URL, *, connections: int) -> Engine:
    """Connections that write: durable, with foreign keys, beginning with the write lock."""
    engine = _engine(url, connections)
    _on_connect(engine, _WRITE_PRAGMAS, write_ahead_log=True)
    _begin_with(engine, "BEGIN IMMEDIATE")
    return engine


def read_engine(url: URL, *, connections: int) -> Engine:
    """Connections that cannot write; each transaction sees one snapshot."""
    engine = _engine(url, connections)
    _on_connect(engine, _READ_PRAGMAS, write_ahead_log=False)
    _begin_with(engine, "BEGIN")
    return engine


def migration_engine(url: URL) -> Engine:
    """A connection that changes the schema: foreign keys are checked by the migration's end."""
    engine = _engine(url, 1)
    _on_connect(engine, ("synchronous=FULL", f"busy_timeout={LOCK_WAIT_MS}"), write_ahead_log=True)
    _begin_with(engine, "BEGIN IMMEDIATE")
    return engine


def _engine(url: URL, connections: int) -> Engine:
    return create_engine(
        url,
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=LOCK_WAIT_MS / 1000,
    )


def _on_connect(engine: Engine, pragmas: tuple[str, ...], *, write_ahead_log: bool) -> None:
    def connected(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
        if write_ahead_log:
            _use_write_ahead_log(connection)

    event.listen(engine, "connect", connected)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        # It needs shared memory, which network file systems lack (https://sqlite.org/wal.html).
        raise OperatorError(
            f"the ledger's file system allows no write-ahead log (mode {mode})",
            fix="keep the ledger on a local disk",
        )


def _begin_with(engine: Engine, statement: str) -> None:
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    event.listen(engine, "begin", begin)

"""What can go wrong in the ledger, and which of it may be tried again.

The classifier is the only place that looks at a driver's error codes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from taprail_common.errors import IllegalTransitionError, OperatorError, TapRailError

_SHOWN_SUBJECTS: Final = 5


class GuardError(IllegalTransitionError):
    """The SQL guard of a step did not let it pass: the ledger is not as the caller believed.

    `subjects` are the payments, accounts, lanes or transactions that it was about. It has to leave
    the transaction that it was raised in, which undoes everything else of that transaction.
    """

    code = "guard"

    def __init__(self, message: str, subjects: Sequence[object]) -> None:
        shown = ", ".join(str(subject) for subject in subjects[:_SHOWN_SUBJECTS])
        more = len(subjects) - _SHOWN_SUBJECTS
        super().__init__(f"{message}: {shown}" + (f" and {more} more" if more > 0 else ""))
        self.subjects = tuple(subjects)


class Overloaded(TapRailError):  # noqa: N818 - a state of the gateway, and named so in its answers
    """More work is queued than the ledger can do in good time. Nothing was done."""

    code = "overloaded"
    retryable = True


class StorageError(TapRailError):
    """The storage did not take a write or give a read; whoever repeats it is answered rightly.

    After a failed commit the outcome is unknown, never "not done": the bytes may have reached the
    disk. So every write of the ledger can be repeated without doing its work twice.
    """

    code = "ledger_unavailable"
    retryable = True


# Primary result codes (https://sqlite.org/rescode.html) of the storage, not of the statement.
_SQLITE_STORAGE: Final[dict[int, tuple[str, str]]] = {
    sqlite3.SQLITE_BUSY: ("the ledger is locked by another process", "wait for it, or stop it"),
    sqlite3.SQLITE_LOCKED: ("the ledger is locked by another connection", "try again"),
    sqlite3.SQLITE_NOMEM: ("the ledger ran out of memory", "free some memory"),
    sqlite3.SQLITE_READONLY: ("the ledger's file is read-only", "check its owner and its mount"),
    sqlite3.SQLITE_IOERR: (
        "the ledger's disk reports an error",
        "check the disk and the system log",
    ),
    sqlite3.SQLITE_FULL: ("the ledger's disk is full", "free some space"),
    sqlite3.SQLITE_CANTOPEN: ("the ledger's file cannot be opened", "check its path and owner"),
    sqlite3.SQLITE_PROTOCOL: ("the ledger's lock could not be had", "try again"),
}
_SQLITE_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def storage_error(exc: BaseException) -> TapRailError | None:
    """The storage's failure behind an exception, or None when the statement itself was wrong."""
    if isinstance(exc, PoolTimeoutError):
        return Overloaded("all of the ledger's connections are in use")
    if not isinstance(exc, DBAPIError):
        return None
    extended = getattr(exc.orig, "sqlite_errorcode", None)
    if extended is None:
        return _server_error(exc)
    primary = extended & 0xFF  # the low byte of an extended code is its primary code
    if primary in _SQLITE_DAMAGE:
        return OperatorError("the ledger's file is damaged", fix="restore it from its backup")
    if primary in _SQLITE_STORAGE:
        message, fix = _SQLITE_STORAGE[primary]
        return StorageError(message, fix=fix)
    return None


def _server_error(exc: DBAPIError) -> StorageError | None:
    # A database server's drivers report lost connections and lock time-outs as OperationalError.
    if exc.connection_invalidated or (
        isinstance(exc, OperationalError) and not isinstance(exc.orig, sqlite3.Error)
    ):
        return StorageError("the ledger's database does not answer", fix="check its server")
    return None


@contextmanager
def storage_errors() -> Iterator[None]:
    """Raise the storage's failures under their own names; let everything else pass."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as exc:
        failure = storage_error(exc)
        if failure is None:
            raise
        raise failure from exc

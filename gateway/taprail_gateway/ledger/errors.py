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


# SQLSTATEs (https://www.postgresql.org/docs/current/errcodes-appendix.html) of the storage: a whole
# code goes before its class, which is its first two characters.
_COLLISIONS: Final = frozenset({"40001", "40P01"})
_LOCK_TIMEOUT: Final = "55P03"
_UNIQUE: Final = "23505"
_NO_ANSWER: Final = ("the ledger's database does not answer", "check its server")
_SERVER_STORAGE: Final[dict[str, tuple[str, str]]] = {
    "40001": ("other gateways keep changing the same rows", "try again"),
    "40P01": ("other gateways keep changing the same rows", "try again"),
    _LOCK_TIMEOUT: ("rows of the ledger are locked by another gateway or command", "wait for it"),
    "25006": ("the ledger's database is read-only", "name its primary server"),
    "25P03": ("the gateway stood still for too long within a write", "try again"),
    "53100": ("the ledger's disk is full", "free some space"),
    "53300": ("the ledger's server has no connection left", "raise its max_connections"),
    "53": ("the ledger's server lacks resources", "see its log"),
    "57014": ("the ledger's database took too long", "check its server's load and disk"),
    "57": _NO_ANSWER,
    "08": _NO_ANSWER,
    "58": ("the ledger's server reports an error of its system", "check its disk and its log"),
}
_SERVER_REFUSALS: Final[dict[str, tuple[str, str]]] = {
    "28": ("the ledger's server does not let us in", "check user and password of its URL"),
    "3D000": ("the ledger's database does not exist", "create it with createdb"),
    "42501": ("the ledger's server denies a right", "make our user the database's owner"),
    "XX001": ("the ledger's database is damaged", "restore it from its backup"),
    "XX002": ("the ledger's database is damaged", "run REINDEX DATABASE, and check its disk"),
}
# Before a connection stands there is no SQLSTATE, only the server's words, which may also be in
# another language than these; they are shown in any case.
_REFUSED_ENTRY: Final[dict[str, str]] = {
    "password": "28",
    "authentication": "28",
    "pg_hba.conf": "28",
    'role "': "28",
    'database "': "3D000",
}
_SHOWN_WORDS: Final = 200


def storage_error(exc: BaseException) -> TapRailError | None:
    """The storage's failure behind an exception, or None when the statement itself was wrong."""
    if isinstance(exc, PoolTimeoutError):
        return Overloaded("all of the ledger's connections are in use")
    if not isinstance(exc, DBAPIError):
        return None
    if isinstance(exc.orig, sqlite3.Error):
        return _file_error(exc.orig)
    return _server_error(exc)


def is_collision(exc: BaseException) -> bool:
    """Whether the server has undone a transaction because of another: it may be run again."""
    return _sqlstate(exc) in _COLLISIONS


def is_overtaken(exc: BaseException) -> bool:
    """Whether another gateway may have been faster since the work read what it decided on."""
    return isinstance(exc, GuardError) or _sqlstate(exc) in {_UNIQUE, *_COLLISIONS}


def is_lock_timeout(exc: BaseException) -> bool:
    """Whether a lock of the server was not to be had in time."""
    return _sqlstate(exc) == _LOCK_TIMEOUT


def _file_error(exc: sqlite3.Error) -> TapRailError | None:
    extended = getattr(exc, "sqlite_errorcode", None)
    if extended is None:
        return None
    primary = extended & 0xFF  # the low byte of an extended code is its primary code
    if primary in _SQLITE_DAMAGE:
        return OperatorError("the ledger's file is damaged", fix="restore it from its backup")
    if primary in _SQLITE_STORAGE:
        message, fix = _SQLITE_STORAGE[primary]
        return StorageError(message, fix=fix)
    return None


def _server_error(exc: DBAPIError) -> TapRailError | None:
    state = _sqlstate(exc)
    if state is None:
        return _connection_error(exc)
    for key in (state, state[:2]):
        if key in _SERVER_REFUSALS:
            message, fix = _SERVER_REFUSALS[key]
            return OperatorError(f"{message} ({_words(exc)})", fix=fix)
        if key in _SERVER_STORAGE:
            message, fix = _SERVER_STORAGE[key]
            return StorageError(message, fix=fix)
    return None


def _connection_error(exc: DBAPIError) -> TapRailError | None:
    # The driver reports as OperationalError what the connection does, not the statement.
    if not isinstance(exc, OperationalError) and not exc.connection_invalidated:
        return None
    words = _words(exc)
    for text, state in _REFUSED_ENTRY.items():
        if text in words:
            message, fix = _SERVER_REFUSALS[state]
            return OperatorError(f"{message} ({words})", fix=fix)
    message, fix = _NO_ANSWER
    return StorageError(f"{message} ({words})", fix=fix)


def _sqlstate(exc: BaseException) -> str | None:
    state = getattr(getattr(exc, "orig", None), "sqlstate", None)
    return state if isinstance(state, str) else None


def _words(exc: DBAPIError) -> str:
    """What the server, or the driver for it, has said: it knows no password."""
    first = str(exc.orig).strip().partition("\n")[0]
    return first.rpartition("failed: ")[2][:_SHOWN_WORDS]


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

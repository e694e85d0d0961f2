"""Connections to the ledger's database: which engine a URL names.

Two are there, SQLite in a file and PostgreSQL on a server. What is to be known about opening one is
in its own module; nothing else of the ledger has to ask which it is but for what only one has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError

from taprail_common.errors import OperatorError
from taprail_gateway.ledger import postgres_engine, sqlite_engine

WRITE_CONNECTIONS: Final = 4
"""One for the writer thread, the others for `write_now` beside it."""

_URL_FIX: Final = (
    f"write it like sqlite:////var/lib/taprail/ledger.db, or {postgres_engine.URL_FIX}"
)


def ledger_url(url: str | URL) -> URL:
    """Read a database URL; raises OperatorError, which never shows its password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Without its cause: that may hold a piece of the URL, and so of the password.
        raise OperatorError("the ledger's URL is malformed", fix=_URL_FIX) from None
    if is_server(parsed):
        return postgres_engine.server_url(parsed)
    if parsed.drivername.partition("+")[0] != "sqlite":
        raise OperatorError(f"no ledger on {parsed.drivername}", fix=_URL_FIX)
    if not parsed.database or not Path(parsed.database).is_absolute():
        raise OperatorError("the ledger's URL names no absolute path", fix=_URL_FIX)
    return parsed


def is_server(url: URL) -> bool:
    """Whether the ledger is on a server, which several gateways may share."""
    return url.drivername.partition("+")[0] in {"postgresql", "postgres"}


def place(url: URL) -> str:
    """Where a ledger is, for people: its file, or its server without the password."""
    if not is_server(url):
        return str(sqlite_engine.ledger_file(url))
    return url.set(drivername="postgresql", password=None).render_as_string()


def write_engine(url: URL) -> Engine:
    """Connections that write, durably and with every wait bounded."""
    return _of(url).write_engine(url, connections=WRITE_CONNECTIONS)


def read_engine(url: URL, *, connections: int) -> Engine:
    """Connections that cannot write; each transaction sees one snapshot."""
    return _of(url).read_engine(url, connections=connections)


def migration_engine(url: URL) -> Engine:
    """A connection that changes the schema."""
    return _of(url).migration_engine(url)


class _Opener(Protocol):
    """What both modules of an engine have."""

    def write_engine(self, url: URL, *, connections: int) -> Engine: ...
    def read_engine(self, url: URL, *, connections: int) -> Engine: ...
    def migration_engine(self, url: URL) -> Engine: ...


def _of(url: URL) -> _Opener:
    return postgres_engine if is_server(url) else sqlite_engine

"""Bring a ledger's schema up to this program's, and tell whether it is.

The versions are in `migrations/versions`, part of the package. An upgrade is one transaction under
a lock that every gateway holds (SQLite: its file's, PostgreSQL: an advisory one): it happens
completely or not at all, and never below a running gateway.
Alembic is loaded only for a ledger that is not of this version: no start has to wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import URL, Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from taprail_common.errors import OperatorError
from taprail_gateway.ledger.engines import is_server, ledger_url, migration_engine, place
from taprail_gateway.ledger.errors import storage_error, storage_errors
from taprail_gateway.ledger.postgres_engine import lock_out_gateways
from taprail_gateway.ledger.process_lock import ProcessLock
from taprail_gateway.ledger.schema import VERSION
from taprail_gateway.ledger.sqlite_engine import ledger_file

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

_SCRIPTS: Final = Path(__file__).with_name("migrations")
_MIGRATE: Final = "run `taprail admin migrate`"


def head() -> str:
    """The schema version of this program."""
    revision = _scripts().get_current_head()
    if revision is None:
        raise OperatorError("the program's migrations are missing", fix="install it again")
    return revision


def versions() -> list[str]:
    """Every version that a ledger may have, oldest first."""
    return [script.revision for script in _scripts().walk_revisions()][::-1]


def current(url: str | URL) -> str | None:
    """The schema version of a ledger; None for one that does not exist or is empty."""
    parsed = ledger_url(url)
    if not is_server(parsed) and not ledger_file(parsed).exists():
        return None
    engine = migration_engine(parsed)
    try:
        with storage_errors(), engine.connect() as connection:
            # Alembic's own table: one row, and none of it in a ledger that was never migrated.
            if not inspect(connection).has_table("alembic_version"):
                return None
            found = connection.scalar(text("SELECT version_num FROM alembic_version"))
            return None if found is None else str(found)
    finally:
        engine.dispose()


def check_version(url: str | URL) -> None:
    """Raise OperatorError, saying what to do, unless the ledger has exactly this version."""
    found = current(url)
    if found == VERSION:
        return
    if found is None:
        raise OperatorError(f"no ledger at {place(ledger_url(url))}", fix=_MIGRATE)
    _refuse_newer(found)
    raise OperatorError(f"the ledger has version {found}, not {VERSION}", fix=_MIGRATE)


def upgrade(url: str | URL, *, to: str = "head") -> bool:
    """Create or upgrade a ledger; whether anything was to be done. Raises OperatorError.

    `to` stops at a version that a released program had.
    """
    parsed = ledger_url(url)
    found = current(parsed)
    if found is not None:
        _refuse_newer(found)
    if found == head():
        return False
    with _alone(parsed):
        _upgrade(parsed, to)
    return True


@contextmanager
def _alone(url: URL) -> Iterator[None]:
    """Keep gateways away from a file, which is made if need be; a server locks in `_upgrade`."""
    if is_server(url):
        yield
        return
    _create_private(ledger_file(url))
    lock = ProcessLock(ledger_file(url))
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _upgrade(url: URL, to: str) -> None:
    from alembic import command

    engine = migration_engine(url)
    try:
        with engine.begin() as connection:
            if is_server(url):
                lock_out_gateways(connection)
            command.upgrade(_config(connection), to)
            if not is_server(url):
                _check_references(connection)
    except SQLAlchemyError as exc:
        raise storage_error(exc) or OperatorError(
            f"the upgrade failed ({getattr(exc, 'orig', exc)})",
            fix="nothing was changed; is it a ledger of TapRail?",
        ) from exc
    finally:
        engine.dispose()


def _check_references(connection: Connection) -> None:
    # SQLite changes a table by building it anew, which needs foreign keys off meanwhile.
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if broken:
        raise OperatorError(
            f"the upgrade would break {len(broken)} references, first in table {broken[0][0]}",
            fix="nothing was changed; restore the ledger from a backup",
        )


def _refuse_newer(revision: str) -> None:
    if revision not in versions():
        raise OperatorError(
            f"the ledger's version {revision} is from a newer TapRail", fix="upgrade the program"
        )


def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config())


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _create_private(path: Path) -> None:
    # Wrapped keys and signed evidence are in it; SQLite gives its side files the same mode.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise OperatorError(
            f"the ledger {path} cannot be created ({exc.strerror})", fix="check its folder"
        ) from exc

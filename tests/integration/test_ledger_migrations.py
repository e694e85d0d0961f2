"""A ledger has exactly the schema of its program, or the program says what to do."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from taprail_common.clock import SystemClock
from taprail_common.errors import OperatorError, TapRailError
from taprail_gateway.ledger import migrate
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.process_lock import ProcessLock
from taprail_gateway.ledger.schema import VERSION, metadata
from tests.support.ledger_contents import ROWS, connected, definitions, fill, rows
from tests.support.ledger_fixtures import on_both_engines

OLDER = migrate.versions()[:-1]


def database(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


@on_both_engines
def test_the_migrated_schema_is_the_metadata(ledger_url: str, no_ledger_url: str) -> None:
    with connected(ledger_url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    # The comparison does not look at checks, partial indexes and sort orders: the engine's own
    # text does.
    with connected(no_ledger_url) as connection:
        metadata.create_all(connection)
    migrated, created = definitions(ledger_url), definitions(no_ledger_url)
    assert migrated.keys() == created.keys()
    for name, definition in created.items():
        assert migrated[name] == definition, name


@on_both_engines
@pytest.mark.parametrize("version", OLDER)
def test_an_upgrade_loses_nothing_and_leads_to_the_schema_of_a_new_ledger(
    ledger_url: str, no_ledger_url: str, version: str
) -> None:
    migrate.upgrade(no_ledger_url, to=version)
    assert migrate.current(no_ledger_url) == version
    fill(no_ledger_url)
    before = rows(no_ledger_url)
    assert all(len(given) == ROWS for given in before.values())
    assert migrate.upgrade(no_ledger_url)
    after = rows(no_ledger_url)
    for table, given in before.items():
        kept = [{name: row[name] for name in given[0]} for row in after[table]]
        assert kept == given, table
    assert definitions(no_ledger_url) == definitions(ledger_url)


@on_both_engines
def test_an_older_ledger_is_not_opened(no_ledger_url: str) -> None:
    migrate.upgrade(no_ledger_url, to=OLDER[0])
    with pytest.raises(OperatorError, match=f"version {OLDER[0]}, not {VERSION}.*admin migrate"):
        Ledger.open(no_ledger_url, clock=SystemClock())


def test_a_new_ledger_is_private_and_at_the_head(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new folder' / 'ledger.db'}"
    assert migrate.current(url) is None
    assert migrate.upgrade(url)
    assert migrate.current(url) == migrate.head() == VERSION
    assert stat.S_IMODE(database(url).stat().st_mode) == 0o600
    assert not migrate.upgrade(url)


@on_both_engines
def test_a_ledger_of_this_version_is_opened_without_alembic(ledger_url: str) -> None:
    program = (
        "import sys; from taprail_common.clock import SystemClock;"
        "from taprail_gateway.ledger.database import Ledger;"
        f"Ledger.open({ledger_url!r}, clock=SystemClock()).dispose();"
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@on_both_engines
def test_opening_may_migrate(no_ledger_url: str) -> None:
    for _ in range(2):
        with pytest.raises(OperatorError, match=r"no ledger at .*taprail admin migrate"):
            Ledger.open(no_ledger_url, clock=SystemClock())
    ledger = Ledger.open(no_ledger_url, clock=SystemClock(), migrate=True)
    assert ledger.read_now(lambda c: inspect(c).has_table("payments"))
    ledger.dispose()
    assert not migrate.upgrade(no_ledger_url)


@on_both_engines
@pytest.mark.parametrize("and_migrate", [False, True])
def test_a_ledger_of_a_newer_version_is_refused(ledger_url: str, and_migrate: bool) -> None:
    with connected(ledger_url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = definitions(ledger_url)
    with pytest.raises(OperatorError, match="newer TapRail: upgrade"):
        Ledger.open(ledger_url, clock=SystemClock(), migrate=and_migrate)
    assert definitions(ledger_url) == before


def test_nothing_is_migrated_below_a_running_gateway(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    lock = ProcessLock(database(url))
    lock.acquire()
    with pytest.raises(OperatorError, match=f"PID {os.getpid()}"):
        migrate.upgrade(url)
    lock.release()
    assert migrate.upgrade(url)


@on_both_engines
def test_an_upgrade_that_fails_leaves_nothing(no_ledger_url: str) -> None:
    with connected(no_ledger_url) as connection:
        connection.execute(text("CREATE TABLE verdicts (in_the_way TEXT)"))
    before = definitions(no_ledger_url)
    with pytest.raises(OperatorError, match=r'"?verdicts"? already exists'):
        migrate.upgrade(no_ledger_url)
    assert definitions(no_ledger_url) == before
    assert migrate.current(no_ledger_url) is None


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "sqlite://", "sqlite:///relative.db", "postgresql://host", "mysql://h/d"],
)
def test_an_unusable_url_says_how_to_write_one(url: str) -> None:
    with pytest.raises(OperatorError, match="write it like"):
        Ledger.open(url, clock=SystemClock())


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(TapRailError, match="damaged"):
        Ledger.open(f"sqlite:///{path}", clock=SystemClock())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match="cannot be created"):
        migrate.upgrade(f"sqlite:///{tmp_path / 'file' / 'ledger.db'}")

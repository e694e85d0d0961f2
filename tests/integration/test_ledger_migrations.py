"""A ledger has exactly the schema of its program, or the program says what to do."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import URL, create_engine, inspect
from sqlalchemy.schema import CreateTable

from taprail_common.clock import SystemClock
from taprail_common.errors import OperatorError, TapRailError
from taprail_gateway.ledger import migrate
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.process_lock import ProcessLock
from taprail_gateway.ledger.schema import VERSION, metadata


def database(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def definitions(url: str) -> dict[str, list[str]]:
    """What SQLite itself keeps of every table and index: its parts, without their order."""
    with sqlite3.connect(database(url)) as connection:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
            " AND name NOT LIKE 'alembic%' AND name NOT LIKE 'sqlite%'"
        ).fetchall()
    connection.close()
    return {name: sorted(_parts("".join(sql.split()))) for name, sql in rows}


def _parts(definition: str) -> list[str]:
    # SQLAlchemy writes a table's constraints in no fixed order; SQLite quotes what it has renamed.
    return definition.replace('"', "").removesuffix(")").split(",CONSTRAINT")


def test_the_migrated_schema_is_the_metadata(ledger_url: str, tmp_path: Path) -> None:
    engine = create_engine(ledger_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()
    # The comparison does not look at checks, partial indexes and sort orders: SQLite's text does.
    direct = f"sqlite:///{tmp_path / 'direct.db'}"
    engine = create_engine(direct)
    metadata.create_all(engine)
    engine.dispose()
    migrated, created = definitions(ledger_url), definitions(direct)
    assert migrated.keys() == created.keys()
    for name, sql in created.items():
        assert migrated[name] == sql, name


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_every_table_can_be_spelt_for_both_engines(engine: str) -> None:
    dialect = URL.create(engine).get_dialect()()
    for table in metadata.sorted_tables:
        assert table.name in str(CreateTable(table).compile(dialect=dialect))


def test_a_new_ledger_is_private_and_at_the_head(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new folder' / 'ledger.db'}"
    assert migrate.current(url) is None
    assert migrate.upgrade(url)
    assert migrate.current(url) == migrate.head() == VERSION
    assert stat.S_IMODE(database(url).stat().st_mode) == 0o600
    assert not migrate.upgrade(url)


def test_a_ledger_of_this_version_is_opened_without_alembic(ledger_url: str) -> None:
    program = (
        "import sys; from taprail_common.clock import SystemClock;"
        "from taprail_gateway.ledger.database import Ledger;"
        f"Ledger.open({ledger_url!r}, clock=SystemClock()).dispose();"
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_opening_may_migrate(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with pytest.raises(OperatorError, match="taprail admin migrate"):
        Ledger.open(url, clock=SystemClock())
    assert not database(url).exists()
    ledger = Ledger.open(url, clock=SystemClock(), migrate=True)
    assert ledger.read_now(lambda c: inspect(c).has_table("payments"))
    ledger.dispose()


def set_version(url: str, version: str) -> None:
    connection = sqlite3.connect(database(url))
    connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    connection.commit()
    connection.close()


@pytest.mark.parametrize("and_migrate", [False, True])
def test_a_ledger_of_a_newer_version_is_refused(ledger_url: str, and_migrate: bool) -> None:
    set_version(ledger_url, "9999")
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


def test_an_upgrade_that_fails_leaves_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    connection = sqlite3.connect(database(url))
    connection.execute("CREATE TABLE verdicts (in_the_way TEXT)")
    connection.close()
    before = definitions(url)
    with pytest.raises(OperatorError, match="verdicts already exists"):
        migrate.upgrade(url)
    assert definitions(url) == before
    assert migrate.current(url) is None


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

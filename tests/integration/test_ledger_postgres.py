"""What only a ledger on a server has: a server that goes and comes back, says no, or is changed."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, insert, make_url, text
from structlog.testing import capture_logs

from taprail_common.clock import SystemClock
from taprail_common.errors import OperatorError, TapRailError
from taprail_gateway.ledger import engines, migrate, postgres_engine
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.errors import GuardError, StorageError
from taprail_gateway.ledger.schema import VERSION, meta
from tests.support.ledger_fixtures import on_postgres
from tests.support.ledger_writes import Notes, note, stored, writer_held
from tests.support.postgres_server import GUARDED, PASSWORD, PostgresServer

pytestmark = on_postgres


@pytest.fixture
def database(ledger_url: str) -> str:
    return make_url(ledger_url).database or ""


@pytest.fixture
def stopped(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """The server all tests share; what a test leaves stopped is started again."""
    yield postgres
    postgres.stop()
    postgres.start()


def failure(url: str) -> TapRailError:
    with pytest.raises(TapRailError) as caught:
        Ledger.open(url, clock=SystemClock())
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    return caught.value


# --- a server that says no --------------------------------------------------------------------


def test_no_server(ledger_url: str) -> None:
    error = failure("postgresql://taprail:pw@/db?host=/nowhere")
    assert isinstance(error, StorageError)
    assert "does not answer (No such file or directory): check its server" in str(error)
    assert "Connection refused" in str(failure("postgresql://taprail@127.0.0.1:1/db"))


@pytest.mark.parametrize("password", ["wrong", None])
def test_a_wrong_password(
    postgres: PostgresServer, ledger_url: str, database: str, password: str | None
) -> None:
    error = failure(postgres.url(database, user=GUARDED, password=password))
    assert isinstance(error, OperatorError)
    assert "check user and password" in str(error)
    assert "wrong" not in str(error)


def test_a_right_password_shows_nowhere(
    postgres: PostgresServer, ledger_url: str, database: str
) -> None:
    url = postgres.url(database, user=GUARDED, password=PASSWORD)
    error = failure(url)  # it is let in, and then has no right to the tables
    assert "denies a right (permission denied for table alembic_version)" in str(error)
    assert "owner" in str(error)
    ledger = Ledger(engines.ledger_url(url), SystemClock())
    for shown in (ledger.write_engine, ledger.write_engine.url, engines.place(make_url(url))):
        assert PASSWORD not in f"{shown} {shown!r}"
    ledger.dispose()


def test_no_such_user_or_database(postgres: PostgresServer, ledger_url: str) -> None:
    assert 'role "ghost" does not exist' in str(failure(postgres.url("any", user="ghost")))
    error = failure(postgres.url("nothing"))
    assert isinstance(error, OperatorError)
    assert "create it with createdb" in str(error)


def test_a_server_too_old_or_of_another_alphabet(ledger_url: str) -> None:
    postgres_engine.check_server(130_000, "UTF8")
    with pytest.raises(OperatorError, match="PostgreSQL 12 is too old: upgrade it to 13"):
        postgres_engine.check_server(120_019, "UTF8")
    with pytest.raises(OperatorError, match="as LATIN1: create it with"):
        postgres_engine.check_server(150_000, "LATIN1")


# --- a server that goes and comes back --------------------------------------------------------


async def test_the_ledger_goes_on_when_its_server_is_back(
    ledger: Ledger, stopped: PostgresServer
) -> None:
    await ledger.write(note("before"))
    await ledger.read(stored)
    stopped.stop()
    for call in (ledger.write(note("lost")), ledger.read(stored)):
        with pytest.raises(StorageError, match="does not answer") as caught:
            await call
        assert caught.value.retryable
    stopped.start()
    assert await ledger.write(note("after")) == "after"
    assert await ledger.read(stored) == {"before", "after"}


async def test_an_idle_ledger_does_not_notice_a_restart(
    ledger: Ledger, stopped: PostgresServer
) -> None:
    await asyncio.gather(ledger.write(note("before")), ledger.read(stored))
    stopped.stop()
    stopped.start()
    assert await ledger.write(note("after")) == "after"
    assert await ledger.read(stored) == {"before", "after"}


async def test_a_connection_lost_in_the_work_fails_all_of_the_group(
    ledger: Ledger, postgres: PostgresServer
) -> None:
    class Cut(Notes):
        def run(self, connection: Connection, items: object, /) -> list[str]:
            super().run(connection, items)  # type: ignore[arg-type]
            own = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with postgres.connection() as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", (own,))
            return ["never told"] * 3

    cut = Cut()
    async with writer_held(ledger):
        waiting = [asyncio.create_task(ledger.write_batched(cut, f"key{i}")) for i in range(3)]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StorageError] * 3
    assert await ledger.read(stored) == set()
    assert await ledger.write(note("key0")) == "key0"


# --- others on the same server ----------------------------------------------------------------


def setting(ledger: Ledger, name: str, *, reading: bool = False) -> str:
    run = ledger.read_now if reading else ledger.write_now
    return str(run(lambda c: c.exec_driver_sql(f"SHOW {name}").scalar_one()))


async def test_every_wait_is_bounded_and_every_commit_durable(ledger: Ledger) -> None:
    assert setting(ledger, "synchronous_commit") == "on"
    assert setting(ledger, "transaction_isolation") == "read committed"
    assert setting(ledger, "transaction_isolation", reading=True) == "repeatable read"
    assert setting(ledger, "transaction_read_only", reading=True) == "on"
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    assert [setting(ledger, name) for name in names] == ["5s", "15s", "10s"]
    assert [setting(ledger, name, reading=True) for name in names] == ["5s", "1min", "1min"]


async def test_a_reader_sees_one_moment(ledger: Ledger) -> None:
    def look_twice(connection: Connection) -> tuple[set[str], set[str]]:
        before = stored(connection)
        ledger.write_now(note("meanwhile"))
        return before, stored(connection)

    assert await ledger.read(look_twice) == (set(), set())
    assert await ledger.read(stored) == {"meanwhile"}


async def test_a_row_that_stays_locked_is_waited_for_only_so_long(
    ledger_url: str, postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_engine, "LOCK_WAIT_MS", 200)
    ledger = Ledger.open(ledger_url, clock=SystemClock())
    await ledger.start()
    await ledger.write(note("a"))
    with postgres.connection(database) as other, other.transaction():
        other.execute("UPDATE meta SET value = 'mine'")
        with pytest.raises(StorageError, match="locked by another gateway or command"):
            await ledger.write(lambda c: c.execute(meta.update().values(value="ours")).close())
    assert await ledger.write(note("b")) == "b"
    await ledger.close()


async def test_a_gateway_that_stands_still_lets_go_of_its_rows(
    ledger_url: str, postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_engine, "_STANDSTILL_MS", 50)
    ledger = Ledger.open(ledger_url, clock=SystemClock())

    def stands_still(connection: Connection) -> None:
        connection.execute(insert(meta).values(key="a", value="1"))
        with postgres.connection(database) as other:
            other.execute("INSERT INTO meta VALUES ('a', '2')")  # as soon as it may
        connection.execute(insert(meta).values(key="b", value="1"))

    with pytest.raises(StorageError, match="stood still"):
        ledger.write_now(stands_still)
    assert ledger.read_now(stored) == {"a"}
    ledger.dispose()


async def test_two_who_wait_for_each_other_both_get_their_turn(
    ledger: Ledger, ledger_url: str
) -> None:
    """Neither is told: PostgreSQL undoes one of the two, and it is run again."""
    for key in ("a", "b"):
        await ledger.write(note(key))
    second = Ledger.open(ledger_url, clock=SystemClock())
    await second.start()
    both_have_one = threading.Barrier(2)
    runs: list[str] = []

    def add(connection: Connection, key: str) -> None:
        row = meta.update().where(meta.c.key == key).values(value=meta.c.value + "+1")
        connection.execute(row)

    def crosswise(connection: Connection, first: str, then: str) -> None:
        runs.append(first)
        add(connection, first)
        if len(runs) <= 2:
            both_have_one.wait(10)
        add(connection, then)

    with capture_logs() as logs:
        await asyncio.gather(
            ledger.write(lambda c: crosswise(c, "a", "b")),
            second.write(lambda c: crosswise(c, "b", "a")),
        )
    await second.close()
    assert len(runs) >= 3  # on a busy machine they may collide once more
    assert {log["event"] for log in logs} == {"ledger.run_again"}
    values = await ledger.read(lambda c: c.execute(meta.select()).all())
    assert {value for _key, value in values} == {"1+1+1"}


async def test_who_collides_again_and_again_is_told_at_last(ledger: Ledger) -> None:
    runs: list[int] = []

    def unlucky(connection: Connection) -> None:
        runs.append(1)
        connection.exec_driver_sql("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    with pytest.raises(StorageError, match="keep changing the same rows"):
        await ledger.write(unlucky)
    assert len(runs) == 4


async def test_a_guard_that_does_not_hold_is_looked_at_again(ledger: Ledger) -> None:
    """Another gateway may have changed what was read; the work then decides anew."""
    seen: list[set[str]] = []

    def overtaken(connection: Connection) -> str:
        seen.append(stored(connection))
        if not seen[-1]:
            ledger.write_now(note("theirs"))
            raise GuardError("the row is not as it was read", ["theirs"])
        return "decided anew"

    assert await ledger.write(overtaken) == "decided anew"
    assert seen == [set(), {"theirs"}]


# --- migrations -------------------------------------------------------------------------------


def test_nothing_is_migrated_below_a_running_gateway(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_engine, "LOCK_WAIT_MS", 100)
    gateway = Ledger.open(ledger_url, clock=SystemClock())
    gateway.write_now(note("a"))
    gateway.write_now(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '0001'")))
    with pytest.raises(OperatorError, match=r"another gateway \(taprail \d+@.*: stop it first"):
        migrate.upgrade(ledger_url)
    gateway.dispose()
    with pytest.raises(OperatorError, match="already exists"):  # it is at the head in truth
        migrate.upgrade(ledger_url)


def test_no_gateway_writes_while_a_migration_is_under_way(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_engine, "LOCK_WAIT_MS", 100)
    gateway = Ledger.open(ledger_url, clock=SystemClock())
    migrating = engines.migration_engine(engines.ledger_url(ledger_url))
    with migrating.begin() as connection:
        postgres_engine.lock_out_gateways(connection)
        with pytest.raises(StorageError, match="locked by another"):
            gateway.write_now(note("a"))
    assert gateway.write_now(note("a")) == "a"
    gateway.dispose()
    migrating.dispose()


def test_a_gateway_whose_ledger_was_upgraded_meanwhile_writes_nothing(
    ledger_url: str, postgres: PostgresServer, database: str
) -> None:
    gateway = Ledger.open(ledger_url, clock=SystemClock())
    with postgres.connection(database) as other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(OperatorError, match=f"version {VERSION} any more.*start the new one"):
        gateway.write_now(note("a"))
    assert gateway.read_now(stored) == set()
    gateway.dispose()


def test_two_who_migrate_at_once_make_one_ledger(no_ledger_url: str) -> None:
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(migrate.upgrade, [no_ledger_url] * 2))
    assert migrate.current(no_ledger_url) == VERSION

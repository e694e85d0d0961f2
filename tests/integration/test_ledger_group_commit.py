"""Group commit on a real database: few commits, one culprit, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, insert, select, text

from taprail_common.clock import SystemClock
from taprail_common.errors import TapRailError
from taprail_gateway.ledger import group_commit
from taprail_gateway.ledger.database import MAX_READS, Ledger
from taprail_gateway.ledger.errors import Overloaded, StorageError
from taprail_gateway.ledger.queries import check_invariants
from taprail_gateway.ledger.schema import meta, payments
from tests.support.ledger_fixtures import on_both_engines
from tests.support.ledger_writes import Notes, note, stored, writer_held

pytestmark = on_both_engines

ROOT = Path(__file__).parents[2]


async def test_what_waits_shares_a_commit(ledger: Ledger) -> None:
    commits: list[Connection] = []
    event.listen(ledger.write_engine, "commit", commits.append)
    notes = Notes()
    async with writer_held(ledger):
        waiting = [asyncio.create_task(ledger.write_batched(notes, f"key{i}")) for i in range(100)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*waiting) == [f"KEY{i}" for i in range(100)]
    assert len(commits) == 3  # the one that held the writer, 64 and 36
    assert [len(group) for group in notes.groups] == [group_commit.MAX_GROUP, 36]
    assert len(await ledger.read(stored)) == 100


async def test_only_the_culprit_fails(ledger: Ledger) -> None:
    class Wrong(Exception):  # noqa: N818 - it is what went wrong
        pass

    def wrong(connection: Connection) -> None:
        connection.execute(insert(meta).values(key="half", value="1"))
        raise Wrong

    notes = Notes()
    async with writer_held(ledger):
        writes = [
            ledger.write(note("a")),
            ledger.write(wrong),
            ledger.write_batched(notes, "b"),
            ledger.write_batched(notes, "a"),  # the key is taken
            ledger.write_batched(notes, "c"),
        ]
        waiting = [asyncio.ensure_future(each) for each in writes]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert outcomes[0] == "a"
    assert outcomes[2] == "B"
    assert outcomes[4] == "C"
    assert isinstance(outcomes[1], Wrong)
    assert type(outcomes[3]).__name__ == "IntegrityError"
    assert await ledger.read(stored) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (StopIteration("ended"), RuntimeError),  # a future refuses to carry this one
        (SystemExit("ended"), SystemExit),
        (MemoryError("ended"), MemoryError),
    ],
)
async def test_the_writer_outlives_whatever_the_work_raises(
    ledger: Ledger, error: BaseException, seen: type[BaseException]
) -> None:
    def work(_connection: Connection) -> None:
        raise error

    with pytest.raises(seen, match=r"ended|StopIteration"):
        await ledger.write(work)
    assert await ledger.write(note("a")) == "a"


async def test_a_full_queue_says_so_and_does_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_QUEUED", 5)
    async with writer_held(ledger):
        waiting = [asyncio.create_task(ledger.write(note(f"key{i}"))) for i in range(7)]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert outcomes[:5] == [f"key{i}" for i in range(5)]
    assert all(isinstance(refused, Overloaded) and refused.retryable for refused in outcomes[5:])
    assert await ledger.read(stored) == {f"key{i}" for i in range(5)}


async def test_reads_are_bounded(ledger: Ledger) -> None:
    free = threading.Event()

    def slow(_connection: Connection) -> None:
        assert free.wait(10)

    waiting = [asyncio.create_task(ledger.read(slow)) for _ in range(MAX_READS)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await ledger.read(slow)
    free.set()
    await asyncio.gather(*waiting)
    await ledger.read(stored)


async def test_a_read_cannot_write(ledger: Ledger) -> None:
    with pytest.raises(StorageError, match="read-only"):
        await ledger.read(note("a"))
    with pytest.raises(StorageError, match="read-only"):
        ledger.read_now(note("a"))


async def test_close_finishes_what_was_asked_for(ledger_url: str) -> None:
    ledger = Ledger.open(ledger_url, clock=SystemClock())
    await ledger.start()
    waiting = [asyncio.create_task(ledger.write(note(f"key{i}"))) for i in range(200)]
    await asyncio.sleep(0)
    await ledger.close()
    assert await asyncio.gather(*waiting) == [f"key{i}" for i in range(200)]
    with pytest.raises(TapRailError, match="closed"):
        await ledger.write(note("late"))
    assert len(Ledger.open(ledger_url, clock=SystemClock()).read_now(stored)) == 200


async def test_whoever_leaves_does_not_disturb_the_others(ledger: Ledger) -> None:
    async with writer_held(ledger):
        gone = asyncio.create_task(ledger.write(note("gone")))
        stays = asyncio.create_task(ledger.write(note("stays")))
        await asyncio.sleep(0)
        gone.cancel()
    assert await stays == "stays"
    assert await ledger.read(stored) == {"gone", "stays"}


async def test_a_command_writes_beside_the_gateway(ledger: Ledger, ledger_url: str) -> None:
    command = Ledger.open(ledger_url, clock=SystemClock())
    command.write_now(note("by the command"))
    command.dispose()
    assert await ledger.read(stored) == {"by the command"}


async def test_a_savepoint_undoes_only_its_own(ledger: Ledger) -> None:
    def work(connection: Connection) -> None:
        connection.execute(insert(meta).values(key="kept", value="1"))
        inner = connection.begin_nested()
        connection.execute(insert(meta).values(key="undone", value="1"))
        inner.rollback()

    await ledger.write(work)
    assert await ledger.read(stored) == {"kept"}


async def test_references_are_checked(ledger: Ledger) -> None:
    orphan = text("INSERT INTO card_spend VALUES ('no such card', '2024-05-31', 1)")
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        await ledger.write(lambda connection: connection.execute(orphan).close())


WRITE_UNTIL_KILLED = """
import asyncio, sys
from taprail_common.clock import SystemClock
from taprail_gateway.ledger import transitions
from taprail_gateway.ledger.database import Ledger
from tests.support.ledger_fixtures import DAY, NOW_MS, seed_registry

async def pay(ledger, registry, i):
    row = registry.payment(f"req{i}", card=i % 20)
    card = registry.cards[i % 20]
    def work(connection):
        assert transitions.reserve_spend(connection, card.uuid, DAY, 1, 10**9)
        assert transitions.hold(connection, card.account, 1)
        transitions.accept(connection, [row], NOW_MS)
    await ledger.write(work)
    sys.stdout.write(row["id"] + "\\n")
    sys.stdout.flush()

async def main():
    ledger = Ledger.open(sys.argv[1], clock=SystemClock())
    await ledger.start()
    registry = seed_registry(ledger, cards=20)
    at_once = int(sys.argv[2])
    for start in range(0, 100_000, at_once):
        await asyncio.gather(*(pay(ledger, registry, start + i) for i in range(at_once)))

asyncio.run(main())
"""


def run_writer(ledger_url: str, crash: str = "", *, at_once: int = 50) -> subprocess.Popen[str]:
    environment = {**os.environ, "TAPRAIL_CRASH": crash, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", WRITE_UNTIL_KILLED, ledger_url, str(at_once)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def ids_after_restart(ledger_url: str) -> set[str]:
    ledger = Ledger.open(ledger_url, clock=SystemClock())
    asyncio.run(_start_and_close(ledger))
    ledger = Ledger.open(ledger_url, clock=SystemClock())
    assert ledger.read_now(check_invariants) == []
    ids = set(ledger.read_now(lambda c: c.execute(select(payments.c.id)).scalars().all()))
    ledger.dispose()
    return ids


async def _start_and_close(ledger: Ledger) -> None:
    await ledger.start()  # the killed one's lock went with it
    await ledger.close()


@pytest.mark.parametrize("acknowledged", [1, 120, 333])
def test_kill_9_loses_nothing_acknowledged(ledger_url: str, acknowledged: int) -> None:
    with run_writer(ledger_url) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline().strip() for _ in range(acknowledged)]
        process.send_signal(signal.SIGKILL)
        seen += [line.strip() for line in process.stdout if line.endswith("\n")]
    assert len(seen) >= acknowledged
    assert set(seen) <= ids_after_restart(ledger_url)


@pytest.mark.parametrize("point", ["ledger.before_commit@7", "ledger.after_commit@7"])
def test_a_crash_around_the_commit_loses_nothing_acknowledged(ledger_url: str, point: str) -> None:
    # One at a time: of several, some may be stored while the one before is still being told.
    with run_writer(ledger_url, crash=point, at_once=1) as process:
        assert process.stdout is not None
        seen = {line.strip() for line in process.stdout}
    assert process.returncode == 137
    kept = ids_after_restart(ledger_url)
    assert len(seen) == 6
    # After the commit and before the answer: stored, although nobody was told.
    assert len(kept - seen) == (1 if point.startswith("ledger.after") else 0)
    assert seen <= kept

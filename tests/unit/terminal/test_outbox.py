"""The outbox on a real SQLite file: stored before sent, guarded, bounded, there after kill -9."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from taprail_common.errors import IllegalTransitionError, OperatorError, PartError
from taprail_terminal import outbox as outbox_module
from taprail_terminal import outbox_rows
from taprail_terminal.outbox import Evidence, Outbox, OutboxRow, RequestState

NOW_MS = 1_700_000_000_000
YES, NO = Evidence(b'{"verdict":"approved"}', "c2ln"), Evidence(b'{"verdict":"declined"}', "bm8=")
NOTICE = Evidence(b'{"status":"completed"}', "bm90ZQ==")
APPROVED, DECLINED = RequestState.APPROVED, RequestState.DECLINED
SETTLED, FAILED = RequestState.SETTLED, RequestState.FAILED


def row(number: int, at_ms: int = NOW_MS) -> OutboxRow:
    body = b'{"exact": "bytes",  "of": "%d"}' % number
    return OutboxRow(f"r{number}", 100 + number, "USDC", body, f"sig{number}", at_ms)


def break_disk(path: Path, statement: str) -> None:
    """Let SQLite fail at each such statement on requests, as it does on a full disk."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            f"CREATE TRIGGER bad_disk BEFORE {statement} ON requests"
            " BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
        )


def mend_disk(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TRIGGER bad_disk")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "outbox.db"


@pytest.fixture
async def outbox(path: Path) -> AsyncIterator[Outbox]:
    outbox = Outbox(path)
    await outbox.open(NOW_MS)
    yield outbox
    await outbox.close()


async def test_a_request_is_found_again_byte_for_byte(path: Path) -> None:
    outbox = Outbox(path)
    await outbox.store(row(1))
    await outbox.store(row(2))
    await outbox.close()
    again = Outbox(path)
    await again.open(NOW_MS)
    assert await again.unseen() == [row(1), row(2)]
    await again.close()


async def test_a_verdict_is_kept_with_its_evidence(outbox: Outbox, path: Path) -> None:
    await outbox.store(row(1))
    assert await outbox.unfinished() == [row(1)]
    assert await outbox.resolve("r1", APPROVED, YES, NOW_MS + 5)
    assert [row.request_id for row in await outbox.unfinished()] == ["r1"]
    assert await outbox.finish("r1", SETTLED, NOTICE, NOW_MS + 9)
    assert await outbox.unfinished() == []
    with sqlite3.connect(path) as database:
        kept = database.execute(
            "SELECT body, signature, verdict, verdict_signature, notice, notice_signature"
            " FROM requests"
        ).fetchone()
    database.close()
    assert kept == (row(1).body, "sig1", YES.body, YES.signature, NOTICE.body, NOTICE.signature)


async def test_an_outcome_is_unseen_until_it_was_shown(outbox: Outbox) -> None:
    for number in (1, 2, 3):
        await outbox.store(row(number))
    await outbox.mark_shown("r1", NOW_MS)  # shown as unknown, which is no outcome
    await outbox.resolve("r2", DECLINED, NO, NOW_MS)
    await outbox.resolve("r3", APPROVED, YES, NOW_MS)
    await outbox.mark_shown("r3", NOW_MS)
    assert [row.request_id for row in await outbox.unseen()] == ["r1", "r2"]
    await outbox.finish("r3", FAILED, NOTICE, NOW_MS)  # the yes was seen, and is none any more
    assert [row.request_id for row in await outbox.unseen()] == ["r1", "r2", "r3"]
    await outbox.mark_shown("r3", NOW_MS)
    assert [row.request_id for row in await outbox.unseen()] == ["r1", "r2"]


async def test_a_file_of_the_first_version_is_taken_over(path: Path) -> None:
    """Its verdicts were shown, as far as anybody knows; what is open stays open."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.executescript(outbox_rows.STEPS[0] + "PRAGMA user_version = 1;")
        for number, state, verdict in ((1, "stored", None), (2, "approved", b"yes")):
            database.execute(
                "INSERT INTO requests (request_id, amount_units, currency, body, signature,"
                " stored_at_ms, state, verdict, verdict_at_ms) VALUES (?, 1, 'USDC', ?, '', 0, ?,"
                " ?, ?)",
                (f"r{number}", b"{}", state, verdict, None if verdict is None else NOW_MS),
            )
        database.commit()
    outbox = Outbox(path)
    await outbox.open(NOW_MS)
    await outbox.store(row(3))
    assert [row.request_id for row in await outbox.unseen()] == ["r1", "r3"]
    assert [row.request_id for row in await outbox.unfinished()] == ["r1", "r2", "r3"]
    await outbox.close()


async def test_a_request_id_is_stored_once(outbox: Outbox) -> None:
    await outbox.store(row(1))
    with pytest.raises(PartError):
        await outbox.store(row(1))
    assert len(await outbox.unseen()) == 1


async def test_the_same_verdict_again_changes_nothing(outbox: Outbox) -> None:
    await outbox.store(row(1))
    assert await outbox.resolve("r1", APPROVED, YES, NOW_MS)
    assert not await outbox.resolve("r1", APPROVED, YES, NOW_MS)
    await outbox.finish("r1", SETTLED, NOTICE, NOW_MS)
    assert not await outbox.resolve("r1", APPROVED, YES, NOW_MS)


@pytest.mark.parametrize(("first", "second"), [(APPROVED, DECLINED), (DECLINED, APPROVED)])
async def test_a_verdict_cannot_be_turned_round(
    outbox: Outbox, first: RequestState, second: RequestState
) -> None:
    await outbox.store(row(1))
    await outbox.resolve("r1", first, YES, NOW_MS)
    with pytest.raises(IllegalTransitionError):
        await outbox.resolve("r1", second, NO, NOW_MS)
    found = await outbox.find("r1")
    assert found is not None
    assert found.state is first


async def test_a_verdict_on_an_unknown_request_is_refused(outbox: Outbox) -> None:
    with pytest.raises(IllegalTransitionError):
        await outbox.resolve("nobody", APPROVED, YES, NOW_MS)


@pytest.mark.parametrize("before", [None, DECLINED])
async def test_only_an_approved_request_can_be_finished(
    outbox: Outbox, before: RequestState | None
) -> None:
    await outbox.store(row(1))
    if before is not None:
        await outbox.resolve("r1", before, NO, NOW_MS)
    assert not await outbox.finish("r1", SETTLED, NOTICE, NOW_MS)


async def test_a_finished_request_stays_as_it_is(outbox: Outbox) -> None:
    await outbox.store(row(1))
    await outbox.resolve("r1", APPROVED, YES, NOW_MS)
    assert await outbox.finish("r1", FAILED, NOTICE, NOW_MS)
    assert not await outbox.finish("r1", SETTLED, NOTICE, NOW_MS)


async def test_a_till_without_a_gateway_stops_at_the_bound(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_UNRESOLVED", 3)
    for number in range(3):
        await outbox.store(row(number))
    with pytest.raises(PartError, match="unknown"):
        await outbox.store(row(3))
    counts = await outbox.check()
    assert (counts.unresolved, counts.oldest_unresolved_at_ms) == (3, NOW_MS)


async def test_old_evidence_is_pruned_and_open_requests_are_not(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "KEEP_FINISHED", 2)
    monkeypatch.setattr(outbox_module, "KEEP_LEAST", 0)
    long_ago_ms = NOW_MS - outbox_module.KEEP_FINISHED_MS - 1
    for number in range(8):
        await outbox.store(row(number, long_ago_ms))
    for number in (1, 4, 5, 6):  # r0, r3 and r7 stay open
        await outbox.resolve(f"r{number}", DECLINED, YES, long_ago_ms if number == 6 else NOW_MS)
    await outbox.resolve("r2", APPROVED, YES, long_ago_ms)
    await outbox.open(NOW_MS)
    found = {f"r{number}" for number in range(8) if await outbox.find(f"r{number}") is not None}
    assert found == {"r0", "r2", "r3", "r5", "r7"}


async def test_a_pruning_that_fails_leaves_no_sale_behind(
    outbox: Outbox, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sells is told that nothing was charged, so nothing may be there to be sent."""
    monkeypatch.setattr(outbox_module, "PRUNE_EVERY", 2)
    monkeypatch.setattr(outbox_module, "KEEP_FINISHED", 0)
    monkeypatch.setattr(outbox_module, "KEEP_LEAST", 0)
    await outbox.store(row(1))
    await outbox.resolve("r1", DECLINED, NO, NOW_MS)
    break_disk(path, "DELETE")
    with pytest.raises(PartError):
        await outbox.store(row(2))
    assert await outbox.find("r2") is None
    mend_disk(path)
    await outbox.store(row(2))
    assert await outbox.unseen() == [row(2)]


def refused(path: Path) -> str:
    """How a file is refused that must be left as it is."""

    async def opened() -> None:
        outbox = Outbox(path)
        try:
            await outbox.open(NOW_MS)
        finally:
            await outbox.close()

    before = path.read_bytes()
    with pytest.raises(OperatorError) as refusal:
        asyncio.run(opened())
    assert path.read_bytes() == before
    return str(refusal.value)


def test_a_newer_file_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    assert "newer" in refused(path)


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 100)
    assert "evidence" in refused(path)


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    async def store() -> None:
        outbox = Outbox(path)
        await outbox.store(row(1))
        await outbox.close()

    asyncio.run(store())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_every_commit_is_synced(outbox: Outbox) -> None:
    pragmas = await outbox._run(
        lambda database: [
            database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous")
        ]
    )
    assert pragmas == ["wal", 2]  # 2 is FULL: sync at each commit, not only at checkpoints


_STORE_AND_WAIT = """
import asyncio, pathlib, sys
from taprail_terminal.outbox import Outbox, OutboxRow

async def main():
    outbox = Outbox(pathlib.Path(sys.argv[1]))
    await outbox.open(0)
    for number in range(20):
        await outbox.store(OutboxRow(f"r{number}", 1, "USDC", b"body", "sig", 1_700_000_000_000))
        print(number, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_what_was_stored_survives_kill_9(path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _STORE_AND_WAIT, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    last = -1
    while last < 7:
        last = int(await process.stdout.readline())
    process.kill()
    rest = await process.stdout.read()
    await process.wait()
    acknowledged = last + 1 + len(rest.split())
    outbox = Outbox(path)
    await outbox.open(NOW_MS)
    stored = [found.request_id for found in await outbox.unseen()]
    await outbox.close()
    assert stored[:acknowledged] == [f"r{number}" for number in range(acknowledged)]


async def test_a_crash_in_the_middle_of_a_verdict_leaves_the_request_open(path: Path) -> None:
    outbox = Outbox(path)
    await outbox.open(NOW_MS)
    await outbox.store(row(1))

    def crash(database: sqlite3.Connection) -> None:
        database.execute("BEGIN IMMEDIATE")
        database.execute("UPDATE requests SET state = 'declined', verdict = x'00'")
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(PartError):
        await outbox._run(crash)
    await outbox.close()
    again = Outbox(path)
    await again.open(NOW_MS)
    assert await again.unseen() == [row(1)]
    await again.close()

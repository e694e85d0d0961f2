"""What is on the disk after the power went, the disk was full, or the process was killed."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taprail_common.errors import OperatorError, PartError
from taprail_terminal.outbox import Outbox, OutboxRow
from taprail_terminal.storage import DeviceStore

NOW_MS = 1_700_000_000_000
CUT_EVERY_BYTES = 512
"""A disk's sector; of a WAL frame of 4,120 bytes that leaves each part away once."""


def row(number: int, body: bytes = b"{}") -> OutboxRow:
    return OutboxRow(f"r{number}", 100, "USDC", body, "sig", NOW_MS)


@contextmanager
def disk_full_at(size_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond this: writes fail as they do on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


async def test_a_request_is_there_whole_or_not_at_all_wherever_the_power_goes(
    tmp_path: Path,
) -> None:
    """The log that SQLite appends to, cut off at each sector of a request's commit."""
    path = tmp_path / "outbox.db"
    wal = path.with_name("outbox.db-wal")
    outbox = Outbox(path)
    await outbox.open(NOW_MS)
    await outbox.store(row(1))
    begin = len(_bytes(wal))
    await outbox.store(row(2, b"x" * 5_000))
    whole = _bytes(wal)
    shutil.copy(path, tmp_path / "base.db")  # as it lies there in mid-run
    seen = set()
    for cut in [*range(begin, len(whole), CUT_EVERY_BYTES), len(whole)]:
        names = await _found_after_cut(tmp_path, whole[:cut], f"cut{cut}")
        assert names in (["r1"], ["r1", "r2"])
        seen.add(len(names))
    assert seen == {1, 2}
    await outbox.close()


async def _found_after_cut(folder: Path, wal: bytes, name: str) -> list[str]:
    """What an outbox finds that starts on these files; it has to take on sales again, too."""
    path = folder / f"{name}.db"
    shutil.copy(folder / "base.db", path)
    path.with_name(f"{name}.db-wal").write_bytes(wal)
    outbox = Outbox(path)
    await outbox.open(NOW_MS)
    found = [each.request_id for each in await outbox.unseen()]
    await outbox.store(row(3))
    await outbox.close()
    return found


def _bytes(path: Path) -> bytes:
    return path.read_bytes()


async def test_a_full_disk_stores_nothing_says_so_and_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    await outbox.open(NOW_MS)
    await outbox.store(row(1))
    with disk_full_at(8_192), pytest.raises(PartError, match="disk's space"):
        await outbox.store(row(2, b"x" * 40_000))
    assert [each.request_id for each in await outbox.unseen()] == ["r1"]
    await outbox.store(row(2))
    assert [each.request_id for each in await outbox.unseen()] == ["r1", "r2"]
    await outbox.close()


def test_a_full_disk_keeps_the_old_traces_and_leaves_nothing_beside_them(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path / "device.json")
    store.put_trace({"tap": "tap1"})
    with disk_full_at(64), pytest.raises(PartError, match="disk"):
        store.put_trace({"tap": "tap2", "reason": "x" * 500})
    assert store.traces() == [{"tap": "tap1"}]
    assert [path.name for path in tmp_path.iterdir()] == ["device.json"]
    store.put_trace({"tap": "tap2"})
    assert len(store.traces()) == 2


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outbox = Outbox(tmp_path / "file" / "outbox.db")
    with pytest.raises(OperatorError, match=r"cannot be made.*state_dir"):
        await outbox.open(NOW_MS)
    await outbox.close()


_WRITER = """
import sys
from pathlib import Path
from taprail_terminal.storage import DeviceStore
store = DeviceStore(Path(sys.argv[1]))
for number in range(1_000_000):
    store.put_trace({"tap": f"tap{number}", "reason": "x" * 2_000})
    print(number, flush=True)
"""


def test_kill_9_in_the_middle_of_writing_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    for kill_after in range(1, 6):
        child = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(kill_after):
            last = int(child.stdout.readline())
        child.kill()
        child.wait()
        child.stdout.close()
        taps = [trace["tap"] for trace in DeviceStore(path).traces()]
        assert f"tap{last}" in taps
        json.loads(path.read_bytes())

"""The device's file: after a power cut at any moment it is the old one or the new one, whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taprail_common.errors import PartError
from taprail_terminal import storage
from taprail_terminal.storage import KEEP_TRACES, DeviceStore


class PowerCut(BaseException):
    """The power went; nothing after it is executed. No `except Exception` may catch it."""


class Mains:
    """Cuts the power before the nth file operation of a write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        self.operations: list[str] = []
        for owner, name in (
            (os, "open"),
            (os, "fsync"),
            (json, "dump"),
            (Path, "replace"),
            (storage, "sync_folder"),
        ):
            monkeypatch.setattr(owner, name, self._counted(name, getattr(owner, name)))

    def _counted(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.left == 0:
                self._tear(name, args)
                raise PowerCut
            self.left -= 1
            self.operations.append(name)
            return operation(*args, **kwargs)

        return counted

    def _tear(self, name: str, args: tuple[Any, ...]) -> None:
        """Power may go in the middle of writing: half of the data is in the file by then."""
        if name == "dump":
            text = json.dumps(args[0])
            args[1].write(text[: len(text) // 2])
            args[1].flush()


def trace(number: int, **more: Any) -> dict[str, Any]:
    return {"tap": f"tap{number}", "outcome": "approved", "stagesMs": {"field": 0}, **more}


def test_profile_and_traces_are_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    store = DeviceStore(path)
    store.set_profile({"terminal": "t1"})
    store.put_trace(trace(1))
    store.put_trace(trace(1, settled=True))
    again = DeviceStore(path)
    assert again.profile() == {"terminal": "t1"}
    assert again.traces() == [trace(1, settled=True)]


def test_only_the_last_traces_are_kept(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path / "device.json")
    for number in range(KEEP_TRACES + 5):
        store.put_trace(trace(number))
    assert [found["tap"] for found in store.traces()] == [
        f"tap{number}" for number in range(5, KEEP_TRACES + 5)
    ]


def test_an_unchanged_profile_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    store = DeviceStore(path)
    store.set_profile({"terminal": "t1"})
    written = path.stat().st_ino
    store.set_profile({"terminal": "t1"})
    assert path.stat().st_ino == written


def test_a_power_cut_at_every_file_operation_leaves_a_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "device.json"
    DeviceStore(path).put_trace(trace(0))
    old, new = [trace(0)], [trace(0), trace(1)]
    mains = Mains(monkeypatch)
    seen = []
    for cut_before in range(1000):
        mains.left = cut_before
        mains.operations.clear()
        try:
            DeviceStore(path).put_trace(trace(1))
        except PowerCut:
            mains.left = -1
            seen.append(DeviceStore(path).traces())
            assert seen[-1] in (old, new)
        else:
            break
    mains.left = -1
    # A file that is renamed before its data is on the disk is empty after a power cut.
    assert mains.operations[-7:] == [
        "open",
        "dump",
        "fsync",
        "replace",
        "sync_folder",
        "open",
        "fsync",
    ]
    assert old in seen
    assert new in seen
    assert DeviceStore(path).traces() == new


def test_a_damaged_file_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    path.write_bytes(b'{"traces": {"1": {"ta')
    store = DeviceStore(path)
    assert store.traces() == []
    store.put_trace(trace(1))
    assert DeviceStore(path).traces() == [trace(1)]


def test_a_disk_that_cannot_be_written_is_a_part_error(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path / "device.json")
    store.put_trace(trace(1))
    (tmp_path / "device.json.new").mkdir()
    with pytest.raises(PartError, match="disk"):
        store.put_trace(trace(2))

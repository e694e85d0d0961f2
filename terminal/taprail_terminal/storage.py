"""What a technician may want to read and nobody's money depends on: TinyDB in one JSON file.

Answers for the device's profile and the traces of the last taps. TinyDB's own storage overwrites in
place, so a power cut tears it; `AtomicJSONStorage` leaves either the old file or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
from tinydb import TinyDB, where
from tinydb.storages import Storage

from taprail_common.errors import PartError
from taprail_common.signing import sync_folder

KEEP_TRACES: Final = 50
_PROFILE: Final = "profile"
_TRACES: Final = "traces"

_log = structlog.get_logger()


class AtomicJSONStorage(Storage):
    """Writes a temporary file, syncs it, renames it over the old one and syncs the folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._new = path.with_name(path.name + ".new")

    def read(self) -> dict[str, dict[str, Any]] | None:
        """All tables; None when nothing was ever stored."""
        try:
            tables: dict[str, dict[str, Any]] = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            # A failing card, not a torn write. Nothing here is worth refusing to sell for.
            _log.error("device file is damaged and starts anew", path=str(self._path))
            return None
        return tables

    def write(self, data: dict[str, dict[str, Any]]) -> None:
        """Replace all tables at once; where that fails, the old ones stay, and nothing beside them
        takes up a disk that may be full."""
        try:
            self._write_new(data)
        except OSError:
            with suppress(OSError):
                self._new.unlink(missing_ok=True)
            raise
        self._new.replace(self._path)
        sync_folder(self._path.parent)

    def _write_new(self, data: dict[str, dict[str, Any]]) -> None:
        handle = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(data, file)
            file.flush()
            os.fsync(file.fileno())


class DeviceStore:
    """Profile and tap traces. Not for the event loop: its methods sync. One thread at a time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._tables = TinyDB(path, storage=AtomicJSONStorage)

    def profile(self) -> dict[str, Any]:
        """What the device knows of itself, as last written."""
        found = self._tables.table(_PROFILE).all()
        return dict(found[0]) if found else {}

    def set_profile(self, profile: dict[str, Any]) -> None:
        """Replace the profile, when it differs: a disk that wears out is spared a write."""
        if self.profile() == profile:
            return
        table = self._tables.table(_PROFILE)

        def put() -> None:
            table.truncate()
            table.insert(profile)

        self._writing(put)

    def put_trace(self, trace: dict[str, Any]) -> None:
        """Add a tap's trace or replace it, by its `tap`; only the last ones are kept."""
        table = self._tables.table(_TRACES)

        def put() -> None:
            table.upsert(trace, where("tap") == trace["tap"])
            surplus = sorted(document.doc_id for document in table)[:-KEEP_TRACES]
            if surplus:
                table.remove(doc_ids=surplus)

        self._writing(put)

    def traces(self) -> list[dict[str, Any]]:
        """The last taps, oldest first."""
        table = self._tables.table(_TRACES)
        return [dict(document) for document in sorted(table, key=lambda found: found.doc_id)]

    def _writing(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as exc:
            raise PartError(
                "disk", f"{self._path} cannot be written ({exc.strerror})", fix="check the disk"
            ) from exc

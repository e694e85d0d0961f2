"""The disk under the terminal's state: written, read back, and with room.

Answers for telling a full disk from one that dies: they look alike to a sale, and want other things
done. An SD card that wears out turns read-only, or gives back something else than was written.
"""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

from taprail_terminal.feedback.parts import PartHealth, healthy

MIN_FREE_BYTES: Final = 100 * 1024 * 1024
"""The outbox, the logs of a week and an update together."""

_TRIED_BYTES: Final = 4096
_DYING: Final = "the SD card fails: copy the state directory, then replace the card"
_WHAT_TO_DO: Final = {errno.EROFS: _DYING, errno.EIO: _DYING}
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def look_at_disk(state_dir: Path) -> PartHealth:
    """Write, sync, read back from the disk itself and delete a file; then count what is free."""
    try:
        is_same = _reads_back(state_dir)
        stats = os.statvfs(state_dir)
    except OSError as exc:
        return _failed(state_dir, exc)
    if not is_same:
        return _bad("what was written does not read back", _DYING)
    free_bytes = stats.f_bavail * stats.f_frsize
    detail = f"{free_bytes // 2**20} MiB free"
    if free_bytes < MIN_FREE_BYTES:
        return _bad(detail, _make_room(state_dir))
    return healthy("disk", f"reads back what is written, {detail}")


def _reads_back(state_dir: Path) -> bool:
    written = secrets.token_bytes(_TRIED_BYTES)
    with tempfile.TemporaryFile(dir=state_dir) as file:
        file.write(written)
        file.flush()
        os.fsync(file.fileno())
        # Else the kernel would give back what it has in memory, whatever the card has made of it.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        return file.read() == written


def _failed(state_dir: Path, exc: OSError) -> PartHealth:
    detail = (exc.strerror or type(exc).__name__).lower()
    if exc.errno in _FULL:
        return _bad(f"full ({detail})", _make_room(state_dir))
    return _bad(detail, _WHAT_TO_DO.get(exc.errno or 0, f"check {state_dir} and the SD card"))


def _make_room(state_dir: Path) -> str:
    return f"make room on the disk of {state_dir}: no sale is taken while it is full"


def _bad(detail: str, fix: str) -> PartHealth:
    return PartHealth("disk", ok=False, detail=detail, fix=fix)

"""Files that are either the old one or the new one, whole, whenever the power goes.

Answers for writing beside, syncing, renaming, and syncing the folder, in this order.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from taprail_common.signing import sync_folder


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Let the file hold this; raises OSError, and then the old one is there as it was."""
    beside = path.with_name(path.name + ".new")
    try:
        _write(beside, data, mode)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    beside.replace(path)
    sync_folder(path.parent)


def remove_file(path: Path) -> None:
    """Let there be no such file, for good."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync_folder(path.parent)


def _write(path: Path, data: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())

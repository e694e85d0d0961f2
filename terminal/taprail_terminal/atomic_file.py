"""Files that are either the old one or the new one, whole, whenever the power goes.

Answers for writing beside, syncing, renaming, and syncing the folder, in this order; and for small
JSON files that are kept so.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from taprail_common.errors import InputError, PartError
from taprail_common.signing import sync_folder

_MAX_BYTES: Final = 64 * 1024


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
    """Let there be no such file, for good; raises OSError."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync_folder(path.parent)


def write_json(path: Path, content: object) -> None:
    """Replace a file, readable by its owner alone; raises PartError, and then the old one stays."""
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, text.encode())
    except OSError as exc:
        raise PartError(
            "disk", f"{path} cannot be written ({exc.strerror})", fix="check the disk"
        ) from exc


def read_json(path: Path) -> Any:
    """What is in a file; None when there is none. InputError for what is no JSON, or too long."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise PartError("disk", f"{path} cannot be read ({exc.strerror})") from exc
    try:
        if len(content) > _MAX_BYTES:
            raise ValueError("is too long")
        return json.loads(content)
    except ValueError as exc:
        raise InputError(path.name, "is damaged") from exc


def _write(path: Path, data: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())

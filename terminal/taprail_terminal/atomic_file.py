"""Small JSON files that a power cut leaves whole: the old one or the new one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from taprail_common.errors import InputError, PartError
from taprail_common.signing import sync_folder

_MAX_BYTES: Final = 64 * 1024


def write_json(path: Path, content: object) -> None:
    """Replace a file, readable by its owner alone; raises PartError, and then the old one stays."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """The same with any text."""
    new = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_folder(path.parent)
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

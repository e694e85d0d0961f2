"""What goes from the technician's laptop to the terminal and comes back as files.

Answers for `config import FILE`, `config export FILE` and `bundle [FILE]`: the console itself knows
no files of the laptop. Nothing is overwritten.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from taprail_common.errors import OperatorError
from taprail_terminal.diag_talk import Answer

_MAX_TOML_BYTES: Final = 32 * 1024
"""As much as the console takes."""
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)


def outgoing(words: Sequence[str]) -> tuple[list[str], Path | None]:
    """The command as it is sent, and the file that its answer goes into, if any."""
    match list(words):
        case ["config", "import", name]:
            return ["config", "import", _text(name)], None
        case ["config", "import", *_]:
            raise OperatorError("config import needs a file", fix="config import FILE, or -")
        case ["config", "export", name]:
            return ["config", "export"], Path(name)
        case ["bundle", name]:
            return ["bundle"], Path(name)
        case other:
            return other, None


def incoming(answer: Answer, wanted: Path | None) -> Path | None:
    """Store what has come as a file, in the folder that we are in unless one was named; gives
    where, None when the answer is no file. Raises OperatorError."""
    data = answer.get("data")
    if answer.get("exitCode") != 0 or not isinstance(data, dict):
        return None
    if "archive" in data:
        return _store(wanted or Path(_name(data)), _archive(data))
    if wanted is not None and "toml" in data:
        return _store(wanted, str(data["toml"]).encode())
    return None


def _text(name: str) -> str:
    try:
        data = sys.stdin.buffer.read(_MAX_TOML_BYTES + 1) if name == "-" else _read(Path(name))
        text = data.decode()
    except OSError as exc:
        raise OperatorError(f"{name} cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError:
        raise OperatorError(f"{name} is no text") from None
    if len(data) > _MAX_TOML_BYTES:
        raise OperatorError(f"{name} is longer than {_MAX_TOML_BYTES} bytes")
    return text


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_TOML_BYTES + 1)


def _name(data: dict[str, Any]) -> str:
    """What the terminal calls it, if that is a name and no path."""
    name = str(data.get("name", ""))
    return name if _SAFE_NAME.fullmatch(name) else "taprail-bundle.tar.gz"


def _archive(data: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(str(data["archive"]), validate=True)
    except (binascii.Error, ValueError):
        raise OperatorError("the bundle did not come whole", fix="ask again") from None


def _store(path: Path, content: bytes) -> Path:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    except FileExistsError:
        raise OperatorError(f"{path} is there already", fix="name another file") from None
    except OSError as exc:
        raise OperatorError(f"{path} cannot be written ({exc.strerror})") from exc
    return path

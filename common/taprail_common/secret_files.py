"""Files that hold a key or a secret: read only when they are files, and for one user alone.

What is refused says what to do, and nothing of what is in the file. A symbolic link counts as what
it points to. A credential that systemd hands over (`LoadCredential=`) is guarded by its folder.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from taprail_common.errors import OperatorError

_MAX_BYTES: Final = 4_096
"""Keys have 65; no secret that is one line has more."""

_CREDENTIALS: Final = Path("/run/credentials")
"""Holds a folder for each service that has any (systemd.exec(5)), closed to all others. Reading is
granted in it by an ACL, which looks like a group's right."""


def read_secret_file(path: Path, what: str) -> str:
    """Read a secret's file; OperatorError when it is not there, not a file, or not for us alone."""
    try:
        # A pipe that nobody writes to must not hang the start.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise OperatorError(f"{what} {path} is missing", fix="create or restore it") from None
    except OSError as exc:
        raise OperatorError(
            f"{what} {path} cannot be read ({exc.strerror})",
            fix="give it to the user that runs this: chown, then chmod 600",
        ) from exc
    try:
        problem = _problem(path, os.fstat(handle))
        if problem is not None:
            raise OperatorError(f"{what} {path} {problem[0]}", fix=problem[1])
        content = os.read(handle, _MAX_BYTES + 1)
    finally:
        os.close(handle)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or len(content) > _MAX_BYTES:
        raise OperatorError(f"{what} {path} is damaged", fix="restore it from its backup")
    return text


def secret_file_problem(path: Path) -> str | None:
    """What keeps a file from being read as a secret, and what to do; None: nothing."""
    try:
        problem = _problem(path, path.stat())
    except OSError as exc:
        return f"cannot be had ({exc.strerror})"
    return None if problem is None else ", ".join(problem)


def _problem(path: Path, status: os.stat_result) -> tuple[str, str] | None:
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file", "name the file itself"
    is_open = status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    if is_open and not _is_credential(path):
        return "may be read by others", f"chmod 600 {path}"
    return None


def _is_credential(path: Path) -> bool:
    return path.resolve().parent.parent == _CREDENTIALS

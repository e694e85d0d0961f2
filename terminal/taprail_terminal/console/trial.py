"""A new configuration on trial: kept once the agent has come up with it, undone when it has not.

Beside the file lie its last good version (`.before`) and, during a trial, a mark (`.trial`). Each
step is one whole file, and each start looks at the mark first, so the power may go at any moment.

    (none) --begin--> new --start--> tried --came up--> (none)
                                       |
                                       +--start again--> undone, (none)
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import structlog

from taprail_common.errors import OperatorError
from taprail_terminal.atomic_file import remove_file, replace_file
from taprail_terminal.config import TerminalConfig, load_config

_NEW: Final = b"new\n"
_TRIED: Final = b"tried\n"
# The configuration belongs to whoever administers the machine; others may read it as before.
_MODE: Final = 0o640

_log = structlog.get_logger()


def begin(file: Path, text: bytes, *, like: TerminalConfig) -> None:
    """Put a new configuration in place of one that runs, on trial from the next start on.

    Raises ConfigError or OperatorError, and then nothing has changed: it must hold, and be this
    terminal's, with its state where it was.
    """
    _check(file, text, like)
    before = file.read_bytes()
    try:
        replace_file(_beside(file, "before"), before, mode=_MODE)
        replace_file(_beside(file, "trial"), _NEW)
        replace_file(file, text, mode=_MODE)
    except OSError as exc:
        raise OperatorError(
            f"{file} cannot be written ({exc.strerror})",
            fix="let its folder belong to the agent's user",
        ) from exc
    if file.read_bytes() != text:
        undo(file)
        raise OperatorError("what was written does not read back", fix="check the disk")


def at_start(file: Path) -> None:
    """Look at the mark before the configuration is read."""
    match _mark(file):
        case None:
            return
        case mark if mark == _NEW:
            replace_file(_beside(file, "trial"), _TRIED)
            try:
                load_config(file)
            except OperatorError as exc:
                _log.error("the new configuration does not hold", reason=str(exc))
                undo(file)
        case _:
            _log.error("the agent did not come up with the new configuration; it is undone")
            undo(file)


def undo(file: Path) -> None:
    """Back to the last good version. May be cut off and done again."""
    before = _beside(file, "before")
    if before.exists():
        replace_file(file, before.read_bytes(), mode=_MODE)
    remove_file(_beside(file, "trial"))


def came_up(file: Path) -> None:
    """The agent runs with what is on trial."""
    if _mark(file) is not None:
        remove_file(_beside(file, "trial"))
        _log.info("the new configuration is kept")


def is_on(file: Path) -> bool:
    """Whether a trial is going on."""
    return _mark(file) is not None


def _check(file: Path, text: bytes, like: TerminalConfig) -> None:
    candidate = _beside(file, "candidate")
    try:
        replace_file(candidate, text)
        found = load_config(candidate)
    except OSError as exc:
        raise OperatorError(
            f"nothing can be written beside {file} ({exc.strerror})",
            fix="let its folder belong to the agent's user",
        ) from exc
    finally:
        candidate.unlink(missing_ok=True)
    for name, ours, theirs in (
        ("id", like.terminal.id, found.terminal.id),
        ("state_dir", like.terminal.state_dir, found.terminal.state_dir),
        ("key_file", like.key_file, found.key_file),
    ):
        if ours != theirs:
            raise OperatorError(
                f"it is another terminal's: [terminal] {name} is {theirs}, here it is {ours}",
                fix="import a file that was exported here",
            )


def _mark(file: Path) -> bytes | None:
    try:
        return _beside(file, "trial").read_bytes()
    except FileNotFoundError:
        return None


def _beside(file: Path, what: str) -> Path:
    return file.with_name(f"{file.name}.{what}")

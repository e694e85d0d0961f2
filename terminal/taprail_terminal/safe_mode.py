"""Safe mode: what a terminal does when it has not come up several times in a row.

It then leaves its reader alone, says on its front that it needs service, and does all else: the
console answers, and what was sold gets its verdict. After a while it tries a normal start again, in
case the cause has gone by itself.

Answers for counting starts and for the way into safe mode and out of it. The agent counts, not
systemd (StartLimitBurst=, OnFailure=): only it can tell a start that came to nothing from one that
a technician asked for, and a unit that systemd has given up has no console.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Protocol

import structlog

from taprail_common.errors import TapRailError
from taprail_terminal.atomic_file import remove_file, replace_file
from taprail_terminal.feedback.messages import SERVICE_NEEDED
from taprail_terminal.sale import Event, ReaderLost

BAD_STARTS: Final = 5
STEADY_S: Final = 60.0
"""A terminal that has worked for so long has come up."""
SAFE_MODE_S: Final = 600.0
NOT_OPENED: Final = "left alone: the terminal is in safe mode after several bad starts"

_FILE: Final = "bad-starts"
_MAX_DIGITS: Final = 6

_log = structlog.get_logger()


class SafeModeOverError(TapRailError):
    """Time for a normal start."""

    code = "safe_mode_over"


class SafeReader(Protocol):
    """What of the reader safe mode uses."""

    trouble: str | None


class Front(Protocol):
    """What of the sale safe mode uses."""

    def report(self, event: Event) -> None: ...


class Starts:
    """How many starts in a row came to nothing, kept in the state folder. A disk that keeps nothing
    means that there is no safe mode, and no other harm."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / _FILE

    def begin(self) -> bool:
        """Note a start; True when it is to be one in safe mode."""
        bad = self._read()
        is_safe = bad >= BAD_STARTS
        # However a safe one ends, what follows is one normal try.
        self._write(BAD_STARTS - 1 if is_safe else bad + 1)
        if is_safe:
            _log.error("safe mode: the terminal did not come up", times=bad)
        return is_safe

    def came_up(self) -> None:
        """This one is no bad start."""
        try:
            remove_file(self._file)
        except OSError as exc:
            _log.warning("starts are not counted", reason=exc.strerror)

    def _read(self) -> int:
        try:
            digits = self._file.read_bytes()[:_MAX_DIGITS].strip()
        except OSError:
            return 0
        return int(digits) if digits.isdigit() else 0

    def _write(self, bad: int) -> None:
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._file, b"%d\n" % bad)
        except OSError as exc:
            _log.warning("starts are not counted", reason=exc.strerror)


def begin(reader: SafeReader, front: Front) -> None:
    """Instead of opening the reader."""
    reader.trouble = NOT_OPENED
    front.report(ReaderLost(SERVICE_NEEDED))


async def end(reader: SafeReader) -> None:
    """Raise SafeModeOverError when it is time, unless a technician has opened the reader."""
    await asyncio.sleep(SAFE_MODE_S)
    if reader.trouble == NOT_OPENED:
        raise SafeModeOverError("the terminal tries a normal start")
    await asyncio.Event().wait()

"""One agent for one state folder: two would post the same request side by side.

Answers for the lock and for saying who holds it. The system gives it back when the process ends,
however it does.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from taprail_common.errors import OperatorError

LOCK_FILE: Final = "agent.lock"


@contextmanager
def only_agent(state_dir: Path) -> Iterator[None]:
    """Hold the folder; raises OperatorError when another agent does, or it cannot be used."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(state_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise OperatorError(f"state folder {state_dir} cannot be used ({exc.strerror})") from exc
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
            raise OperatorError(
                f"another agent (PID {holder}) uses {state_dir}", fix="stop that one first"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)

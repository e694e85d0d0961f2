"""One stack for one state folder: a second one would write the address of its own node into the
configuration of the first, and both would keep one chain's state file.

The lock is the kernel's (flock), so it is gone with its process, however that ended.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from taprail_hwsim.process import ProgramError

LOCK_FILE: Final = "sim.lock"
_PID_DIGITS: Final = 20


@contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Hold the folder for the block; raises ProgramError when another stack does."""
    handle = os.open(state_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, _PID_DIGITS, 0).decode("ascii", "replace").strip()
            raise ProgramError(
                f"a stack (PID {holder}) runs already in {state_dir}: stop it first, or choose"
                " another --state-dir"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)

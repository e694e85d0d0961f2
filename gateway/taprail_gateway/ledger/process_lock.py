"""One gateway per ledger file: two would give one lane's nonces away twice.

The lock is the kernel's (flock), so it is gone with its process, however that ended. The file holds
the owner's PID for the message to a second one; its text decides nothing.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from taprail_common.errors import OperatorError


class ProcessLock:
    """An exclusive claim on a ledger's file; `acquire` raises OperatorError naming the holder."""

    def __init__(self, ledger_file: Path) -> None:
        self._path = ledger_file.with_name(ledger_file.name + ".lock")
        self._handle: int | None = None

    def acquire(self) -> None:
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise OperatorError(
                f"the lock file {self._path} cannot be opened ({exc.strerror})",
                fix="check its folder's owner",
            ) from exc
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise OperatorError(
                f"another gateway (PID {holder}) works on this ledger", fix="stop it first"
            ) from None
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._handle = handle

    def release(self) -> None:
        """Give it up; the file stays, because removing it would race with the next holder."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

"""Sockets on which this machine's programs reach the agent."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from taprail_common.errors import OperatorError


def bound(path: Path, what: str) -> socket.socket:
    """A socket for the agent's own user alone; `what` names it in errors.

    The caller holds the agent's lock, so a file that is there was left by an agent that is gone.
    Raises OperatorError.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as exc:
        listener.close()
        raise OperatorError(f"{what} {path} cannot be made ({exc.strerror})") from exc
    finally:
        os.umask(before)
    return listener

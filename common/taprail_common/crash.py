"""Crash points: where a test may end the process as kill -9 would, to prove that nothing is lost.

Each durable write and each step that others can see has a named point before or after it.
`TAPRAIL_CRASH=accept.committed@3` ends the process the third time that point is passed. The
variable is read once, at start; without it a point costs one comparison. A crash can only stop a
process: no setting here changes what it decides.
"""

from __future__ import annotations

import os
from typing import Final

EXIT_CODE: Final = 137
"""What a shell reports for a process that was ended by SIGKILL (128 + 9)."""

_point, _, _hit = os.environ.get("TAPRAIL_CRASH", "").partition("@")
_left = int(_hit) if _hit.isdigit() else 1


def crash(point: str) -> None:
    """End the process here when this is the point, and the passing, that was asked for."""
    global _left  # noqa: PLW0603 - one countdown for the process, which ends with it
    if point != _point:
        return
    _left -= 1
    if _left == 0:
        os._exit(EXIT_CODE)

"""On which of the machine's cores the gateway's threads run.

The event loop and the ledger's writer take turns in one interpreter, some four times for each
payment. On two cores each turn wakes the other core up and begins with cold caches: measured, a
payment costs 670 µs of processor time on two cores and 450 µs on one, and the slowest hundredth at
1,000 payments/s takes 30 ms and 20 ms. So these two share a core. What works for long outside the
interpreter (signing in bulk, checking a PIN) may run on any.
"""

from __future__ import annotations

import os
from typing import Final

_ALLOWED: Final = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else frozenset[int]()
"""The cores that the system gave this process; empty where it cannot be asked."""


def share_one() -> None:
    """Keep this thread, and those that it starts, on the core that the process has chosen.

    By the process's number, so that several gateways on one machine hardly ever choose the same.
    """
    if len(_ALLOWED) > 1:
        cores = sorted(_ALLOWED)
        os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})


def roam() -> None:
    """Let this thread run on any core."""
    if len(_ALLOWED) > 1:
        os.sched_setaffinity(0, _ALLOWED)

"""How long a payment takes to settle, estimated from what settled lately.

Until something has settled, the estimate is derived from the configured block time and pauses, and
says so. It promises nothing: it is what an app shows beside a spinner.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil, floor
from typing import Final

_REMEMBERED: Final = 200
"""Enough for steady quantiles, few enough to follow a chain that becomes slow within minutes."""

_EARLIEST, _LATEST = 0.10, 0.90
"""The range covers eight payments of ten."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """`text` like "2-5 seconds"; `basis` is "recent" or "configured"."""

    text: str
    basis: str


class SettlementEstimate:
    """A rolling estimate. Fed by the event loop, read by any thread."""

    def __init__(self, *, least_ms: int, most_ms: int) -> None:
        """Bounds for the time before there is any history."""
        self._durations_ms: deque[int] = deque(maxlen=_REMEMBERED)
        self.current = _estimate(least_ms, most_ms, "configured")

    def settled(self, durations_ms: list[int]) -> None:
        """Take in how long these payments took from acceptance to confirmation."""
        if not durations_ms:
            return
        self._durations_ms.extend(durations_ms)
        ordered = sorted(self._durations_ms)
        last = len(ordered) - 1
        self.current = _estimate(
            ordered[round(last * _EARLIEST)], ordered[round(last * _LATEST)], "recent"
        )


def configured_bounds_ms(
    block_interval_ms: int, confirmations: int, send_interval_ms: int, confirm_interval_ms: int
) -> tuple[int, int]:
    """The best and the worst case of a healthy chain: (sent at once into a block that is nearly
    full of time, or every pause waited out in full)."""
    least_ms = block_interval_ms * confirmations
    return least_ms, least_ms + block_interval_ms + send_interval_ms + confirm_interval_ms


def _estimate(least_ms: int, most_ms: int, basis: str) -> Estimate:
    least_s = max(1, floor(least_ms / 1000))
    most_s = max(least_s + 1, ceil(most_ms / 1000))
    return Estimate(f"{least_s}-{most_s} seconds", basis)

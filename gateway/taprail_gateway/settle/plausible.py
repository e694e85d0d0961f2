"""Whether a block can be what a node says it is: pure, with the clock's readings as arguments.

A node that lies, or that was set to another time, must not get a number from the far future into
the balance snapshots, which only ever move forward, nor a time by which authorizations seem to have
ended. What is refused here counts as a failure of the node. It cannot find out a node that invents
a chain within these bounds.
"""

from __future__ import annotations

from typing import Final

from taprail_gateway.settle.errors import ChainError
from taprail_gateway.settle.replies import Block

MAX_TIME_AHEAD_S: Final = 86_400
"""A day: our own clock may be set to a wrong time zone, and then nothing here is a lie."""

MAX_BLOCKS_AT_ONCE: Final = 100
"""That a node may have fallen behind another one that is asked next."""

MAX_BLOCKS_PER_S: Final = 20
"""Twice as many as the fastest chains in use make."""

MAX_NUMBER: Final = 2**53
"""No chain will ever get there, and every database can hold it."""


class BlockSense:
    """Remembers the highest head and when it was seen; one for all nodes of a chain."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._at_ms = 0
        self._at_s = 0.0

    def check(self, block: Block, now_ms: int, now_s: float) -> None:
        """Raise ChainError for a block that cannot be; `now_s` is a monotonic clock's."""
        if block.time_s * 1000 > now_ms + MAX_TIME_AHEAD_S * 1000:
            raise ChainError("the node gave a block of the far future", fix="check the clocks")
        if block.number >= MAX_NUMBER or block.number > self._highest(now_ms, now_s):
            raise ChainError("the node gave a block number that the chain cannot have reached")

    def saw(self, head: Block, now_ms: int, now_s: float) -> None:
        """A head that was checked."""
        if self._number is None or head.number >= self._number:
            self._number, self._at_ms, self._at_s = head.number, now_ms, now_s

    def _highest(self, now_ms: int, now_s: float) -> int:
        if self._number is None:
            return MAX_NUMBER
        # A machine that slept has only one of its clocks go on.
        passed_s = max(now_s - self._at_s, (now_ms - self._at_ms) / 1000, 0)
        return self._number + MAX_BLOCKS_AT_ONCE + int(passed_s * MAX_BLOCKS_PER_S)

"""When to look for the next block: learnt from the blocks themselves, pure.

A node is asked rarely while no block is due and often around the moment when one is, so that a
payment is seen soon after its block for few calls. Times of arrival are the caller's monotonic
clock; the interval is taken from the blocks' own times, which no delay of ours can blur.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from taprail_gateway.settle.replies import Block

# Enough to smooth whole-second timestamps over blocks of a quarter second.
_REMEMBERED: Final = 32
# Look a little early: what arrived was seen up to one look late.
_EARLY: Final = 0.15
# A tenth of the interval loses 5 % of a block on average; the bounds are for chains of 0.25 s and
# of 12 s blocks.
_LOOK_SHARE: Final = 0.1
_MIN_LOOK_S: Final = 0.05
_MAX_LOOK_S: Final = 0.2
# Two clocks of a machine drift apart by less within an hour; more is somebody setting one.
_CLOCK_STEP_S: Final = 5.0
# A late block is looked for less and less often: a stopped chain must not be hammered.
_PATIENCE: Final = 1.5


class BlockRhythm:
    """Says how long to wait before the next look. `longest_s` bounds every wait, and may change."""

    def __init__(self, longest_s: Callable[[], float]) -> None:
        self._longest_s = longest_s
        self._seen: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        self._arrived_s = 0.0

    def saw(self, block: Block, now_s: float) -> None:
        """A new head arrived."""
        if self._seen and block.number <= self._seen[-1][0]:
            self._seen.clear()  # a reorg: what was learnt is of another branch
        self._seen.append((block.number, block.time_s))
        self._arrived_s = now_s

    @property
    def interval_s(self) -> float | None:
        """Seconds between blocks; None before two were seen."""
        if len(self._seen) < 2:
            return None
        (first, first_s), (last, last_s) = self._seen[0], self._seen[-1]
        return (last_s - first_s) / (last - first)

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next look is worth its call."""
        interval_s, longest_s = self.interval_s, self._longest_s()
        if interval_s is None:
            return min(_MAX_LOOK_S, longest_s)
        look_s = min(max(interval_s * _LOOK_SHARE, _MIN_LOOK_S), _MAX_LOOK_S)
        due_s = self._arrived_s + interval_s * (1 - _EARLY) - now_s
        late_s = now_s - self._arrived_s - interval_s * _PATIENCE
        return min(max(due_s, look_s, late_s * _LOOK_SHARE), longest_s)


class LatestHead:
    """The newest block that any loop has seen, so that the others need not ask again."""

    def __init__(self) -> None:
        self._block: Block | None = None
        self._seen_s = 0.0

    def saw(self, block: Block, now_s: float) -> None:
        """A node answered with this head."""
        self._block, self._seen_s = block, now_s

    def not_older_than(self, age_s: float, now_s: float) -> Block | None:
        """The head if it was seen within that time; else None."""
        return self._block if now_s - self._seen_s <= age_s else None


class Health:
    """For how long the chain has been seen without a gap, by a clock that nobody sets."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._wall_ahead_s = 0.0

    def worked(self, now_ms: int, now_s: float) -> None:
        """A pass went through."""
        if self._since_s is None or self._was_set(now_ms, now_s):
            self._since_s = now_s
            self._wall_ahead_s = now_ms / 1000 - now_s

    def failed(self) -> None:
        """A pass did not."""
        self._since_s = None

    def lasted_s(self, now_ms: int, now_s: float) -> float:
        """Seconds; none after the wall clock was set, by which deadlines are told."""
        if self._since_s is None or self._was_set(now_ms, now_s):
            return 0.0
        return now_s - self._since_s

    def _was_set(self, now_ms: int, now_s: float) -> bool:
        return abs(now_ms / 1000 - now_s - self._wall_ahead_s) > _CLOCK_STEP_S


class StallWatch:
    """Notices that the head of a lane does not get mined."""

    def __init__(self) -> None:
        self._nonce: int | None = None
        self._since_block = 0

    def is_stalled(self, lowest_nonce: int | None, block_number: int) -> bool:
        """Whether the lane's lowest unmined nonce has missed two blocks, the newest included.

        `lowest_nonce` is None when nothing is under way. Ask in every pass.
        """
        if lowest_nonce != self._nonce:
            self._nonce, self._since_block = lowest_nonce, block_number
        # After a reorg the head may be lower than where the nonce became the lowest.
        self._since_block = min(self._since_block, block_number)
        return lowest_nonce is not None and block_number > self._since_block

    def missed_blocks(self, block_number: int) -> int:
        """Blocks that came without it since it became the lowest."""
        return max(0, block_number - self._since_block)

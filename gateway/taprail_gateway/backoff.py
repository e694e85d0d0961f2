"""How long to wait before trying again: exponential, with full jitter. Pure.

Each failure doubles the longest wait, up to a bound, and the wait is anything up to that longest:
so those who failed together do not come back together
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Backoff:
    """Bounds of the waits; the last is reached after some doublings and kept."""

    first_ms: int
    longest_ms: int

    def wait_ms(self, failures: int, random: Random) -> int:
        """The wait after so many failures (1 or more), at least a millisecond."""
        doublings = min(max(failures - 1, 0), self.longest_ms.bit_length())
        return random.randint(1, min(self.first_ms << doublings, self.longest_ms))

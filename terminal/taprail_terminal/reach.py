"""What is known of whether the gateway is there, and since when.

Answers for remembering what the last greeting came to. Who asks, and how often, is not its matter.
"""

from __future__ import annotations

import asyncio
from typing import Final

from taprail_common.clock import Clock

AWAY_S: Final = 2.0
"""For so long nobody greets again who was not answered. That it *is* there is never taken for
granted: it costs one round trip to ask, and an unknown sale to be wrong."""


class Reach:
    """Belongs to the event loop; `away` may be read anywhere."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._away_until_s = 0.0
        self._greeted = asyncio.Event()
        self.away = False
        """Whether the last greeting came to nobody."""

    @property
    def is_surely_away(self) -> bool:
        """Whether the last greeting came to nobody, and that just now."""
        return self.away and self._clock.monotonic_s() < self._away_until_s

    def tried(self, *, is_there: bool) -> None:
        """The gateway was greeted just now; one that refuses us is there."""
        self.away = not is_there
        self._away_until_s = self._clock.monotonic_s() + AWAY_S

    def greeted(self) -> None:
        """It has answered as it should."""
        self.tried(is_there=True)
        self._greeted.set()
        self._greeted = asyncio.Event()

    async def next_greeting(self) -> None:
        """Wait until the gateway has answered once more."""
        await self._greeted.wait()

"""What is known of whether the gateway is there, and since when.

Answers for remembering what the last greeting came to, and for forgetting it when there is reason
to doubt. Who asks it, and how often, is not its matter.
"""

from __future__ import annotations

import asyncio
from typing import Final

from taprail_common.clock import Clock

KNOWN_S: Final = 2.0
"""For so long nobody asks again. A gateway that goes away within it leaves one tap unknown, as it
would without offline sales."""


class Reach:
    """Belongs to the event loop; `away` may be read anywhere."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known_until_s = 0.0
        self._greeted = asyncio.Event()
        self.away = False
        """Whether the last greeting came to nobody."""

    @property
    def is_known(self) -> bool:
        """Whether `away` is so young that it holds."""
        return self._clock.monotonic_s() < self._known_until_s

    def tried(self, *, is_there: bool) -> None:
        """The gateway was greeted just now; one that refuses us is there."""
        self.away = not is_there
        self._known_until_s = self._clock.monotonic_s() + KNOWN_S

    def greeted(self) -> None:
        """It has answered as it should."""
        self.tried(is_there=True)
        self._greeted.set()
        self._greeted = asyncio.Event()

    def doubt(self) -> None:
        """Something has failed that would work if it were there."""
        self._known_until_s = 0.0

    async def next_greeting(self) -> None:
        """Wait until the gateway has answered once more."""
        await self._greeted.wait()

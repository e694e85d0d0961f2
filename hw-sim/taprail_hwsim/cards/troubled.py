"""Genuine cards in trouble: one that is slow, and one whose answers arrive in the wrong length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from taprail_hwsim.cards.base import Card, CardAnswer
from taprail_hwsim.cards.strangers import Disguise

# ISO/IEC 14443-4 clause 7.3: S(WTX) with WTXM 1, one more frame waiting time.
_MORE_TIME: Final = bytes([0xF2, 0x01])


class SlowCard(Disguise):
    """Asks for more time so many times before each of its answers."""

    kind = "slow"

    def __init__(self, card: Card, waits: int) -> None:
        self._now, self._waits = card, waits
        self._held: CardAnswer | None = None
        self._left = 0

    def power_lost(self) -> None:
        self._held = None
        self._now.power_lost()

    def activate(self) -> bool:
        return self._now.activate()

    def receive(self, frame: bytes) -> CardAnswer | None:
        if self._held is None:
            answer = self._now.receive(frame)
            if answer is None or answer.apdu is None:
                return answer
            self._held, self._left = answer, self._waits
        elif frame == _MORE_TIME:
            self._left -= 1
        if self._left > 0:
            return CardAnswer(_MORE_TIME)
        answer, self._held = self._held, None
        return answer


class MisshapenCard(Disguise):
    """Its next answers to commands are of another length than it has sent them."""

    kind = "misshapen"

    def __init__(self, card: Card, shape: Callable[[bytes], bytes], times: int) -> None:
        self._now, self._shape, self._left = card, shape, times

    def power_lost(self) -> None:
        self._now.power_lost()

    def activate(self) -> bool:
        return self._now.activate()

    def receive(self, frame: bytes) -> CardAnswer | None:
        answer = self._now.receive(frame)
        if answer is None or answer.apdu is None or not self._left:
            return answer
        self._left -= 1
        return replace(answer, frame=self._shape(answer.frame))

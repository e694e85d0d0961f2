"""Blink patterns: pure functions from a pattern and a time to lit or dark.

Answers for when a light is on and when that changes next, so that whoever drives the pins can sleep
in between. It drives none and does not know what a pattern means: see `scene`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

LIGHT_COUNT: Final = 6
"""Four EMV lights from left to right, then red, then amber."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A light that is on for `on_ms` of every `period_ms`, beginning `offset_ms` into it."""

    period_ms: int
    on_ms: int
    offset_ms: int = 0

    def __post_init__(self) -> None:
        if self.period_ms < 1 or not 0 <= self.on_ms <= self.period_ms:
            raise ValueError("a light is on for a part of its period")
        if not 0 <= self.offset_ms <= self.period_ms - self.on_ms:
            raise ValueError("a light goes on and off within its period")

    @property
    def is_steady(self) -> bool:
        """Whether the light never changes."""
        return self.on_ms in {0, self.period_ms}

    def is_lit(self, elapsed_ms: int) -> bool:
        """Whether the light is on at this time after its pattern began."""
        return 0 <= elapsed_ms % self.period_ms - self.offset_ms < self.on_ms

    def next_change_ms(self, elapsed_ms: int) -> int | None:
        """How long from now until the light changes; None when it never does."""
        if self.is_steady:
            return None
        now = elapsed_ms % self.period_ms
        edges = (self.offset_ms, self.offset_ms + self.on_ms)
        return min((edge - now) % self.period_ms or self.period_ms for edge in edges)


OFF: Final = Pattern(period_ms=1, on_ms=0)
ON: Final = Pattern(period_ms=1, on_ms=1)


@dataclass(frozen=True, slots=True)
class Lights:
    """What all the lights of a terminal do."""

    emv: tuple[Pattern, Pattern, Pattern, Pattern] = (OFF, OFF, OFF, OFF)
    red: Pattern = OFF
    amber: Pattern = OFF

    def patterns(self) -> tuple[Pattern, ...]:
        """All patterns in the order of the pins: the four EMV lights, red, amber."""
        return (*self.emv, self.red, self.amber)

    def lit(self, elapsed_ms: int) -> tuple[bool, ...]:
        """Which lights are on at this time."""
        return tuple(pattern.is_lit(elapsed_ms) for pattern in self.patterns())

    def next_change_ms(self, elapsed_ms: int) -> int | None:
        """How long from now until any light changes; None when none ever does."""
        return _soonest(pattern.next_change_ms(elapsed_ms) for pattern in self.patterns())


def _soonest(waits_ms: Iterable[int | None]) -> int | None:
    return min((wait_ms for wait_ms in waits_ms if wait_ms is not None), default=None)


# Each light alone, a tenth of a second long: a crossed or a dead wire is seen at a glance.
_TEST_STEP_MS: Final = 100
TEST_DURATION_MS: Final = LIGHT_COUNT * _TEST_STEP_MS


def _test_step(position: int) -> Pattern:
    return Pattern(TEST_DURATION_MS, _TEST_STEP_MS, position * _TEST_STEP_MS)


TEST_LIGHTS: Final = Lights(
    emv=(_test_step(0), _test_step(1), _test_step(2), _test_step(3)),
    red=_test_step(4),
    amber=_test_step(5),
)

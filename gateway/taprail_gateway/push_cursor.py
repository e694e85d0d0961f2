"""A place in the order of events, as a client keeps it to be told later what it has missed.

Writers on PostgreSQL may commit in another order than they drew their numbers in, so a number alone
would not do: a cursor also names the numbers below it that had not come. Pure: reads nothing.

As text, which clients need not understand: `1234`, or `1234.1200-1203.1210` with what is missing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

from taprail_common.wire import MAX_CURSOR

Range = tuple[int, int]
"""The first and the last of numbers in a row."""

MAX_GAPS: Final = 8
"""In a row each; more are left out by going back before them, and something is told twice."""

_TEXT: Final = re.compile(r"\d{1,18}(\.\d{1,18}(-\d{1,18})?){0,8}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything up to `seen` was told, but for what is in the gaps, which rise."""

    seen: int
    gaps: tuple[Range, ...] = ()

    @classmethod
    def at(cls, seq: int, missing: Sequence[Range]) -> Self:
        """The place after an event, of whatever ranges were missing at the time."""
        below = missing[: bisect_right(missing, (seq, seq))]
        if len(below) > MAX_GAPS:
            return cls(below[0][0] - 1)
        return cls(seq, tuple(below))

    @classmethod
    def parse(cls, text: object) -> Self | None:
        """A cursor from outside; None for what is none."""
        if not isinstance(text, str) or len(text) > MAX_CURSOR or not _TEXT.fullmatch(text):
            return None
        seen, *gaps = text.split(".")
        ranges = [_range(gap) for gap in gaps]
        ends = [number for each in ranges for number in each]
        if any(first > last for first, last in pairwise([*ends, int(seen)])):
            return None
        return cls(int(seen), tuple(ranges))

    @property
    def settled(self) -> int:
        """Up to here nothing is missing."""
        return self.gaps[0][0] - 1 if self.gaps else self.seen

    def covers(self, seq: int) -> bool:
        """Whether whoever has this cursor was told of that event."""
        return seq <= self.seen and not any(first <= seq <= last for first, last in self.gaps)

    def __str__(self) -> str:
        return ".".join([str(self.seen), *(_text(each) for each in self.gaps)])


def ranges(numbers: Iterable[int]) -> list[Range]:
    """Numbers as ranges, rising."""
    found: list[Range] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _range(text: str) -> Range:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def _text(each: Range) -> str:
    first, last = each
    return str(first) if first == last else f"{first}-{last}"

"""What a campaign is: it gets a seed and minutes, and says what it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Found:
    """What came of one run of a campaign."""

    holds: bool
    summary: str
    """One line for people."""
    repeat: str
    """The command that does the same again."""


Campaign = Callable[[int, float], Found]
"""Runs with a seed for at most so many minutes; starts whatever it needs and ends it again."""

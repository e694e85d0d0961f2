"""What a campaign is: it gets a seed and minutes, and says what it found and what it covered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Found:
    """What came of one run of a campaign."""

    holds: bool
    summary: str
    """One line for people."""
    repeat: str
    """The command that does the same again."""
    covered: Mapping[str, int] = field(default_factory=dict)
    """What was really met, and how often; what was only tried is not among it."""


@dataclass(frozen=True)
class Means:
    """What a soak has beside its time."""

    postgres_url: str | None = None
    """A server on which databases may be made."""
    token: Path | None = None
    multicall: Path | None = None
    """Artifacts of the published contracts."""


Campaign = Callable[[int, float], Found]
"""Runs with a seed for at most so many minutes; starts whatever it needs and ends it again."""

"""A bounded memory of what was looked up, which counts how often that helped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class CacheUse:
    """How often what was asked for was there, since the process began."""

    hits: int
    misses: int

    @property
    def hit_rate(self) -> float | None:
        """Of all that was asked for; None before the first time."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


class Remembered(Generic[V]):
    """Values by name; when it is full it forgets what was longest not asked for."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._entries: dict[str, V] = {}  # in the order in which they were last asked for
        self._hits = 0
        self._misses = 0

    @property
    def use(self) -> CacheUse:
        return CacheUse(self._hits, self._misses)

    def get(self, name: str) -> V | None:
        value = self._entries.pop(name, None)
        if value is None:
            self._misses += 1
            return None
        self._hits += 1
        self._entries[name] = value
        return value

    def drop(self, name: str) -> None:
        self._entries.pop(name, None)

    def put(self, name: str, value: V) -> V:
        self._entries.pop(name, None)
        if len(self._entries) >= self._bound:
            del self._entries[next(iter(self._entries))]
        self._entries[name] = value
        return value

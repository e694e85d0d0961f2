"""Lets a trouble be logged when it begins, and not again at every pass while it lasts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

AGAIN_AFTER_S: Final = 3_600.0
"""Whoever reads the newest log alone still learns of what has lasted for days."""

_REMEMBERED: Final = 1_000


class Told:
    """What was said lately; the oldest is forgotten first."""

    def __init__(self) -> None:
        self._said: OrderedDict[Hashable, float] = OrderedDict()

    def is_new(self, what: Hashable, now_s: float) -> bool:
        """Whether this should be said now; then it counts as said."""
        said_s = self._said.get(what)
        if said_s is not None and now_s - said_s < AGAIN_AFTER_S:
            return False
        self._said[what] = now_s
        self._said.move_to_end(what)
        if len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)
        return True

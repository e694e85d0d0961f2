"""Heartbeats of terminals, kept in memory: a terminal costs the ledger one row in half a minute.

Answers for which of them are due to be written: at once what is news, and now and then what only
shows that a terminal is there. Whoever writes them takes many together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

SILENT_AFTER_MS: Final = 90_000
"""Without a heartbeat for so long a terminal is silent. It sends one in twenty seconds, and what is
written of them is up to half a minute old."""

REWRITTEN_AFTER_MS: Final = 30_000
MAX_AT_ONCE: Final = 200
"""Rows in one commit, which payments' commits wait for: some milliseconds."""

MAX_KEPT: Final = 20_000
"""Terminals; far more than one gateway serves. Beyond it the one heard longest ago is forgotten."""


@dataclass(frozen=True, slots=True)
class Beat:
    """How a terminal was when it was heard, by the gateway's clock."""

    terminal_id: str
    heard_at_ms: int
    version: str
    phase: str
    reader_ok: bool
    reader: str
    unresolved: int
    unsettled: int
    uptime_s: int
    clock_offset_ms: int | None
    config_version: int

    @property
    def unconfirmed(self) -> int:
        """Sales whose money is not on the chain yet, whoever it waits for."""
        return self.unresolved + self.unsettled

    def is_silent(self, now_ms: int) -> bool:
        """Whether nothing was heard for too long."""
        return now_ms - self.heard_at_ms > SILENT_AFTER_MS


class Heartbeats:
    """What was heard last of each terminal; belongs to one event loop."""

    def __init__(self) -> None:
        self._last: dict[str, Beat] = {}  # the one heard longest ago first
        self._written: dict[str, Beat] = {}

    def hear(self, beat: Beat) -> None:
        """Take note of one."""
        self._last.pop(beat.terminal_id, None)
        self._last[beat.terminal_id] = beat
        if len(self._last) > MAX_KEPT:
            forgotten = next(iter(self._last))
            del self._last[forgotten]
            self._written.pop(forgotten, None)

    def last(self, terminal_id: str) -> Beat | None:
        """What this gateway heard last of a terminal."""
        return self._last.get(terminal_id)

    def due(self) -> list[Beat]:
        """What is to be written now, the news first."""
        news, stale = [], []
        for terminal_id, beat in self._last.items():
            written = self._written.get(terminal_id)
            if written is None or not _is_same(written, beat):
                news.append(beat)
            elif beat.heard_at_ms - written.heard_at_ms >= REWRITTEN_AFTER_MS:
                stale.append(beat)
        return [*news, *stale][:MAX_AT_ONCE]

    def wrote(self, beats: Iterable[Beat]) -> None:
        """These are in the ledger."""
        self._written.update({beat.terminal_id: beat for beat in beats})


def _is_same(one: Beat, other: Beat) -> bool:
    """Whether two say the same, but for what changes by itself."""
    at = replace(other, heard_at_ms=one.heard_at_ms, uptime_s=one.uptime_s)
    return replace(at, clock_offset_ms=one.clock_offset_ms) == one

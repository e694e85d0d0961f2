"""The last lines of the log, kept in memory for the console, and how much is logged.

Answers for a copy of what the log said, made after secrets were hidden; the log itself goes where
it always goes. Nothing here ever writes into an answer by itself.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

import structlog

from taprail_common.logs import hide_secrets

KEPT_LINES: Final = 500
MAX_LINE_CHARACTERS: Final = 1_000
LEVELS: Final = ("debug", "info", "warning", "error")


class LogTail:
    """The newest lines, oldest first. Lines come from any thread."""

    def __init__(self, level: str = "info") -> None:
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.level = level

    def last(self, count: int) -> list[str]:
        """At most so many of the newest lines."""
        return list(self._lines)[-count:] if count > 0 else []

    def set_level(self, level: str) -> None:
        """Log from this level on, until the next start."""
        number = logging.getLevelNamesMapping()[level.upper()]
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
        self.level = level

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Listen to the log for a while."""
        before = structlog.get_config()
        *processors, renderer = before["processors"]
        handler = _Handler(self)
        structlog.configure(processors=[*processors, self._note, renderer])
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)
            structlog.configure(processors=before["processors"])

    def _note(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        self.note(event)
        return event

    def note(self, event: MutableMapping[str, Any]) -> None:
        """Keep an event as one bounded line."""
        clean = hide_secrets(None, "", dict(event))
        self._lines.append(json.dumps(clean, default=str)[:MAX_LINE_CHARACTERS])


class _Handler(logging.Handler):
    """What libraries log."""

    def __init__(self, tail: LogTail) -> None:
        super().__init__(logging.WARNING)
        self._tail = tail

    def emit(self, record: logging.LogRecord) -> None:
        self._tail.note({"event": record.getMessage(), "level": record.levelname.lower()})

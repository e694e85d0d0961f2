"""The settlement settings that are in force now: the file's, and over them what operators have set.

The loops ask `now` and `queue_mode` at each use and keep no copy, so a change takes effect without
a restart. Changes are rows of the ledger, made by this process or another; `look` reads them. What
the rows may hold is the business of `tuning`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import structlog
from sqlalchemy import Connection

from taprail_gateway.ledger import actions
from taprail_gateway.ledger.alerts import clear_alerts, raise_alerts
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle import tuning
from taprail_gateway.settle.settings import SettlementSettings

LOOK_EVERY_S: Final = 0.5
"""So that a change by another process is in force within a second."""

QUEUE_MODE: Final = "queue_mode"
"""The row of the settings table that holds the mode."""

PASSED_OVER_ALERT: Final = "setting"

_log = structlog.get_logger("settle.settings")


class QueueMode(StrEnum):
    """What the gateway takes on."""

    RUNNING = "running"
    PAUSED = "paused"
    """Accepts, and binds nothing new; what is bound goes on."""
    DRAINING = "draining"
    """Accepts nothing new, and finishes what it has."""


class LiveSettings:
    """Holds what is in force. A row that does not hold is passed over with an alert, never fatal:
    an older program may have written it."""

    def __init__(self, base: SettlementSettings) -> None:
        self.base = base
        """What the configuration file says."""
        self.now = base
        self.queue_mode = QueueMode.RUNNING
        self._rows: dict[str, Any] | None = None
        self._looking = asyncio.Lock()

    async def look(self, ledger: Ledger) -> bool:
        """Bring it up to what the ledger holds; whether anything is new. Raises StorageError."""
        # One after the other: an older answer must not come in after a newer one.
        async with self._looking:
            rows = await ledger.read(actions.stored_settings)
            if rows == self._rows:
                return False
            passed_over = self.adopt(rows)
            await ledger.write(lambda c: _tell(c, passed_over, ledger.clock.now_ms()))
            self._rows = rows
            return True

    def adopt(self, rows: Mapping[str, Any]) -> dict[str, str]:
        """Take over what operators have set; gives what had to be passed over, and why."""
        tuned = {name: value for name, value in rows.items() if name != QUEUE_MODE}
        self.now, passed_over = tuning.overlay(self.base, tuned)
        mode = rows.get(QUEUE_MODE, QueueMode.RUNNING.value)
        if mode in list(QueueMode):
            self.queue_mode = QueueMode(mode)
        else:
            self.queue_mode = QueueMode.RUNNING
            passed_over[QUEUE_MODE] = f"must be one of {', '.join(QueueMode)}"
        tell = _log.info if rows else _log.debug  # at start usually nothing is set
        tell("settle.settings", set=dict(rows), queue_mode=str(self.queue_mode))
        for name, why in passed_over.items():
            _log.error("settle.setting_passed_over", name=name, reason=why)
        return passed_over


def _tell(connection: Connection, passed_over: Mapping[str, str], at_ms: int) -> None:
    cured = [name for name in (*tuning.names(), QUEUE_MODE) if name not in passed_over]
    clear_alerts(connection, PASSED_OVER_ALERT, cured, at_ms)
    texts = [
        (name[:100], f"what is set for {name} is passed over, it {why}: set or reset it")
        for name, why in passed_over.items()
    ]
    raise_alerts(connection, PASSED_OVER_ALERT, texts, "error", at_ms, needs_review=True)

"""The settlement settings that are in force now: the file's, and over them what operators have set.

The loops ask `now` and `queue_mode` at each use and keep no copy, so a change takes effect without
a restart. Changes are rows of the ledger, made by this process or another; `look` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import structlog
from pydantic import ValidationError

from taprail_common.errors import InputError
from taprail_gateway.ledger import actions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.settings import SettlementSettings

LOOK_EVERY_S: Final = 1.0
"""A change by another process is in force within about this time."""

QUEUE_MODE: Final = "queue_mode"
"""The row of the settings table that holds the mode."""

_log = structlog.get_logger("settle.settings")


class QueueMode(StrEnum):
    """What the gateway takes on."""

    RUNNING = "running"
    PAUSED = "paused"
    """Accepts, and binds nothing new; what is bound goes on."""
    DRAINING = "draining"
    """Accepts nothing new, and finishes what it has."""


class LiveSettings:
    """Holds what is in force. `adopt` takes over rows; a bad one is passed over, never fatal."""

    def __init__(self, base: SettlementSettings) -> None:
        self._base = base
        self._rows: dict[str, Any] = {}
        self.now = base
        self.queue_mode = QueueMode.RUNNING

    async def look(self, ledger: Ledger) -> bool:
        """Bring it up to what the ledger holds; whether anything is new. Raises StorageError."""
        return self.adopt(await ledger.read(actions.stored_settings))

    def adopt(self, rows: Mapping[str, Any]) -> bool:
        """Take over what operators have set; what an older or newer program wrote is passed by."""
        if rows == self._rows:
            return False
        self._rows = dict(rows)
        known = {name: rows[name] for name in names() if name in rows}
        try:
            self.now = checked(self._base, known)
        except InputError as exc:
            _log.error("settle.settings_refused", reason=str(exc))
        mode = rows.get(QUEUE_MODE, QueueMode.RUNNING)
        self.queue_mode = QueueMode(mode) if mode in set(QueueMode) else QueueMode.RUNNING
        _log.info("settle.settings", changed=known, queue_mode=self.queue_mode)
        return True


def names() -> list[str]:
    """The settings that may be changed at run time, in the order of the file."""
    return list(SettlementSettings.model_fields)


def checked(base: SettlementSettings, values: Mapping[str, Any]) -> SettlementSettings:
    """The base with these values; InputError names the first that does not hold, with its range."""
    unknown = sorted(set(values) - set(names()))
    if unknown:
        raise InputError(unknown[0], f"no such setting; there are {', '.join(names())}")
    try:
        return SettlementSettings.model_validate({**base.model_dump(), **values})
    except ValidationError as exc:
        first = exc.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "settings"
        raise InputError(field, first["msg"]) from exc

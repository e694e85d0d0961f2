"""Tells terminals what is wanted of them, and writes down now and then what is heard of them.

The ledger is the queue, as for charges: an operator's command in another process, or another
gateway, puts a wish into it, and every gateway tells the terminals that it has the sockets of. A
wish that nobody could be told is no loss: a terminal hears of its configuration by its next
heartbeat, and whoever waits for a diagnosis is told that the terminal is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from taprail_common.clock import rfc3339
from taprail_common.fleet_wire import DIAGNOSE_EVENT
from taprail_common.terminal_settings import CONFIG_EVENT
from taprail_gateway.api.context import Services
from taprail_gateway.ledger import fleet
from taprail_gateway.ledger.fleet import Diagnosis

_LOOK_EVERY_MS: Final = 1_000
_LATE_MS: Final = 10_000
"""How much later than its time a change may become visible: other clocks differ, and other
processes' transactions take a while."""

_RETRY_S: Final = 1.0

_log = structlog.get_logger("fleet")

ToTerminal = Callable[[str, str, Mapping[str, object]], Awaitable[None]]


class FleetNews:
    """One task, `run`. `present` are the terminals whose sockets are here."""

    def __init__(
        self, services: Services, present: Callable[[], Collection[str]], to_terminal: ToTerminal
    ) -> None:
        self._services = services
        self._present = present
        self._to_terminal = to_terminal
        self._bell = services.wakeups.fleet.listen()
        self._told: dict[tuple[str, object], int] = {}  # what was told, and when

    async def run(self) -> None:
        """Until cancelled: a failure is logged, and the next look is a second later."""
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - a supervised loop: nobody else would hear of it
                _log.exception("fleet.behind")
                await asyncio.sleep(_RETRY_S)
            await self._bell.wait(_LOOK_EVERY_MS)

    async def look(self) -> None:
        """Write the heartbeats that are due, and tell who is here what is wanted of them."""
        await self._write_beats()
        here = self._present()
        if not here:
            return
        now_ms = self._services.clock.now_ms()
        wishes, asked = await self._services.ledger.read(
            partial(_news, present=here, now_ms=now_ms)
        )
        for terminal_id, version in wishes:
            if terminal_id in here and self._is_news((terminal_id, version), now_ms):
                await self._to_terminal(terminal_id, CONFIG_EVENT, {"version": version})
        for each in asked:
            if self._is_news((each.terminal_id, each.id), now_ms):
                await self._ask(each, now_ms)
        self._forget(now_ms - 2 * fleet.DIAGNOSED_WITHIN_MS)

    async def _ask(self, asked: Diagnosis, now_ms: int) -> None:
        body = {"diagnosisId": asked.id, "deadline": rfc3339(asked.deadline_ms)}
        await self._to_terminal(asked.terminal_id, DIAGNOSE_EVENT, body)
        await self._services.ledger.write(partial(fleet.told, asked=asked, now_ms=now_ms))

    async def _write_beats(self) -> None:
        beats = self._services.heartbeats
        due = beats.due()
        if due:
            await self._services.ledger.write(partial(fleet.write_beats, beats=due))
            beats.wrote(due)

    def _is_news(self, what: tuple[str, object], now_ms: int) -> bool:
        is_known = what in self._told
        self._told[what] = now_ms
        return not is_known

    def _forget(self, before_ms: int) -> None:
        for what in [what for what, at_ms in self._told.items() if at_ms < before_ms]:
            del self._told[what]


def _news(
    connection: Connection, *, present: Collection[str], now_ms: int
) -> tuple[list[tuple[str, int]], list[Diagnosis]]:
    wishes = fleet.wanted_since(connection, now_ms - _LATE_MS)
    return wishes, fleet.untold(connection, present, now_ms)

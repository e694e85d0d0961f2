"""Looks into the ledger for what rings no bell here: new alerts, terminals that were revoked or
frozen, users who were frozen, tokens that were revoked.

A command in another process may do each. All are looked for at a steady pace, by queries that
cost the same however long the past is; who is shut out by a gateway is looked for at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import fields
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection, bindparam, func, select

from taprail_gateway.ledger import issued_tokens, schema
from taprail_gateway.ledger.alerts import Alert
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.wakeups import Listener

LOOK_EVERY_MS: Final = 500
"""The longest that who is shut out hears what they should not, beside the time of a read."""

_RETRY_S: Final = 0.5

_MOST: Final = 100
_LATE: Final = 100
"""Numbers that may yet come behind the newest: writers on PostgreSQL commit out of turn."""

_LATE_MS: Final = 10_000
"""How much later than its time it may become visible that somebody was shut out, clocks and
transactions considered."""

_a, _t = schema.alerts.c, schema.terminals.c
_NEWEST: Final = select(func.max(_a.id))
_RAISED: Final = (
    select(*(_a[field.name] for field in fields(Alert)))
    .where(_a.id > bindparam("after"))
    .order_by(_a.id)
    .limit(_LATE + _MOST)
)
_ACTIVE: Final = select(_t.id).where(
    _t.id.in_(bindparam("ids", expanding=True)), schema.terminal_status == "active"
)

_u = schema.users.c
_FROZEN: Final = select(_u.id).where(_u.frozen_at_ms >= bindparam("since_ms"))

_log = structlog.get_logger("push")


class Watch:
    """One task: `run`. It tells of alerts raised from now on, whose sockets are to be closed, and
    that time has passed."""

    def __init__(
        self,
        ledger: Ledger,
        bell: Listener,
        *,
        terminals: Callable[[], Collection[str]],
        on_alert: Callable[[Alert], None],
        on_shut_out: Callable[[str, str], None],
        on_look: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._bell = bell
        self._terminals = terminals
        self._on_alert = on_alert
        self._on_shut_out = on_shut_out
        self._on_look = on_look
        self._newest: int | None = None
        self._told: set[int] = set()
        self._looked_at_ms: int | None = None

    async def run(self) -> None:
        """Until cancelled; what cannot be read now is read at the next look."""
        while True:
            try:
                self._on_look()
                await self._look()
            except Exception:  # noqa: BLE001 - a supervised loop: nobody else would hear of it
                _log.exception("push.watch_failed")
                await asyncio.sleep(_RETRY_S)
            await self._bell.wait(LOOK_EVERY_MS)

    def wake(self) -> None:
        """Look now: another gateway has shut somebody out."""
        self._bell.ring()

    async def _look(self) -> None:
        if self._newest is None:
            self._newest = await self._ledger.read(_newest)
            self._told = set(range(self._newest - _LATE, self._newest + 1))
        connected = list(self._terminals())
        now_ms = self._ledger.clock.now_ms()
        # From the last look that came through on: a ledger may be out of reach for longer.
        since_ms = (self._looked_at_ms or now_ms) - _LATE_MS
        raised, active, shut_out = await self._ledger.read(
            partial(_changes, after=self._newest - _LATE, connected=connected, since_ms=since_ms)
        )
        self._looked_at_ms = now_ms
        shut_out += [f"terminal:{terminal_id}" for terminal_id in set(connected) - active]
        for whose in shut_out:
            self._on_shut_out(whose, "shut out")
        for alert in raised:
            if alert.id not in self._told:
                self._told.add(alert.id)
                self._on_alert(alert)
        self._newest = max([self._newest, *(alert.id for alert in raised)])
        self._told = {number for number in self._told if number > self._newest - _LATE}


def _newest(connection: Connection) -> int:
    return int(connection.scalar(_NEWEST) or 0)


def _changes(
    connection: Connection, *, after: int, connected: list[str], since_ms: int
) -> tuple[list[Alert], set[str], list[str]]:
    """The alerts after a number, which of the terminals may stay, and who was shut out lately."""
    active = set(connection.scalars(_ACTIVE, {"ids": connected})) if connected else set()
    raised = connection.execute(_RAISED, {"after": after}).mappings()
    alerts = [Alert(**{**row, "needs_review": bool(row["needs_review"])}) for row in raised]
    frozen = connection.scalars(_FROZEN, {"since_ms": since_ms})
    revoked = issued_tokens.revoked_since(connection, since_ms)
    shut_out = [*(f"user:{each}" for each in frozen), *(f"token:{each}" for each in revoked)]
    return alerts, active, shut_out

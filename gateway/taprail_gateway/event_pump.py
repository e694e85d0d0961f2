"""Reads what happened to payments from the ledger, in order, and hands it on.

The ledger's event table is the queue: nothing is kept in memory but the place up to which it was
read. Acceptances are left out, because whoever asked was answered directly. What happened before a
start is not told again: a listener that was away asks for the current state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection, bindparam, select

from taprail_gateway.ledger import queries, schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.transitions import ACCEPTED
from taprail_gateway.payment_view import PAYMENT_COLUMNS, PAYMENTS_WITH_MERCHANT, PaymentView
from taprail_gateway.wakeups import Wakeups

_PAGE: Final = 500
_LOOK_EVERY_MS: Final = 1_000
"""The longest that news waits when nobody rang."""

_GATHER_S: Final = 0.005
"""Bells of one burst are answered together; a tenth of what a listener may wait (50 ms)."""

_RETRY_S: Final = 1.0

_e = schema.payment_events.c
_EVENTS: Final = (
    select(_e.seq, _e.event, _e.state.label("new_state"), _e.at_ms, *PAYMENT_COLUMNS)
    .select_from(
        schema.payment_events.join(PAYMENTS_WITH_MERCHANT, _e.payment_id == schema.payments.c.id)
    )
    .where(_e.seq > bindparam("after"), _e.seq <= bindparam("last"), _e.event != ACCEPTED)
    .order_by(_e.seq)
    .limit(_PAGE)
)

_log = structlog.get_logger("push")


@dataclass(frozen=True, slots=True)
class News:
    """A step of a payment: the state that it led to then, and the payment as it is now."""

    event: str
    state: str
    at_ms: int
    payment: PaymentView


class EventPump:
    """Calls `tell` with the news of each page, in order. One task: `run`."""

    def __init__(
        self,
        ledger: Ledger,
        wakeups: Wakeups,
        tell: Callable[[Sequence[News]], Awaitable[None]],
    ) -> None:
        self._ledger = ledger
        self._bell = wakeups.events.listen()
        self._tell = tell
        self._seen: int | None = None

    async def run(self) -> None:
        """Until cancelled: a failure is logged, and the next look is a second later."""
        while True:
            try:
                await self._catch_up()
            except Exception:  # noqa: BLE001 - a supervised loop: nobody else would hear of it
                _log.exception("push.behind")
                await asyncio.sleep(_RETRY_S)
            await self._bell.wait(_LOOK_EVERY_MS)
            await asyncio.sleep(_GATHER_S)

    async def _catch_up(self) -> None:
        if self._seen is None:
            self._seen = await self._ledger.read(queries.last_event_seq)
        seen, more = self._seen, True
        while more:
            seen, news = await self._ledger.read(partial(_page, after=seen))
            # The place moves on first: news that cannot be told must not be in the way of others.
            self._seen = seen
            more = len(news) == _PAGE
            if news:
                await self._tell(news)


def _page(connection: Connection, after: int) -> tuple[int, list[News]]:
    """The next news, and the place up to which that is everything."""
    last = queries.last_event_seq(connection)
    if last <= after:
        return after, []
    rows = connection.execute(_EVENTS, {"after": after, "last": last}).all()
    news = [_news(dict(row._mapping)) for row in rows]
    return (rows[-1].seq if len(rows) == _PAGE else last), news


def _news(columns: dict[str, object]) -> News:
    columns.pop("seq")
    event, state, at_ms = (columns.pop(name) for name in ("event", "new_state", "at_ms"))
    payment = PaymentView(**columns)  # type: ignore[arg-type]  # a row's types are the table's
    return News(str(event), str(state), int(str(at_ms)), payment)

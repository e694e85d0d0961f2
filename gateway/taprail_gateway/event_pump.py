"""Reads what happened to payments from the ledger, in order, and hands it on.

The ledger's event table is the queue: nothing is kept in memory but the place up to which it was
read. Acceptances are left out, because whoever asked was answered directly. What happened before a
start is not told again: a listener that was away asks for the current state.

Several writers on one PostgreSQL may commit in another order than they drew their numbers in. So a
number that is passed over is looked for a while longer; most of them were rolled back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

import structlog
from sqlalchemy import Connection, and_, bindparam, or_, select

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

_LATE_S: Final = 30.0
"""How long a number may be late: far longer than the ledger lets a transaction last."""

_FAR: Final = 10_000
"""Numbers of one page that are looked through: a jump must not take the thread for long."""

_MOST_MISSING: Final = 1_000
"""Numbers that are looked for at once; a burst of rollbacks must not grow without end."""

_e = schema.payment_events.c
_NUMBERS: Final = select(_e.seq).where(_e.seq > bindparam("after")).order_by(_e.seq).limit(_PAGE)
_EVENTS: Final = (
    select(_e.seq, _e.event, _e.state.label("new_state"), _e.at_ms, *PAYMENT_COLUMNS)
    .select_from(
        schema.payment_events.join(PAYMENTS_WITH_MERCHANT, _e.payment_id == schema.payments.c.id)
    )
    .where(
        or_(
            and_(_e.seq > bindparam("after"), _e.seq <= bindparam("last")),
            _e.seq.in_(bindparam("missing", expanding=True)),
        ),
        _e.event != ACCEPTED,
    )
    .order_by(_e.seq)
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
    """Calls `tell` with the news of each page, in order. One task: `run`.

    It begins after the event of that number, or with what is new when it starts to run.
    """

    def __init__(
        self,
        ledger: Ledger,
        wakeups: Wakeups,
        tell: Callable[[Sequence[News]], Awaitable[None]],
        *,
        after: int | None = None,
    ) -> None:
        self._ledger = ledger
        self._bell = wakeups.events.listen()
        self._tell = tell
        self._clock = ledger.clock
        self._seen = after
        self._missing: dict[int, float] = {}

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
        more = True
        while more:
            page = await self._ledger.read(
                partial(_page, after=self._seen, missing=list(self._missing))
            )
            # The place moves on first: news that cannot be told must not be in the way of others.
            more = page.last - self._seen >= _PAGE
            self._seen = page.last
            self._note_missing(page)
            if page.news:
                await self._tell(page.news)

    def _note_missing(self, page: _Page) -> None:
        now_s = self._clock.monotonic_s()
        for seq in page.found:
            self._missing.pop(seq, None)
        for seq in page.passed_over[: _MOST_MISSING - len(self._missing)]:
            self._missing[seq] = now_s
        for seq in [seq for seq, since_s in self._missing.items() if now_s - since_s > _LATE_S]:
            del self._missing[seq]


@dataclass(frozen=True, slots=True)
class _Page:
    """What was read: the news, the place up to which it goes, and the numbers in between that were
    not there."""

    last: int
    news: list[News]
    found: list[int]
    passed_over: list[int]


def _page(connection: Connection, *, after: int, missing: list[int]) -> _Page:
    numbers = list(connection.execute(_NUMBERS, {"after": after}).scalars())
    last = numbers[-1] if numbers else after
    if not numbers and not missing:
        return _Page(last, [], [], [])
    there = set(numbers)
    late = list(connection.scalars(select(_e.seq).where(_e.seq.in_(missing)))) if missing else []
    asked = {"after": after, "last": last, "missing": late}
    rows = connection.execute(_EVENTS, asked)
    news = [_news(dict(row._mapping)) for row in rows]
    passed_over = [seq for seq in islice(range(after + 1, last), _FAR) if seq not in there]
    return _Page(last, news, late, passed_over)


def _news(columns: dict[str, object]) -> News:
    columns.pop("seq")
    event, state, at_ms = (columns.pop(name) for name in ("event", "new_state", "at_ms"))
    payment = PaymentView(**columns)  # type: ignore[arg-type]  # a row's types are the table's
    return News(str(event), str(state), int(str(at_ms)), payment)

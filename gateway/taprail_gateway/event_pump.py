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
from typing import Any, Final

import structlog
from sqlalchemy import Connection, and_, bindparam, or_, select

from taprail_gateway.ledger import queries, schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.transitions import ACCEPTED
from taprail_gateway.payment_view import PAYMENT_COLUMNS, PAYMENTS_WITH_MERCHANT, PaymentView
from taprail_gateway.push_cursor import Cursor, ranges
from taprail_gateway.wakeups import Wakeups

_PAGE: Final = 500
_LOOK_EVERY_MS: Final = 1_000
"""The longest that news waits when nobody rang."""

_GATHER_S: Final = 0.005
"""Between two looks: the first bell of a burst is answered at once, the others together."""

_RETRY_S: Final = 1.0

_LATE_S: Final = 30.0
"""How long a number may be late: far longer than the ledger lets a transaction last."""

_FAR: Final = 10_000
"""Numbers of one page that are looked through: a jump must not take the thread for long."""

_MOST_MISSING: Final = 1_000
"""Numbers that are looked for at once; a burst of rollbacks must not grow without end."""

_e = schema.payment_events.c
_NUMBERS: Final = select(_e.seq).where(_e.seq > bindparam("after")).order_by(_e.seq).limit(_PAGE)
STEP_COLUMNS: Final = (
    *(_e.seq, _e.event, _e.state.label("new_state"), _e.at_ms),
    *PAYMENT_COLUMNS,
)
STEPS: Final = schema.payment_events.join(
    PAYMENTS_WITH_MERCHANT, _e.payment_id == schema.payments.c.id
)
_EVENTS: Final = (
    select(*STEP_COLUMNS)
    .select_from(STEPS)
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
    """A step of a payment: the state that it led to then, and the payment as it is now.

    The cursor is the place after it, for who wants to be told later what came next.
    """

    seq: int
    cursor: str
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

    @property
    def place(self) -> Cursor:
        """Up to where everything was told, once there was a first look."""
        return Cursor.at(self._seen or 0, ranges(self._missing))

    def has_told(self, seq: int) -> bool:
        """Whether a step was told: no such step is told again."""
        return self._seen is not None and seq <= self._seen and seq not in self._missing

    def look(self) -> None:
        """Look now: somebody knows of something new."""
        self._bell.ring()

    async def run(self) -> None:
        """Until cancelled: a failure is logged, and the next look is a second later."""
        while True:
            try:
                await self._catch_up()
            except Exception:  # noqa: BLE001 - a supervised loop: nobody else would hear of it
                _log.exception("push.behind")
                await asyncio.sleep(_RETRY_S)
            await asyncio.sleep(_GATHER_S)
            await self._bell.wait(_LOOK_EVERY_MS)

    async def begin(self) -> int:
        """The place, which is the newest step when nothing was told yet."""
        if self._seen is None:
            newest = await self._ledger.read(queries.last_event_seq)
            self._seen = newest if self._seen is None else self._seen  # whoever was quicker
        return self._seen

    async def _catch_up(self) -> None:
        seen = await self.begin()
        more = True
        while more:
            page = await self._ledger.read(
                partial(_page, after=seen, missing=sorted(self._missing))
            )
            # The place moves on first: news that cannot be told must not be in the way of others.
            more = page.last - seen >= _PAGE
            self._seen = seen = page.last
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
    rows = [dict(row._mapping) for row in connection.execute(_EVENTS, asked)]
    passed_over = [seq for seq in islice(range(after + 1, last), _FAR) if seq not in there]
    still = ranges([*(set(missing) - set(late)), *passed_over])
    news = [
        as_news(row, Cursor.at(row["seq"], still))
        if row["seq"] > after
        # It came late: the place stays where it was, with a gap less.
        else as_news(row, Cursor.at(after, ranges(set(missing) - _until(late, row["seq"]))))
        for row in rows
    ]
    return _Page(last, news, late, passed_over)


def _until(late: list[int], seq: int) -> set[int]:
    return {number for number in late if number <= seq}


def as_news(columns: dict[str, Any], cursor: Cursor) -> News:
    """A row of `STEP_COLUMNS` as news."""
    event, state = str(columns.pop("event")), str(columns.pop("new_state"))
    seq, at_ms = int(columns.pop("seq")), int(columns.pop("at_ms"))
    return News(seq, str(cursor), event, state, at_ms, PaymentView(**columns))

"""The outbox: what others are to be told of payments, written in the commit of the step itself.

A row is of a kind, which names who is told, and of a state that a payment has come to. There is one
row for each kind, payment and state, for ever: a payment that a reorg takes back and that completes
again is not told of twice. Which kinds want which states is noted in the ledger, so whoever takes
the step, a gateway or a command, writes the same rows. Handing them on is the dispatcher's business
(`callbacks`); it calls what is below the line, under its lease.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    delete,
    exists,
    func,
    insert,
    null,
    select,
    update,
)

from taprail_common.payment_state import PaymentEvent, PaymentState, target_of
from taprail_gateway.backoff import Backoff
from taprail_gateway.ledger.alerts import raise_alert
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.prepared import Prepared, prepared
from taprail_gateway.ledger.schema import callback_is_waiting, callbacks, meta
from taprail_gateway.ledger.schema_base import literal
from taprail_gateway.ledger.upserts import Insert, Upsert

TOLD: Final = frozenset(
    {PaymentState.COMPLETED, PaymentState.FAILED, PaymentState.CONFIRMATION_FAILED}
)
"""The states that anybody may want to be told of."""

DEAD_ALERT: Final = "callback_dead"
"""The kind of the alert about a row that was given up."""

MAX_ERROR: Final = 500
"""Characters kept of why a handler failed: part of it may be a stranger's answer."""

MAX_TRIES: Final = 15
"""Of one row: with the waits below about an hour passes on average, and two at most."""

BACKOFF: Final = Backoff(first_ms=1_000, longest_ms=30 * 60_000)

_META: Final = "callbacks:"

_c = callbacks.c


@dataclass(frozen=True, slots=True)
class Callback:
    """A row that waits: what its handler is told."""

    id: int
    kind: str
    payment_id: str
    state: PaymentState
    tries: int
    created_at_ms: int

    @property
    def about(self) -> str:
        """The payment, for the log."""
        return self.payment_id


def enable(connection: Connection, wanted: Mapping[str, Collection[PaymentState]]) -> None:
    """Note which kinds are told of which states from now on; what is written already stays."""
    connection.execute(delete(meta).where(meta.c.key.startswith(_META)))
    for state in sorted(TOLD):
        kinds = sorted(kind for kind, states in wanted.items() if state in states)
        if kinds:
            connection.execute(insert(meta).values(key=_META + state, value=" ".join(kinds)))


def follow(
    connection: Connection, event: PaymentEvent, payment_ids: Sequence[str], at_ms: int
) -> None:
    """Write the rows that a step asks for; where nobody is to be told it is one small question."""
    state = target_of(event)
    if state not in TOLD:
        return
    rows = [
        {"kind": kind, "payment_id": each, "state": state.value, "at_ms": at_ms}
        for kind in kinds_of(connection, state)
        for each in payment_ids
    ]
    if rows:
        _WRITE.run_each(connection, rows)


def kinds_of(connection: Connection, state: PaymentState) -> list[str]:
    """Which kinds are told of a state."""
    return str(_KINDS.value(connection, {"which": _META + state}) or "").split()


def _write(insert_: Insert) -> Insert:
    return insert_.values(
        kind=bindparam("kind"),
        payment_id=bindparam("payment_id"),
        state=bindparam("state"),
        status=literal("waiting"),
        due_at_ms=bindparam("at_ms"),
        created_at_ms=bindparam("at_ms"),
    ).on_conflict_do_nothing(index_elements=["kind", "payment_id", "state"])


_KINDS: Final = prepared(select(meta.c.value).where(meta.c.key == bindparam("which")))
_WRITE: Final = Prepared(Upsert(callbacks, _write).statement)


# --- for the dispatcher -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallbackQueue:
    """The rows of one kind, as a line of the dispatcher wants them."""

    name: str
    max_tries: int = MAX_TRIES
    backoff: Backoff = BACKOFF

    def due(self, connection: Connection, now_ms: int, limit: int) -> list[Callback]:
        """See `due` below."""
        return due(connection, self.name, now_ms, limit)

    def next_due_ms(self, connection: Connection, after_ms: int) -> int | None:
        """See `next_due_ms` below."""
        return next_due_ms(connection, self.name, after_ms)

    def finish(self, connection: Connection, row_ids: Sequence[int], at_ms: int) -> None:
        """See `finish` below."""
        finish(connection, row_ids, at_ms)

    def put_off(self, connection: Connection, row: Callback, due_at_ms: int, error: str) -> None:
        """See `put_off` below."""
        put_off(connection, row, due_at_ms, error)

    def bury(self, connection: Connection, row: Callback, at_ms: int, error: str) -> None:
        """See `bury` below."""
        bury(connection, row, at_ms, error)


def due(connection: Connection, kind: str, now_ms: int, limit: int) -> list[Callback]:
    """Rows to be handed on now, in order; of one payment only the first that waits."""
    statement = (
        select(*(_c[field.name] for field in fields(Callback)))
        .where(_is_next(kind), _c.due_at_ms <= now_ms)
        .order_by(_c.due_at_ms, _c.id)
        .limit(limit)
    )
    rows = connection.execute(statement).mappings()
    return [Callback(**{**row, "state": PaymentState(row["state"])}) for row in rows]


def next_due_ms(connection: Connection, kind: str, after_ms: int) -> int | None:
    """When the next row is due that is not yet; None when none is to come."""
    later = select(func.min(_c.due_at_ms)).where(_is_next(kind), _c.due_at_ms > after_ms)
    return connection.execute(later).scalar()


def finish(connection: Connection, callback_ids: Sequence[int], at_ms: int) -> None:
    """Note that these were handed on; GuardError unless all of them waited."""
    rows = [{"which": each, "at_ms": at_ms} for each in callback_ids]
    if rows and _FINISH.run_each(connection, rows) != len(rows):
        raise GuardError("not all of these callbacks are waiting", callback_ids)


def put_off(connection: Connection, callback: Callback, due_at_ms: int, error: str) -> None:
    """Note a failure, and when to try again."""
    _change(connection, callback, due_at_ms=due_at_ms, last_error=error[:MAX_ERROR])


def bury(connection: Connection, callback: Callback, at_ms: int, error: str) -> None:
    """Give a row up, with an alert: a person has to look."""
    error = error[:MAX_ERROR]
    _change(connection, callback, status="dead", finished_at_ms=at_ms, last_error=error)
    subject = f"{callback.kind}:{callback.payment_id}"
    text = f"a {callback.kind} callback was given up after {callback.tries + 1} tries: {error}"
    raise_alert(connection, DEAD_ALERT, subject, "error", text, at_ms, needs_review=True)


def _change(connection: Connection, callback: Callback, **values: object) -> None:
    statement = update(callbacks).where(_c.id == callback.id, callback_is_waiting)
    if connection.execute(statement.values(tries=callback.tries + 1, **values)).rowcount != 1:
        raise GuardError("this callback does not wait", [callback.id])


def _is_next(kind: str) -> ColumnElement[bool]:
    """Waits, and nothing earlier of its payment does: what is told of one comes in its order."""
    earlier = callbacks.alias()
    before = exists().where(
        earlier.c.kind == _c.kind,
        earlier.c.payment_id == _c.payment_id,
        earlier.c.id < _c.id,
        earlier.c.status == "waiting",
    )
    return (_c.kind == kind) & callback_is_waiting & ~before


_FINISH: Final = prepared(
    update(callbacks)
    .where(_c.id == bindparam("which"), callback_is_waiting)
    .values(status=literal("done"), finished_at_ms=bindparam("at_ms"), last_error=null())
)

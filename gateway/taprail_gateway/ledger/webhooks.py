"""Endpoints of merchants, and the queue of what they are told.

A delivery is written in the commit of what it tells of; its body never changes. Of one payment and
endpoint the deliveries go out one after the other, in the order in which they were written: one
that waits holds up the later ones, one that was given up does not. All functions work inside the
caller's transaction; handing deliveries on is the dispatcher's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Final

from sqlalchemy import ColumnElement, Connection, case, exists, func, insert, select, update

from taprail_common.errors import InputError, OperatorError
from taprail_common.ids import new_id
from taprail_gateway.ledger.alerts import clear_alert, raise_alert
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.schema import payments
from taprail_gateway.ledger.schema_webhooks import (
    delivery_is_waiting,
    webhook_deliveries,
    webhook_endpoints,
)

MAX_ENDPOINTS: Final = 5
"""Of one merchant: each costs a delivery for every step of every payment."""

MAX_OF_ENDPOINT: Final = 4
"""Deliveries that go to one endpoint at the same time."""

MAX_OF_FAILING: Final = 1
"""The same while the endpoint has not taken something: it holds up its own, and nobody else's."""

DEAD_ALERT: Final = "webhook_dead"
MAX_ERROR: Final = 500
MAX_REPLAYED: Final = 10_000

_e = webhook_endpoints.c
_d = webhook_deliveries.c


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a merchant wants to be told; the secrets are wrapped, and never shown."""

    id: str
    merchant_id: str
    url: str
    status: str
    created_at_ms: int
    wrapped_secret: bytes = field(repr=False)
    wrapped_old_secret: bytes | None = field(repr=False, default=None)
    old_secret_until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something that an endpoint is to be told."""

    id: int
    endpoint_id: str
    about: str
    event: str
    body: bytes
    tries: int
    created_at_ms: int


# --- endpoints ------------------------------------------------------------------------------------


def new_endpoint_id() -> str:
    """For an endpoint that is about to be added: its secret is wrapped under this name."""
    return new_id("whk")


def add_endpoint(
    connection: Connection, endpoint_id: str, merchant_id: str, url: str, secret: bytes, at_ms: int
) -> None:
    """Add an endpoint with its wrapped secret; InputError for one too many."""
    if len(endpoints_of(connection, merchant_id)) >= MAX_ENDPOINTS:
        raise InputError("merchantId", f"has {MAX_ENDPOINTS} webhooks already; remove one first")
    connection.execute(
        insert(webhook_endpoints).values(
            id=endpoint_id,
            merchant_id=merchant_id,
            url=url,
            status="active",
            wrapped_secret=secret,
            created_at_ms=at_ms,
        )
    )


def endpoint(connection: Connection, endpoint_id: str) -> Endpoint:
    """One that is active; OperatorError when there is none."""
    found = _endpoints(connection, _e.id == endpoint_id)
    if not found:
        raise OperatorError(
            f"there is no webhook {endpoint_id}", fix="see `taprail admin webhook list`"
        )
    return found[0]


def endpoints_of(connection: Connection, merchant_id: str) -> list[Endpoint]:
    """A merchant's, the oldest first."""
    return _endpoints(connection, _e.merchant_id == merchant_id)


def merchant_of(connection: Connection, payment_id: str) -> str | None:
    """Whose payment it is; None when there is no such payment."""
    found = select(payments.c.merchant_id).where(payments.c.id == payment_id)
    return connection.execute(found).scalar()


def all_endpoints(connection: Connection) -> list[Endpoint]:
    """Everybody's, the oldest first."""
    return _endpoints(connection, _e.id.is_not(None))


def rotate(connection: Connection, endpoint_id: str, secret: bytes, old_until_ms: int) -> None:
    """A new secret; the one before signs beside it until its end, the one before that no more."""
    statement = update(webhook_endpoints).where(_e.id == endpoint_id, _e.status == "active")
    connection.execute(
        statement.values(
            wrapped_secret=secret,
            wrapped_old_secret=_e.wrapped_secret,
            old_secret_until_ms=old_until_ms,
        )
    )


def remove_endpoint(connection: Connection, endpoint_id: str, at_ms: int) -> None:
    """Tell it nothing any more; what waits for it is given up without an alert."""
    connection.execute(
        update(webhook_endpoints).where(_e.id == endpoint_id).values(status="removed")
    )
    connection.execute(
        update(webhook_deliveries)
        .where(_d.endpoint_id == endpoint_id, delivery_is_waiting)
        .values(status="dead", finished_at_ms=at_ms, last_error="the webhook was removed")
    )
    clear_alert(connection, DEAD_ALERT, endpoint_id, at_ms)


def _endpoints(connection: Connection, which: ColumnElement[bool]) -> list[Endpoint]:
    statement = (
        select(*(_e[each.name] for each in fields(Endpoint)))
        .where(which, _e.status == "active")
        .order_by(_e.created_at_ms, _e.id)
    )
    return [Endpoint(**row) for row in connection.execute(statement).mappings()]


# --- deliveries -----------------------------------------------------------------------------------


def enqueue(
    connection: Connection,
    endpoint_ids: Sequence[str],
    about: str,
    event: str,
    body: bytes,
    at_ms: int,
) -> None:
    """Write a delivery for each of these endpoints."""
    rows = [
        {
            "endpoint_id": each,
            "about": about,
            "event": event,
            "body": body,
            "status": "waiting",
            "due_at_ms": at_ms,
            "created_at_ms": at_ms,
        }
        for each in endpoint_ids
    ]
    if rows:
        connection.execute(insert(webhook_deliveries), rows)


def due(connection: Connection, now_ms: int, limit: int) -> list[Delivery]:
    """What is to go out now, in order; of one payment and endpoint the first that waits, and of
    one endpoint so many at most that one which hangs holds up nobody else's. What is under way is
    among them until it is finished or put off."""
    place = func.row_number().over(partition_by=_d.endpoint_id, order_by=(_d.due_at_ms, _d.id))
    ready = select(_d.id, place.label("place")).where(_is_next(), _d.due_at_ms <= now_ms).subquery()
    failing = select(_d.endpoint_id).where(delivery_is_waiting, _d.tries > 0).distinct().subquery()
    room = case((failing.c.endpoint_id.is_(None), MAX_OF_ENDPOINT), else_=MAX_OF_FAILING)
    statement = (
        select(*(_d[each.name] for each in fields(Delivery)))
        .join(ready, ready.c.id == _d.id)
        .outerjoin(failing, failing.c.endpoint_id == _d.endpoint_id)
        .where(ready.c.place <= room)
        .order_by(_d.due_at_ms, _d.id)
        .limit(limit)
    )
    return [Delivery(**row) for row in connection.execute(statement).mappings()]


def next_due_ms(connection: Connection, after_ms: int) -> int | None:
    """When the next one is due that is not yet; None when none is to come."""
    later = select(func.min(_d.due_at_ms)).where(_is_next(), _d.due_at_ms > after_ms)
    return connection.execute(later).scalar()


def finish(connection: Connection, delivery_ids: Sequence[int], at_ms: int) -> None:
    """Note that these were taken; GuardError unless all of them waited."""
    statement = (
        update(webhook_deliveries)
        .where(_d.id.in_(delivery_ids), delivery_is_waiting)
        .values(status="done", finished_at_ms=at_ms, last_error=None)
    )
    if connection.execute(statement).rowcount != len(delivery_ids):
        raise GuardError("not all of these deliveries are waiting", delivery_ids)


def put_off(connection: Connection, delivery: Delivery, due_at_ms: int, error: str) -> None:
    """Note a failure, and when to try again."""
    _change(connection, delivery, due_at_ms=due_at_ms, last_error=error[:MAX_ERROR])


def bury(connection: Connection, delivery: Delivery, at_ms: int, error: str) -> None:
    """Give one up, with an alert for its endpoint."""
    error = error[:MAX_ERROR]
    _change(connection, delivery, status="dead", finished_at_ms=at_ms, last_error=error)
    text = f"a webhook was not taken after {delivery.tries + 1} tries: {error}"
    subject = delivery.endpoint_id
    raise_alert(connection, DEAD_ALERT, subject, "warning", text, at_ms, needs_review=True)


def replay(connection: Connection, endpoint_id: str, since_ms: int, at_ms: int) -> int:
    """Send an endpoint again what it did not take since then, at most MAX_REPLAYED; how many."""
    chosen = (
        select(_d.id)
        .where(_d.endpoint_id == endpoint_id, _d.status == "dead", _d.created_at_ms >= since_ms)
        .order_by(_d.id)
        .limit(MAX_REPLAYED)
    )
    statement = update(webhook_deliveries).where(_d.id.in_(chosen))
    values = {"status": "waiting", "tries": 0, "due_at_ms": at_ms, "finished_at_ms": None}
    count = connection.execute(statement.values(**values)).rowcount
    clear_alert(connection, DEAD_ALERT, endpoint_id, at_ms)
    return count


def counts(connection: Connection) -> dict[str, int]:
    """How many deliveries wait and how many were given up."""
    statement = (
        select(_d.status, func.count())
        .where(_d.status.in_(["waiting", "dead"]))
        .group_by(_d.status)
    )
    return {str(row[0]): int(row[1]) for row in connection.execute(statement)}


def _change(connection: Connection, delivery: Delivery, **values: object) -> None:
    statement = update(webhook_deliveries).where(_d.id == delivery.id, delivery_is_waiting)
    if connection.execute(statement.values(tries=delivery.tries + 1, **values)).rowcount != 1:
        raise GuardError("this delivery does not wait", [delivery.id])


def _is_next() -> ColumnElement[bool]:
    earlier = webhook_deliveries.alias()
    before = exists().where(
        earlier.c.endpoint_id == _d.endpoint_id,
        earlier.c.about == _d.about,
        earlier.c.id < _d.id,
        earlier.c.status == "waiting",
    )
    return delivery_is_waiting & ~before

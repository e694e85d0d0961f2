"""What a person should look at: raised once, open until it is cured or somebody has cleared it.

An alert is about a subject (a payment's id, a lane's address …) and of a kind. There is one open
alert for both together at most, so whoever sees the same trouble at every pass may say so at every
pass. Each function works inside the caller's transaction: an alert is as durable as its cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Literal

from sqlalchemy import Connection, bindparam, exists, select, update

from taprail_common.api.office import MAX_ALERT_ID, MAX_ALERTS
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.prepared import Prepared, prepared
from taprail_gateway.ledger.schema import alert_is_open, alerts
from taprail_gateway.ledger.upserts import Insert, Upsert

CURED: Final = "cured"
"""Who cleared an alert whose cause is gone: nobody had to."""

MAX_TEXT: Final = 1_000
"""Characters kept of an alert's text: part of it may be what a node has said."""

MAX_LISTED: Final = MAX_ALERTS

MAX_ID: Final = MAX_ALERT_ID

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; the columns of `alerts`."""

    id: int
    kind: str
    subject: str
    level: str
    text: str
    needs_review: bool
    raised_at_ms: int
    cleared_at_ms: int | None
    cleared_by: str | None


def raise_alert(
    connection: Connection,
    kind: str,
    subject: str,
    level: Level,
    text: str,
    at_ms: int,
    needs_review: bool = False,
) -> bool:
    """Raise an alert; False, and nothing changed, when the like is open already."""
    row = _row(kind, subject, level, text, at_ms, needs_review)
    return _RAISE.run(connection, row) == 1


def raise_alerts(
    connection: Connection,
    kind: str,
    texts: Sequence[tuple[str, str]],
    level: Level,
    at_ms: int,
    needs_review: bool = False,
) -> None:
    """The same for many subjects, each with its text."""
    rows = [_row(kind, subject, level, text, at_ms, needs_review) for subject, text in texts]
    if rows:
        _RAISE.run_each(connection, rows)


def clear_alert(
    connection: Connection, kind: str, subject: str, at_ms: int, by: str = CURED
) -> bool:
    """Clear the open alert of this kind about a subject; False when there is none."""
    row = {"at_ms": at_ms, "by": by, "which_kind": kind, "which_subject": subject}
    return _CLEAR.run(connection, row) == 1


def clear_alerts(connection: Connection, kind: str, subjects: Sequence[str], at_ms: int) -> None:
    """The same for many subjects. When nothing of the kind is open, it asks for that alone."""
    if not subjects or not _ANY_OPEN.value(connection, {"which_kind": kind}):
        return
    same = {"at_ms": at_ms, "by": CURED, "which_kind": kind}
    _CLEAR.run_each(connection, [{**same, "which_subject": each} for each in subjects])


def close_alert(connection: Connection, alert_id: int, at_ms: int, by: str) -> None:
    """Clear an alert by its number, for somebody who has looked; GuardError when none is open."""
    statement = update(alerts).where(alerts.c.id == alert_id, alert_is_open)
    if connection.execute(statement.values(cleared_at_ms=at_ms, cleared_by=by)).rowcount != 1:
        raise GuardError("no such alert is open", [alert_id])


def open_alerts(
    connection: Connection, limit: int = MAX_LISTED, *, only_review: bool = False
) -> list[Alert]:
    """What a person should look at, the oldest first; or only what is flagged for review."""
    statement = (
        select(*(alerts.c[field.name] for field in fields(Alert)))
        .where(alert_is_open, alerts.c.needs_review >= int(only_review))
        .order_by(alerts.c.raised_at_ms, alerts.c.id)
        .limit(limit)
    )
    rows = connection.execute(statement).mappings()
    return [Alert(**{**row, "needs_review": bool(row["needs_review"])}) for row in rows]


def _row(
    kind: str, subject: str, level: Level, text: str, at_ms: int, needs_review: bool
) -> dict[str, object]:
    return {
        "kind": kind,
        "subject": subject,
        "level": level,
        "text": text[:MAX_TEXT],
        "needs_review": int(needs_review),
        "raised_at_ms": at_ms,
    }


def _raise(insert: Insert) -> Insert:
    given = ("kind", "subject", "level", "text", "needs_review", "raised_at_ms")
    return insert.values({name: bindparam(name) for name in given}).on_conflict_do_nothing(
        index_elements=["kind", "subject"], index_where=alert_is_open
    )


_RAISE: Final = Prepared(Upsert(alerts, _raise).statement)
_CLEAR: Final = prepared(
    update(alerts)
    .where(
        alerts.c.kind == bindparam("which_kind"),
        alerts.c.subject == bindparam("which_subject"),
        alert_is_open,
    )
    .values(cleared_at_ms=bindparam("at_ms"), cleared_by=bindparam("by"))
)
_ANY_OPEN: Final = prepared(
    select(exists().where(alerts.c.kind == bindparam("which_kind"), alert_is_open))
)

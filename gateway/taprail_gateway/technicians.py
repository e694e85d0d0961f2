"""Field technicians in the ledger: whose keys count, and what terminals report of their changes.
Functions on a connection.

Answers for one key for a name, for a key that never counts again once it was revoked, and for
reports that are kept once, as they came first. A report that differs from what was told before, or
that names nobody who could have been let in, is kept as well, with an alert: a terminal that lies
must not be able to hide the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import Connection, func, insert, not_, or_, select, update

from taprail_common.errors import InputError, OperatorError, TapRailError
from taprail_common.ids import check_identifier
from taprail_common.signing import fingerprint, parse_public_key, public_key_text
from taprail_common.technicians import MAX_TECHNICIANS, Change, Changes, Technician
from taprail_gateway.ledger import actions, alerts
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.prepared import Prepared
from taprail_gateway.ledger.schema_technicians import (
    technician_is_active,
    technicians,
    terminal_changes,
)
from taprail_gateway.ledger.upserts import Upsert

MAX_DAILY_CHANGES: Final = 2_000
"""Of one terminal: people make a few dozen a day, and a stolen terminal must not fill the disk."""

_DAY_MS: Final = 24 * 3600 * 1000
_CLOCKS_DIFFER_MS: Final = 60_000

_t, _c = technicians.c, terminal_changes.c
_KEEP: Final = Prepared(
    Upsert(terminal_changes, lambda given: given.on_conflict_do_nothing()).statement
)


@dataclass(frozen=True, slots=True)
class Registered:
    """A technician; the columns of `technicians`."""

    name: str
    public_key: str
    issued_at_ms: int
    issued_by: str
    revoked_at_ms: int | None
    revoked_by: str | None

    @property
    def fingerprint(self) -> str:
        """What two people compare."""
        return fingerprint(parse_public_key(self.public_key))


@dataclass(frozen=True, slots=True)
class Reported:
    """A change as a terminal has told it; the columns of `terminal_changes`."""

    terminal_id: str
    journal: str
    seq: int
    made_at_ms: int
    technician: str
    command: str
    outcome: str
    received_at_ms: int


class TooManyChangesError(TapRailError):
    """A terminal tells of more changes than anybody makes."""

    code = "too_many_changes"


def issue(connection: Connection, name: str, public_key: str, by: By) -> Registered:
    """Let the holder of a key change terminals. Raises InputError or OperatorError."""
    check_identifier("technician", name)
    key = public_key_text(parse_public_key(public_key))
    same = [each for each in _found(connection) if each.public_key == key]
    if same:
        state = "is" if same[0].revoked_at_ms is None else "was revoked as"
        raise OperatorError(
            f"this key {state} technician {same[0].name!r}",
            fix="make a new one: taprail diag key make FILE",
            code="exists",
        )
    active = registered(connection)
    if any(each.name == name for each in active):
        raise OperatorError(f"technician {name!r} has a key", fix="revoke it first", code="exists")
    if len(active) >= MAX_TECHNICIANS:
        raise OperatorError(
            f"there are {len(active)} technicians, and a terminal knows no more",
            fix="revoke those who have left",
        )
    row = Registered(name, key, by.at_ms, by.actor, None, None)
    connection.execute(
        insert(technicians).values(
            name=name, public_key=key, issued_at_ms=by.at_ms, issued_by=by.actor
        )
    )
    actions.note(connection, "issue-technician", name, by, after=row.fingerprint)
    return row


def revoke(connection: Connection, name: str, by: By) -> Registered:
    """Let a technician's key count no more; gives what it was. Raises OperatorError."""
    row = show(connection, name)[0]
    gone = connection.execute(
        update(technicians)
        .where(_t.public_key == row.public_key, technician_is_active)
        .values(revoked_at_ms=by.at_ms, revoked_by=by.actor)
    )
    if gone.rowcount != 1:
        raise OperatorError(f"technician {name!r} is revoked already", code="wrong_state")
    actions.note(connection, "revoke-technician", name, by, before=row.fingerprint)
    return row


def registered(connection: Connection, *, all_ever: bool = False) -> list[Registered]:
    """Whose keys count, in the order they were issued; or all that ever did."""
    found = _found(connection)
    return [each for each in found if all_ever or each.revoked_at_ms is None]


def show(connection: Connection, name: str) -> list[Registered]:
    """All keys that somebody had, the newest first; raises OperatorError for nobody."""
    found = [each for each in _found(connection) if each.name == name][::-1]
    if not found:
        raise OperatorError(
            f"there is no technician {name!r}",
            fix="see `taprail admin technician list`",
            code="not_found",
        )
    return found


def roster(connection: Connection) -> tuple[Technician, ...]:
    """Those whom terminals are told of."""
    active = registered(connection)[:MAX_TECHNICIANS]
    return tuple(Technician(name=each.name, public_key=each.public_key) for each in active)


def keep(connection: Connection, terminal_id: str, told: Changes, by: By) -> int:
    """Keep what a terminal tells, once; gives the number of the last one that is kept.

    Raises InputError for changes that are none or not in their order, and TooManyChangesError.
    """
    numbers = [each.seq for each in told.changes]
    if not numbers or numbers != sorted(set(numbers)):
        raise InputError("changes", "must be one at least, in the order of seq")
    today = select(func.count()).where(
        _c.terminal_id == terminal_id, _c.received_at_ms > by.at_ms - _DAY_MS
    )
    if (connection.scalar(today) or 0) + len(numbers) > MAX_DAILY_CHANGES:
        raise TooManyChangesError(f"more than {MAX_DAILY_CHANGES} changes in a day")
    for change in told.changes:
        _keep_one(connection, _reported(terminal_id, told.journal, change, by.at_ms), by)
    return numbers[-1]


def reported(
    connection: Connection,
    limit: int,
    *,
    terminal_id: str | None = None,
    technician: str | None = None,
) -> list[Reported]:
    """What terminals have told, the newest first."""
    statement = select(*(_c[field.name] for field in fields(Reported)))
    if terminal_id is not None:
        statement = statement.where(_c.terminal_id == terminal_id)
    if technician is not None:
        statement = statement.where(_c.technician == technician)
    order = (_c.received_at_ms.desc(), _c.made_at_ms.desc(), _c.seq.desc())
    rows = connection.execute(statement.order_by(*order).limit(limit)).mappings()
    return [Reported(**row) for row in rows]


def _found(connection: Connection) -> Sequence[Registered]:
    names = [_t[field.name] for field in fields(Registered)]
    rows = connection.execute(select(*names).order_by(_t.id)).mappings()
    return [Registered(**row) for row in rows]


def _keep_one(connection: Connection, new: Reported, by: By) -> None:
    values = {field.name: getattr(new, field.name) for field in fields(Reported)}
    if _KEEP.run(connection, values) == 0:
        _compare(connection, new)
        return
    after = {"technician": new.technician, "command": new.command, "outcome": new.outcome}
    actions.note(connection, "report-change", new.terminal_id, by, after=after)
    if not _was_admitted(connection, new):
        text = (
            f"it tells of a change by {new.technician}, who was no technician then: {new.command}"
        )
        _alert(connection, new, text)


def _compare(connection: Connection, new: Reported) -> None:
    """What was told before stays as it is."""
    key = (_c.terminal_id == new.terminal_id, _c.journal == new.journal, _c.seq == new.seq)
    told = (_c.made_at_ms, _c.technician, _c.command, _c.outcome)
    kept = connection.execute(select(*told).where(*key)).one()
    if tuple(kept) != (new.made_at_ms, new.technician, new.command, new.outcome):
        _alert(connection, new, f"it tells change {new.seq} in another way than before")


def _was_admitted(connection: Connection, new: Reported) -> bool:
    """Whether the gateway's list let in somebody of this name then, give or take the clocks."""
    issued = _t.issued_at_ms <= new.made_at_ms + _CLOCKS_DIFFER_MS
    ended = _t.revoked_at_ms < new.made_at_ms - _CLOCKS_DIFFER_MS
    knows = select(func.count()).where(
        _t.name == new.technician, issued, or_(technician_is_active, not_(ended))
    )
    return bool(connection.scalar(knows))


def _alert(connection: Connection, new: Reported, text: str) -> None:
    at_ms = new.received_at_ms
    alerts.raise_alert(
        connection, "technician", new.terminal_id, "warning", text, at_ms, needs_review=True
    )


def _reported(terminal_id: str, journal: str, change: Change, now_ms: int) -> Reported:
    return Reported(
        terminal_id,
        journal,
        change.seq,
        change.at,
        change.technician,
        _line(change.command),
        _line(change.outcome),
        now_ms,
    )


def _line(text: str) -> str:
    """As it may be shown and stored: PostgreSQL takes no NUL, a console no escapes."""
    return "".join(each if each.isprintable() else " " for each in text)

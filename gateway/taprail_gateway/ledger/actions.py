"""What operators set and do by hand, each with who, when and why, in the commit that does it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, select

from taprail_common.api.base import MAX_REASON
from taprail_common.errors import InputError
from taprail_gateway.ledger.prepared import Prepared
from taprail_gateway.ledger.schema import operator_actions, settings
from taprail_gateway.ledger.upserts import Insert, Upsert


@dataclass(frozen=True, slots=True)
class By:
    """Who does something (a user's id, or `cli:` and the account), when, and why.

    Raises InputError for a reason that is empty, too long, or not one line of text.
    """

    actor: str
    at_ms: int
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.reason is not None and not (
            self.reason.strip() and len(self.reason) <= MAX_REASON and self.reason.isprintable()
        ):
            raise InputError("reason", f"must be one line of 1 to {MAX_REASON} characters")


@dataclass(frozen=True, slots=True)
class Action:
    """What somebody has done; `before` and `after` as they were noted, None where nothing was."""

    id: int
    at_ms: int
    actor: str
    action: str
    subject: str
    before: Any
    after: Any
    reason: str | None


def history(
    connection: Connection, limit: int, *, subjects: Collection[str] | None = None
) -> list[Action]:
    """What operators have done, the newest first; with `subjects` only about these."""
    a = operator_actions.c
    statement = select(*(a[field.name] for field in fields(Action))).order_by(a.id.desc())
    if subjects is not None:
        statement = statement.where(a.subject.in_(subjects))
    rows = connection.execute(statement.limit(limit)).mappings()
    return [
        Action(**{**row, "before": _value(row["before"]), "after": _value(row["after"])})
        for row in rows
    ]


def stored_settings(connection: Connection) -> dict[str, Any]:
    """What operators have set, by name."""
    rows = connection.execute(select(settings.c.name, settings.c.value))
    return {name: _value(text) for name, text in rows}


def _value(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:  # written by hand: given as the text that it is, which its reader refuses
        return text


def set_values(
    connection: Connection,
    values: Mapping[str, Any],
    by: By,
    *,
    was: Mapping[str, Any] | None = None,
    becomes: Mapping[str, Any] | None = None,
) -> None:
    """Set some, on record; None takes a setting back, and nothing is done where none is set.

    `was` and `becomes`: what is in force before and after, where that is more than the rows say.
    """
    stored = stored_settings(connection)
    for name, value in values.items():
        if value is None:
            if name not in stored:
                continue
            connection.execute(delete(settings).where(settings.c.name == name))
        else:
            row = {"name": name, "value": json.dumps(value), "at_ms": by.at_ms, "by": by.actor}
            _SET.run(connection, row)
        before, after = (was or stored).get(name), (becomes or values).get(name)
        action = "reset" if value is None else "set"
        note(connection, action, name, by, before=before, after=after)


def note(
    connection: Connection,
    action: str,
    subject: str,
    by: By,
    *,
    before: object = None,
    after: object = None,
) -> None:
    """Write down one thing that an operator has done."""
    connection.execute(
        insert(operator_actions).values(
            at_ms=by.at_ms,
            actor=by.actor,
            action=action,
            subject=subject,
            reason=by.reason,
            before=None if before is None else json.dumps(before),
            after=None if after is None else json.dumps(after),
        )
    )


def _set(insert_: Insert) -> Insert:
    given = insert_.values(
        name=bindparam("name"),
        value=bindparam("value"),
        changed_at_ms=bindparam("at_ms"),
        changed_by=bindparam("by"),
    )
    names = ("value", "changed_at_ms", "changed_by")
    return given.on_conflict_do_update(
        index_elements=["name"], set_={name: given.excluded[name] for name in names}
    )


_SET: Final = Prepared(Upsert(settings, _set).statement)

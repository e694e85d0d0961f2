"""`taprail admin history`: who has done what by hand, when and why."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Final, TypeAlias

import typer

from taprail_common.clock import rfc3339
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.ledger import actions

_MAX_LISTED: Final = 10_000

Limit: TypeAlias = Annotated[int, typer.Option(help="At most.", min=1, max=_MAX_LISTED)]


def history(
    context: typer.Context,
    about: Annotated[
        str | None,
        typer.Argument(help="Only about this: a payment, a lane, a setting, an alert's number."),
    ] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List what operators have done, the newest first: settings, pauses, retries, lanes, alerts."""
    subjects = None if about is None else [about, about.lower()]
    print_history(session_of(context), limit, subjects, as_json=as_json)


def print_history(
    session: Session, limit: int, subjects: Collection[str] | None, *, as_json: bool
) -> None:
    """What was done about these subjects, or at all."""
    found = session.read(partial(actions.history, limit=limit, subjects=subjects))
    if as_json:
        output.print_json([_as_json(each) for each in found])
        return
    columns = {
        "at": "when",
        "actor": "who",
        "action": "what",
        "subject": "about",
        "before": "before",
        "after": "after",
        "reason": "why",
    }
    rows = [{**asdict(each), "at": rfc3339(each.at_ms)} for each in found]
    output.listing(rows, as_json=False, columns=columns, what="action", none="Nothing was done.")


def _as_json(action: actions.Action) -> dict[str, Any]:
    row = asdict(action)
    return {"atMs": row.pop("at_ms"), **row}

"""`taprail admin alert`: what a person should look at, and that somebody has."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final

import typer
from sqlalchemy import Connection

from taprail_common.clock import rfc3339
from taprail_common.errors import OperatorError
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, session_of
from taprail_gateway.ledger import actions
from taprail_gateway.ledger import alerts as ledger_alerts
from taprail_gateway.ledger.errors import GuardError

alerts: Final = typer.Typer(help="What a person should look at.", no_args_is_help=True)


@alerts.command("list")
def list_alerts(
    context: typer.Context,
    review: Annotated[bool, typer.Option(help="Only what is flagged for manual review.")] = False,
    limit: Annotated[int, typer.Option(help="At most.", min=1, max=ledger_alerts.MAX_LISTED)] = 100,
    as_json: Json = False,
) -> None:
    """List the open alerts, the oldest first."""
    found = session_of(context).read(
        lambda connection: ledger_alerts.open_alerts(connection, limit, only_review=review)
    )
    rows = [{**asdict(alert), "at": rfc3339(alert.raised_at_ms)} for alert in found]
    if not as_json:
        for row in rows:
            row["level"] = f"{row['level']} (review)" if row["needs_review"] else row["level"]
    columns = {
        "id": "no.",
        "at": "since",
        "level": "level",
        "kind": "kind",
        "subject": "about",
        "text": "what",
    }
    output.listing(rows, as_json=as_json, columns=columns, what="alert", none="No alert is open.")


@alerts.command("clear")
def clear(
    context: typer.Context,
    number: Annotated[
        int, typer.Argument(help="The alert's number.", min=1, max=ledger_alerts.MAX_ID)
    ],
    reason: Annotated[
        str | None, typer.Option("--reason", help="What was found, for the record.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Clear an alert that was looked into. One whose cause still holds may be raised again."""
    session = session_of(context)
    by = session.by(reason)

    def work(connection: Connection) -> None:
        ledger_alerts.close_alert(connection, number, by.at_ms, by.actor)
        actions.note(connection, "clear-alert", str(number), by)

    try:
        session.write(work)
    except GuardError as exc:
        fix = "see `taprail admin alert list`"
        raise OperatorError(f"no alert {number} is open", fix=fix) from exc
    data = {"id": number, "clearedBy": by.actor}
    output.done(data, f"alert {number} is cleared", as_json=as_json)

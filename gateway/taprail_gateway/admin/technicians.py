"""`taprail admin technician`: whose keys may change terminals; and what they have changed."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection

from taprail_common.clock import rfc3339
from taprail_common.technicians import MAX_COPY_AGE_MS
from taprail_gateway import registry
from taprail_gateway import technicians as people
from taprail_gateway.admin import output
from taprail_gateway.admin.history import Limit
from taprail_gateway.admin.queue import MayReason
from taprail_gateway.admin.session import Json, session_of
from taprail_gateway.ledger import schema
from taprail_gateway.technicians import Registered, Reported

technicians: Final = typer.Typer(
    help="Field technicians, whose keys may change terminals.", no_args_is_help=True
)

_SHOWN_CHANGES: Final = 20
_COLUMNS: Final = {
    "at": "when",
    "terminal": "terminal",
    "technician": "technician",
    "command": "command",
    "outcome": "outcome",
    "receivedAt": "told",
}


def register(terminals: typer.Typer) -> None:
    """Add the commands to the group."""
    terminals.command("changes")(changes)


@technicians.command("issue")
def issue(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Who it is, as journals will name them.")],
    public_key: Annotated[
        str, typer.Option(help="What `taprail diag key make` printed, 64 hex digits.")
    ],
    reason: MayReason = None,
    as_json: Json = False,
) -> None:
    """Let a technician change terminals. Compare the fingerprint with the one on their laptop.

    The private key never leaves that laptop. Terminals in reach know of it at the next change.
    """
    session = session_of(context)
    by = session.by(reason)
    row = session.write(partial(people.issue, name=name, public_key=public_key, by=by))
    sentence = f"technician {name} may change terminals, key {row.fingerprint}"
    output.done(_as_json(row), sentence, as_json=as_json)


@technicians.command("list")
def list_technicians(
    context: typer.Context,
    revoked: Annotated[bool, typer.Option("--all", help="Those too who were revoked.")] = False,
    as_json: Json = False,
) -> None:
    """List whose keys may change terminals."""
    rows = session_of(context).read(partial(people.registered, all_ever=revoked))
    columns = {"name": "technician", "fingerprint": "key", "status": "status", "issuedAt": "since"}
    listed = [_as_json(row) for row in rows]
    output.listing(listed, as_json=as_json, columns=columns, what="technician")


@technicians.command("show")
def show(context: typer.Context, name: str, as_json: Json = False) -> None:
    """Show a technician's keys and what they changed lately."""

    def query(connection: Connection) -> tuple[list[Registered], list[Reported]]:
        keys = people.show(connection, name)
        return keys, people.reported(connection, _SHOWN_CHANGES, technician=name)

    keys, made = session_of(context).read(query)
    told = [_change(each) for each in made]
    if as_json:
        shown = [_as_json(each) for each in keys]
        output.print_json({"name": name, "keys": shown, "changes": told})
        return
    labels = {
        "fingerprint": "key",
        "status": "status",
        "issuedAt": "issued",
        "issuedBy": "by",
        "revokedAt": "revoked",
        "revokedBy": "by",
    }
    for each in keys:
        output.record(_as_json(each), as_json=False, labels=labels)
    output.listing(told, as_json=False, columns=_COLUMNS, what="change", none="Nothing changed.")


@technicians.command("revoke")
def revoke(
    context: typer.Context, name: str, reason: MayReason = None, as_json: Json = False
) -> None:
    """Let a technician's key count no more. Terminals in reach refuse it from the next change on;
    one without a network believes its own list until that is a week old."""
    session = session_of(context)
    by = session.by(reason)
    row = session.write(partial(people.revoke, name=name, by=by))
    until = rfc3339(by.at_ms + MAX_COPY_AGE_MS)
    data = {"name": name, "fingerprint": row.fingerprint, "refusedEverywhereFrom": until}
    sentence = f"technician {name} revoked; where there is no network, from {until} at the latest"
    output.done(data, sentence, as_json=as_json)


def changes(
    context: typer.Context,
    terminal_id: Annotated[
        str | None, typer.Argument(help="Only at this terminal.", show_default=False)
    ] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List what technicians have changed at terminals, the newest first."""

    def query(connection: Connection) -> list[Reported]:
        if terminal_id is not None:
            registry.require(connection, schema.terminals, "terminal", terminal_id)
        return people.reported(connection, limit, terminal_id=terminal_id)

    rows = [_change(each) for each in session_of(context).read(query)]
    output.listing(
        rows, as_json=as_json, columns=_COLUMNS, what="change", none="Nothing was changed."
    )


def _as_json(row: Registered) -> dict[str, Any]:
    revoked = row.revoked_at_ms
    return {
        "name": row.name,
        "publicKey": row.public_key,
        "fingerprint": row.fingerprint,
        "status": "active" if revoked is None else "revoked",
        "issuedAt": rfc3339(row.issued_at_ms),
        "issuedBy": row.issued_by,
        "revokedAt": None if revoked is None else rfc3339(revoked),
        "revokedBy": row.revoked_by,
    }


def _change(made: Reported) -> dict[str, Any]:
    return {
        "at": rfc3339(made.made_at_ms),
        "terminal": made.terminal_id,
        "technician": made.technician,
        "command": made.command,
        "outcome": made.outcome,
        "receivedAt": rfc3339(made.received_at_ms),
        "journal": made.journal,
        "seq": made.seq,
    }

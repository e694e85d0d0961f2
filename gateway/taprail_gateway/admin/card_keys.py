"""`taprail admin card keys`: the issuer's keys, of which those of its cards are made."""

from __future__ import annotations

from typing import Any, Final

import typer
from sqlalchemy import Connection, func, select

from taprail_common.clock import rfc3339
from taprail_gateway import issuer
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, session_of
from taprail_gateway.authorize import Profile
from taprail_gateway.ledger import actions, schema

keys: Final = typer.Typer(help="Versions of the keys that SUN cards have.", no_args_is_help=True)

_SUBJECT: Final = "issuer keys"


@keys.command("list")
def list_keys(context: typer.Context, as_json: Json = False) -> None:
    """List the versions, and how many cards have each. None of the keys is shown."""
    rows = session_of(context).read(_versions)
    if not as_json:
        for row in rows:
            row["created"] = rfc3339(row["created_at_ms"])
    columns = {"version": "version", "use": "use", "cards": "cards", "created": "since"}
    output.listing(rows, as_json=as_json, columns=columns, what="version")


@keys.command("add")
def add(context: typer.Context, as_json: Json = False) -> None:
    """Make a new version. Cards that are issued from now on get it, and running gateways know it
    at their first tap.

    Other cards go on with the keys that they have, until `card personalize` moves them over.
    """
    session = session_of(context)
    custody, by = session.custody, session.by()

    def make(connection: Connection) -> int:
        before = issuer.newest(connection)
        version = issuer.add(connection, custody, by.at_ms)
        actions.note(connection, "issuer-keys-add", _SUBJECT, by, before=before, after=version)
        return version

    version = session.write(make)
    sentence = f"new cards get version {version}; `card personalize` moves the others over"
    output.done({"version": version}, sentence, as_json=as_json)


def _versions(connection: Connection) -> list[dict[str, Any]]:
    c, k = schema.cards.c, schema.issuer_keys.c
    newest = issuer.newest(connection)
    of_version = (c.key_version == k.version) & (c.profile == Profile.SUN.value)
    statement = (
        select(k.version, k.created_at_ms, func.count(c.uuid).label("cards"))
        .join_from(schema.issuer_keys, schema.cards, of_version, isouter=True)
        .group_by(k.version, k.created_at_ms)
        .order_by(k.version)
    )
    return [
        {**row._mapping, "use": "new cards" if row.version == newest else "as before"}
        for row in connection.execute(statement)
    ]

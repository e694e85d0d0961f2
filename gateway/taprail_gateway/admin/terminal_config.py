"""`taprail admin terminal config`: settings of terminals, changed from here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection

from taprail_common.errors import InputError
from taprail_gateway import registry
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, session_of
from taprail_gateway.fleet_view import config_body
from taprail_gateway.ledger import fleet, schema
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.fleet import Health, Wanted
from taprail_gateway.terminal_settings import checked, differences, parsed

configs: Final = typer.Typer(
    help="Settings of terminals: wanted here, tried there, kept when the gateway is in reach.",
    no_args_is_help=True,
)

ALL: Final = "all"
Which = Annotated[str, typer.Argument(help=f"A terminal's id, or `{ALL}`.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the record.")]


@configs.command("set")
def set_values(
    context: typer.Context,
    terminal_id: Which,
    settings: Annotated[list[str], typer.Argument(help="Like reader.port=/dev/ttyUSB1.")],
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Want these settings of a terminal, beside those that were wanted before.

    The terminal checks the whole, tries it, and goes back when it does not come up or does not
    reach the gateway. `get` tells what became of it.
    """
    _want(context, terminal_id, parsed(settings), reason, as_json=as_json)


@configs.command("unset")
def unset(
    context: typer.Context,
    terminal_id: Which,
    names: Annotated[list[str], typer.Argument(help="Like reader.reset_pin.")],
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Have settings taken out of a terminal's file, so that its defaults hold."""
    changes = {checked(name): None for name in names}
    _want(context, terminal_id, changes, reason, as_json=as_json)


@configs.command("get")
def get(context: typer.Context, terminal_id: str, as_json: Json = False) -> None:
    """Show what is wanted of a terminal, what it made of that, and all that it runs with."""
    health = session_of(context).read(partial(_health, terminal_id=terminal_id))
    data = {"id": terminal_id, **_told(health)}
    if as_json:
        output.print_json(data)
        return
    labels = {"state": "state", "wantedVersion": "wanted", "appliedVersion": "applied"}
    output.record(data, as_json=False, labels={**labels, "reason": "refused since"})
    names = sorted({*data["wanted"], *data["runs"]})
    rows = [
        {"key": name, "wanted": _word(data["wanted"], name), "runs": _word(data["runs"], name)}
        for name in names
    ]
    columns = {"key": "setting", "wanted": "wanted", "runs": "runs"}
    none = "It has not told yet what it runs with."
    output.listing(rows, as_json=False, columns=columns, what="setting", none=none)


@configs.command("diff")
def diff(context: typer.Context, terminal_id: str, as_json: Json = False) -> None:
    """Show only what is wanted of a terminal and does not run there."""
    health = session_of(context).read(partial(_health, terminal_id=terminal_id))
    data = _told(health)
    rows = differences(data["wanted"], data["runs"])
    columns = {"key": "setting", "wanted": "wanted", "runs": "runs"}
    none = "It runs with all that is wanted."
    output.listing(rows, as_json=as_json, columns=columns, what="difference", none=none)


def _want(
    context: typer.Context,
    terminal_id: str,
    changes: Mapping[str, Any],
    reason: str | None,
    *,
    as_json: bool,
) -> None:
    session = session_of(context)
    work = partial(_want_all, which=terminal_id, changes=changes, by=session.by(reason))
    made = session.write(work)
    data = [{"id": each.terminal_id, "version": each.version} for each in made]
    named = ", ".join(f"{each.terminal_id} version {each.version}" for each in made)
    output.done({"wanted": data}, f"wanted from now on: {named}", as_json=as_json)


def _want_all(
    connection: Connection, *, which: str, changes: Mapping[str, Any], by: By
) -> list[Wanted]:
    ids = fleet.active_terminals(connection) if which == ALL else [which]
    if not ids:
        raise InputError("terminal", "there is none yet")
    return [fleet.want(connection, each, changes, by) for each in ids]


def _health(connection: Connection, *, terminal_id: str) -> Health:
    registry.require(connection, schema.terminals, "terminal", terminal_id)
    return fleet.health_of(connection, [terminal_id])[terminal_id]


def _told(health: Health) -> dict[str, Any]:
    body = config_body(health.wanted, health.reported).model_dump(mode="json", by_alias=True)
    return {
        **body,
        "wanted": {} if health.wanted is None else dict(health.wanted.settings),
        "runs": {} if health.reported is None else dict(health.reported.settings),
    }


def _word(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return ""
    return "-" if values[name] is None else str(values[name])

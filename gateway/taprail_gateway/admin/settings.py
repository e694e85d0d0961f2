"""`taprail admin settings`: what a running gateway may be told about settlement."""

from __future__ import annotations

import getpass
import json
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection

from taprail_common.errors import InputError
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, session_of
from taprail_gateway.ledger import actions
from taprail_gateway.ledger.actions import By
from taprail_gateway.settle import live
from taprail_gateway.settle.settings import SettlementSettings

settings: Final = typer.Typer(
    help="Settings of settlement that take effect without a restart.", no_args_is_help=True
)

Reason = Annotated[str | None, typer.Option(help="Why, for the record.")]


@settings.command("list")
def list_settings(context: typer.Context, as_json: Json = False) -> None:
    """List each setting with its value in force, where that is from, and what it may be."""
    session = session_of(context)
    base = session.settings.settlement
    rows = session.read(actions.stored_settings)
    stored = {name: value for name, value in rows.items() if name in live.names()}
    now = live.checked(base, stored)
    listed = [
        {
            "name": name,
            "value": getattr(now, name),
            "from": "operator" if name in stored else "file",
            "file": getattr(base, name),
            "range": _range(name),
        }
        for name in live.names()
    ]
    columns = {"name": "setting", "value": "in force", "from": "from", "range": "may be"}
    output.listing(listed, as_json=as_json, columns=columns, what="setting")


@settings.command("set")
def set_setting(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The setting; see `list`.")],
    value: Annotated[str, typer.Argument(help="Its new value.")],
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Change a setting; a running gateway follows within about a second."""
    session = session_of(context)
    base = session.settings.settlement
    given = _parsed(name, value)

    def work(connection: Connection) -> Any:
        rows = actions.stored_settings(connection)
        stored = {key: row for key, row in rows.items() if key in live.names()}
        now = getattr(live.checked(base, {**stored, name: given}), name)
        by = By(f"cli:{getpass.getuser()}", session.clock.now_ms(), reason)
        actions.set_values(connection, {name: now}, by)
        return now

    now = session.write(work)
    output.done({"name": name, "value": now}, f"{name} is {now} from now on", as_json=as_json)


@settings.command("reset")
def reset(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The setting; see `list`.")],
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Let the configuration file decide about a setting again."""
    session = session_of(context)
    live.checked(session.settings.settlement, {})
    if name not in live.names():
        raise InputError(name, f"no such setting; there are {', '.join(live.names())}")
    by = By(f"cli:{getpass.getuser()}", session.clock.now_ms(), reason)
    session.write(lambda connection: actions.set_values(connection, {name: None}, by))
    now = getattr(session.settings.settlement, name)
    output.done({"name": name, "value": now}, f"{name} is {now} again, as filed", as_json=as_json)


def _parsed(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise InputError(name, f"{text!r} is no number") from exc


def _range(name: str) -> str:
    bounds = {
        key: getattr(part, key)
        for part in SettlementSettings.model_fields[name].metadata
        for key in ("gt", "ge", "lt", "le")
        if getattr(part, key, None) is not None
    }
    words = {"gt": "over", "ge": "from", "lt": "below", "le": "to"}
    return " ".join(f"{words[key]} {bound:,}" for key, bound in bounds.items())

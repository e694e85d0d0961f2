"""`taprail admin settings`: what a running gateway may be told about settlement."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from sqlalchemy import Connection

from taprail_common.errors import InputError
from taprail_gateway.admin import output
from taprail_gateway.admin.history import Limit, print_history
from taprail_gateway.admin.session import Json, session_of
from taprail_gateway.ledger import actions
from taprail_gateway.settle import tuning

settings: Final = typer.Typer(
    help="Settings of settlement that take effect without a restart.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="The setting; see `list`.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the record.")]


@settings.command("list")
def list_settings(context: typer.Context, as_json: Json = False) -> None:
    """List each setting with its value in force, where that is from, and what it may be.

    A value comes from the operator (`set`), from the configuration file, or is the default. What
    was set but does not hold (any more) is passed over, and shown in red.
    """
    session = session_of(context)
    base = session.settings.settlement
    listed = tuning.listed(base, session.read(actions.stored_settings))
    columns = {"name": "setting", "value": "in force", "from": "from", "mayBe": "may be"}
    output.listing(listed, as_json=as_json, columns=columns, what="setting")
    if not as_json:
        for row in listed:
            if "passedOver" in row:
                why = escape(row["passedOver"])
                output.console().print(f"[red]✗[/] {row['name']} as set {why}")


@settings.command("set")
def set_setting(
    context: typer.Context,
    name: Name,
    value: Annotated[str, typer.Argument(help="Its new value.")],
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Change a setting. A running gateway follows within about a second.

    Examples: `settings set payment_batch_size 100`, `settings set confirmations finalized`.
    """
    session = session_of(context)
    base, by = session.settings.settlement, session.by(reason)
    wanted = {tuning.require(name): _parsed(name, value)}
    before, now = session.write(lambda connection: _change(connection, base, wanted, by, name))
    data = {"name": name, "before": before, "value": now}
    output.done(data, f"{name} is {now} from now on, it was {before}", as_json=as_json)


@settings.command("reset")
def reset(context: typer.Context, name: Name, reason: Reason = None, as_json: Json = False) -> None:
    """Let the configuration file decide about a setting again."""
    session = session_of(context)
    base, by = session.settings.settlement, session.by(reason)
    wanted = {tuning.require(name): None}
    before, now = session.write(lambda connection: _change(connection, base, wanted, by, name))
    data = {"name": name, "before": before, "value": now}
    output.done(data, f"{name} is {now} again, as without `set`", as_json=as_json)


@settings.command("history")
def list_changes(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Only of this setting.")] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List who has changed what, when, from what to what, and why, the newest first."""
    names = tuning.names() if name is None else [tuning.require(name)]
    print_history(session_of(context), limit, names, as_json=as_json)


def _change(
    connection: Connection, base: Any, wanted: dict[str, Any], by: actions.By, name: str
) -> tuple[Any, Any]:
    """The value that was in force before, and the one that is now."""
    before, now = tuning.change(connection, base, wanted, by)
    return getattr(before, name), getattr(now, name)


def _parsed(name: str, text: str) -> Any:
    """Numbers as JSON has them; anything else is a word, such as `finalized`."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if value is None or isinstance(value, dict | list):
        raise InputError(name, f"must be {tuning.may_be(name)}")
    return value

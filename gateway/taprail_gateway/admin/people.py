"""`taprail admin user`, `merchant` and `terminal`."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection, Table, select

from taprail_common.signing import fingerprint, parse_public_key
from taprail_gateway import registry, terminal_life, user_life
from taprail_gateway.admin import output
from taprail_gateway.admin.queue import MayReason
from taprail_gateway.admin.session import Json, session_of
from taprail_gateway.ledger import schema

users: Final = typer.Typer(help="Customers, merchants' people and operators.", no_args_is_help=True)
merchants: Final = typer.Typer(help="Who is paid.", no_args_is_help=True)
terminals: Final = typer.Typer(help="Devices that take taps.", no_args_is_help=True)


@users.command("add")
def add_user(
    context: typer.Context,
    user_id: Annotated[str, typer.Argument(help="An id of your choice.")],
    name: Annotated[str, typer.Option(help="Full name; the id when left out.")] = "",
    role: Annotated[str, typer.Option(help="customer, merchant or operator.")] = "customer",
    as_json: Json = False,
) -> None:
    """Add a user."""
    session = session_of(context)
    now_ms = session.clock.now_ms()
    session.write(
        lambda connection: registry.add_user(connection, user_id, name or user_id, role, now_ms)
    )
    output.done({"id": user_id, "role": role}, f"user {user_id} added", as_json=as_json)


@users.command("list")
def list_users(context: typer.Context, as_json: Json = False) -> None:
    """List all users."""
    columns = {"id": "user", "name": "name", "role": "role", "status": "status"}
    stored = ("id", "name", "role", "frozen_at_ms")
    rows = session_of(context).read(lambda connection: _rows(connection, schema.users, stored))
    for row in rows:
        row["status"] = "active" if row["frozen_at_ms"] is None else "frozen"
    output.listing(rows, as_json=as_json, columns=columns, what="user")


@users.command("freeze")
def freeze_user(
    context: typer.Context, user_id: str, reason: MayReason = None, as_json: Json = False
) -> None:
    """Shut a user out: no token of theirs is taken, and none of their cards from its next tap."""
    _set_status(context, user_id, "frozen", reason, as_json=as_json)


@users.command("unfreeze")
def unfreeze_user(
    context: typer.Context, user_id: str, reason: MayReason = None, as_json: Json = False
) -> None:
    """Let a user in again; cards that were frozen by themselves stay so."""
    _set_status(context, user_id, "active", reason, as_json=as_json)


@merchants.command("add")
def add_merchant(
    context: typer.Context,
    merchant_id: Annotated[str, typer.Argument(help="An id of your choice.")],
    account: Annotated[str, typer.Option(help="The address that sales are paid to.")],
    name: Annotated[str, typer.Option(help="As customers know it; the id when left out.")] = "",
    user: Annotated[str | None, typer.Option(help="The user who may see its sales.")] = None,
    as_json: Json = False,
) -> None:
    """Add a merchant."""
    session = session_of(context)
    now_ms = session.clock.now_ms()
    session.write(
        lambda connection: registry.add_merchant(
            connection, merchant_id, name or merchant_id, account, now_ms, user_id=user
        )
    )
    output.done({"id": merchant_id}, f"merchant {merchant_id} added", as_json=as_json)


@merchants.command("list")
def list_merchants(context: typer.Context, as_json: Json = False) -> None:
    """List all merchants."""
    columns = {"id": "merchant", "name": "name", "account": "paid to", "status": "status"}
    rows = session_of(context).read(
        lambda connection: _rows(connection, schema.merchants, [*columns, "user_id"])
    )
    output.listing(rows, as_json=as_json, columns=columns, what="merchant")


@terminals.command("add")
def add_terminal(
    context: typer.Context,
    terminal_id: Annotated[str, typer.Argument(help="An id of your choice.")],
    merchant: Annotated[str, typer.Option(help="Whose terminal it is.")],
    public_key: Annotated[str, typer.Option(help="Its Ed25519 public key, 64 hex digits.")],
    name: Annotated[str, typer.Option(help="Where it stands; the id when left out.")] = "",
    as_json: Json = False,
) -> None:
    """Add a terminal. Compare the fingerprint with the one that the terminal shows."""
    session = session_of(context)
    now_ms = session.clock.now_ms()
    session.write(
        lambda connection: registry.add_terminal(
            connection, terminal_id, merchant, public_key, now_ms, name=name
        )
    )
    shown = fingerprint(parse_public_key(public_key))
    sentence = f"terminal {terminal_id} added, key {shown}"
    output.done({"id": terminal_id, "fingerprint": shown}, sentence, as_json=as_json)


@terminals.command("freeze")
def freeze_terminal(
    context: typer.Context, terminal_id: str, reason: MayReason = None, as_json: Json = False
) -> None:
    """Take nothing of a terminal for now, beginning with its next tap."""
    _set_terminal_status(context, terminal_id, "frozen", reason, as_json=as_json)


@terminals.command("unfreeze")
def unfreeze_terminal(
    context: typer.Context, terminal_id: str, reason: MayReason = None, as_json: Json = False
) -> None:
    """Take payments of a frozen terminal again."""
    _set_terminal_status(context, terminal_id, "active", reason, as_json=as_json)


@terminals.command("revoke")
def revoke_terminal(
    context: typer.Context, terminal_id: str, reason: MayReason = None, as_json: Json = False
) -> None:
    """Take no more payments of a terminal, beginning with its next tap, for good."""
    _set_terminal_status(context, terminal_id, "revoked", reason, as_json=as_json)


def _set_status(
    context: typer.Context, user_id: str, status: str, reason: str | None, *, as_json: bool
) -> None:
    session = session_of(context)
    by = session.by(reason)
    session.write(lambda connection: user_life.set_status(connection, user_id, status, by))
    data = {"id": user_id, "status": status}
    output.done(data, f"user {user_id} is {status}", as_json=as_json)


def _set_terminal_status(
    context: typer.Context, terminal_id: str, status: str, reason: str | None, *, as_json: bool
) -> None:
    session = session_of(context)
    by = session.by(reason)
    session.write(lambda connection: terminal_life.set_status(connection, terminal_id, status, by))
    data = {"id": terminal_id, "status": status}
    output.done(data, f"terminal {terminal_id} is {status}", as_json=as_json)


def _rows(connection: Connection, table: Table, names: Any) -> list[dict[str, Any]]:
    statement = select(*(table.c[name] for name in names)).order_by(table.c.created_at_ms)
    return [dict(row._mapping) for row in connection.execute(statement)]

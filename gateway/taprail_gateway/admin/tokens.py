"""`taprail admin token`: bearer tokens of apps, and the secrets that prove them."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Final

import typer
from sqlalchemy import Connection, select

from taprail_common.clock import rfc3339
from taprail_common.errors import InputError, OperatorError
from taprail_common.signing import sync_folder, write_secret_file
from taprail_gateway import registry
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, session_of
from taprail_gateway.directory import SCOPES_OF_ROLE
from taprail_gateway.ledger import schema
from taprail_gateway.tokens import MAX_KEYS, Scope, TokenKey, Tokens, read_secrets

tokens: Final = typer.Typer(help="Bearer tokens of apps.", no_args_is_help=True)

_MAX_TOKEN_DAYS: Final = 3650
_SECRET_BYTES: Final = 32
_AGAIN: Final = "restart the gateways to use it"


@tokens.command("issue")
def issue(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="Whom it names.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="As what it is good for; may be repeated. A customer when left out."),
    ] = None,
    days: Annotated[int, typer.Option(help="Valid for.", min=1, max=_MAX_TOKEN_DAYS)] = 30,
    as_json: Json = False,
) -> None:
    """Issue a bearer token to a user. Whoever has it can act as the user."""
    session = session_of(context)
    scopes = scope or [Scope.CUSTOMER]
    session.read(lambda connection: _check_scopes(connection, user, scopes))
    now_ms = session.clock.now_ms()
    issuer = Tokens.load(session.settings.jwt_secret_file)
    token = issuer.issue(user, now_ms=now_ms, days=days, scopes=scopes)
    expires = rfc3339(now_ms + days * 86_400_000)
    if as_json:
        names = sorted(set(scopes))
        output.print_json({"user": user, "scopes": names, "token": token, "expiresAt": expires})
    else:
        typer.echo(token)


@tokens.command("rotate")
def rotate(context: typer.Context, as_json: Json = False) -> None:
    """Sign with a new secret from now on. Tokens by the former ones stay good until `retire`."""
    session = session_of(context)
    path = session.settings.jwt_secret_file
    kept = read_secrets(path)
    if len(kept) >= MAX_KEYS:
        raise InputError("secrets", f"are {MAX_KEYS} already; `taprail admin token retire` first")
    stamp = rfc3339(session.clock.now_ms())[:10].replace("-", "")
    new_id = f"{stamp}-{secrets.token_hex(3)}"
    new = TokenKey.shared(secrets.token_hex(_SECRET_BYTES).encode(), new_id)
    _replace(path, [new, *kept])
    output.done({"keyId": new_id}, f"secret {new_id} was made; {_AGAIN}", as_json=as_json)


@tokens.command("retire")
def retire(context: typer.Context, as_json: Json = False) -> None:
    """Forget all secrets but the one that signs: no token by the former ones is good any more."""
    path = session_of(context).settings.jwt_secret_file
    first, *others = read_secrets(path)
    _replace(path, [first])
    sentence = f"{len(others)} former secrets are forgotten; restart the gateways to be rid of them"
    output.done({"retired": [key.id for key in others]}, sentence, as_json=as_json)


def _check_scopes(connection: Connection, user: str, scopes: list[Scope]) -> None:
    registry.require(connection, schema.users, "user", user)
    users = schema.users.c
    role = connection.scalar(select(users.role).where(users.id == user)) or ""
    refused = sorted(set(scopes) - SCOPES_OF_ROLE[role])
    if refused:
        raise InputError("scope", f"{refused[0]} is more than the role {role} of {user} allows")


def _replace(path: Path, keys: list[TokenKey]) -> None:
    """Write the secrets' file anew: at any moment there is the old one or the new one, whole."""
    lines = [(f"{key.id}:" if key.id else "") + key.secret.decode() for key in keys]
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_secret_file(beside, "\n".join(lines) + "\n")
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as exc:
        raise OperatorError(
            f"JWT secret {path} cannot be written ({exc.strerror})",
            fix="change it where it comes from: a line more, the one that signs first",
        ) from exc

"""`taprail admin token`: bearer tokens of apps, and the secrets that prove them.

A token is shown once, when it is issued; from then on it is known by its id alone.
"""

from __future__ import annotations

import secrets
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from sqlalchemy import Connection, select

from taprail_common.clock import rfc3339
from taprail_common.errors import InputError, OperatorError
from taprail_common.ids import new_id
from taprail_common.signing import sync_folder, write_secret_file
from taprail_gateway import registry
from taprail_gateway.admin import output
from taprail_gateway.admin.queue import MayReason
from taprail_gateway.admin.session import Json, session_of
from taprail_gateway.directory import SCOPES_OF_ROLE
from taprail_gateway.ledger import issued_tokens, schema
from taprail_gateway.ledger.issued_tokens import MAX_DAYS, TokenRow
from taprail_gateway.tokens import MAX_KEYS, Scope, TokenKey, Tokens, read_secrets

tokens: Final = typer.Typer(help="Bearer tokens of apps.", no_args_is_help=True)

_SECRET_BYTES: Final = 32
_TAKEN_UP: Final = "running gateways follow within a second where this file is theirs"


@tokens.command("issue")
def issue(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="Whom it names.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="As what it is good for; may be repeated. A customer when left out."),
    ] = None,
    days: Annotated[int, typer.Option(help="Valid for.", min=1, max=MAX_DAYS)] = 30,
    as_json: Json = False,
) -> None:
    """Issue a bearer token to a user. Whoever has it can act as the user."""
    session = session_of(context)
    scopes = scope or [Scope.CUSTOMER]
    issuer, by, token_id = (
        Tokens.load(session.settings.jwt_secret_file),
        session.by(),
        new_id("tok"),
    )
    names = sorted(set(scopes))

    def work(connection: Connection) -> None:
        _check_scopes(connection, user, scopes)
        issued_tokens.note_issued(connection, token_id, user, names, days, by)

    session.write(work)
    token = issuer.issue(user, now_ms=by.at_ms, days=days, scopes=scopes, token_id=token_id)
    if as_json:
        expires = rfc3339(by.at_ms + days * 86_400_000)
        said = {"id": token_id, "user": user, "scopes": names, "token": token, "expiresAt": expires}
        output.print_json(said)
    else:
        typer.echo(token)


@tokens.command("list")
def list_tokens(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    ended: Annotated[bool, typer.Option("--all", help="Those too that are good no more.")] = False,
    as_json: Json = False,
) -> None:
    """List the tokens that were issued here and are good, the newest first."""
    session = session_of(context)
    now_ms = session.clock.now_ms()
    wanted = partial(issued_tokens.listed, user_id=user, now_ms=None if ended else now_ms)
    rows = [_row(each, now_ms) for each in session.read(wanted)]
    columns = {
        "id": "token",
        "user": "user",
        "scopes": "good for",
        "issuedAt": "issued",
        "issuedBy": "by",
        "expiresAt": "until",
        "status": "status",
    }
    output.listing(rows, as_json=as_json, columns=columns, what="token")


@tokens.command("revoke")
def revoke(
    context: typer.Context,
    token_id: Annotated[str, typer.Argument(help="Its id, as `token list` has it.")],
    user: Annotated[
        str | None, typer.Option(help="Whose it is; for one issued elsewhere, by its claim jti.")
    ] = None,
    reason: MayReason = None,
    as_json: Json = False,
) -> None:
    """Have a token good for nothing, at every gateway, and close the sockets it has opened."""
    session = session_of(context)
    by = session.by(reason)
    session.write(partial(issued_tokens.revoke, token_id=token_id, by=by, issued_to=user))
    data = {"id": token_id, "status": "revoked"}
    output.done(data, f"token {token_id} is revoked", as_json=as_json)


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
    output.done({"keyId": new_id}, f"secret {new_id} was made; {_TAKEN_UP}", as_json=as_json)


@tokens.command("retire")
def retire(context: typer.Context, as_json: Json = False) -> None:
    """Forget all secrets but the one that signs: no token by the former ones is good any more."""
    path = session_of(context).settings.jwt_secret_file
    first, *others = read_secrets(path)
    _replace(path, [first])
    sentence = f"{len(others)} former secrets are forgotten; {_TAKEN_UP}"
    output.done({"retired": [key.id for key in others]}, sentence, as_json=as_json)


def _row(token: TokenRow, now_ms: int) -> dict[str, object]:
    return {
        "id": token.id,
        "user": token.user_id,
        "scopes": token.scopes,
        "issuedAt": rfc3339(token.issued_at_ms),
        "issuedBy": token.issued_by or "elsewhere",
        "expiresAt": rfc3339(token.expires_at_ms),
        "status": token.status(now_ms),
        "revokedBy": token.revoked_by,
    }


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

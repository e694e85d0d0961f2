"""`taprail admin init`, `migrate` and `check`: a gateway's state as a whole."""

from __future__ import annotations

import secrets
from pathlib import Path

import typer
from rich.markup import escape
from sqlalchemy import Connection

from taprail_common.errors import OperatorError
from taprail_common.money import format_amount
from taprail_common.signing import (
    create_key_file,
    gateway_id,
    load_key_file,
    public_key_text,
    write_secret_file,
)
from taprail_gateway import facts, issuer, registry
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.config import GatewaySettings
from taprail_gateway.custody import create_master_key
from taprail_gateway.ledger import migrate as migrations
from taprail_gateway.ledger import queries
from taprail_gateway.ledger.engines import place

_PROBLEMS_FOUND = 1
_JWT_SECRET_BYTES = 32


def register(app: typer.Typer) -> None:
    """Add the commands to the top level."""
    app.command()(init)
    app.command()(migrate)
    app.command()(check)


def init(context: typer.Context, as_json: Json = False) -> None:
    """Make what a gateway needs and does not have yet: keys, database, a wallet to send from.

    Can be repeated: what is there is left alone.
    """
    session = session_of(context)
    settings = session.settings
    created = [str(path) for path in _create_keys(settings)]
    if migrations.upgrade(settings.database_url):
        created.append(place(settings.database_url))
    custody = session.custody
    now_ms = session.clock.now_ms()

    def furnish(connection: Connection) -> str:
        issuer.ensure(connection, custody, now_ms)
        return registry.ensure_lane(connection, custody, now_ms)

    lane = session.write(furnish)
    key = load_key_file(settings.key_file, "gateway key").verify_key
    output.record(
        {
            "created": created,
            "lane": lane,
            "gatewayId": gateway_id(key),
            "publicKey": public_key_text(key),
        },
        as_json=as_json,
        labels={
            "gatewayId": "gateway",
            "publicKey": "public key (terminals need it)",
            "lane": "wallet to fund with the chain's coin",
        },
    )


def migrate(context: typer.Context, as_json: Json = False) -> None:
    """Create the database, or bring an older one up to this program."""
    settings = session_of(context).settings
    changed = migrations.upgrade(settings.database_url)
    version = migrations.head()
    sentence = f"upgraded to {version}" if changed else f"already at {version}"
    output.done({"changed": changed, "version": version}, sentence, as_json=as_json)


def check(context: typer.Context, as_json: Json = False) -> None:
    """Check the whole ledger against its invariants; exit code 1 when something is wrong."""
    session = session_of(context)
    problems = session.read(queries.check_invariants)
    totals = session.read(queries.totals_by_merchant)
    if as_json:
        output.print_json({"ok": not problems, "problems": problems, "completedUnits": totals})
    else:
        _print_check(session, problems, totals)
    if problems:
        raise typer.Exit(_PROBLEMS_FOUND)


def _print_check(session: Session, problems: list[str], totals: dict[str, int]) -> None:
    known = session.read(facts.known)
    rows = [
        {"merchant": name, "completed": _amount(units, known)} for name, units in totals.items()
    ]
    columns = {"merchant": "merchant", "completed": "completed"}
    output.listing(rows, as_json=False, columns=columns, what="merchant")
    for problem in problems:
        output.console().print(f"[red]✗[/] {escape(problem)}")
    if not problems:
        output.console().print("[green]✓[/] every invariant holds")


def _amount(units: int, known: facts.LedgerFacts | None) -> str:
    # A ledger that no gateway has opened yet does not know its token, and has completed nothing.
    if known is None:
        return str(units)
    return f"{format_amount(units, known.decimals)} {known.currency}"


def _create_keys(settings: GatewaySettings) -> list[Path]:
    makers = {
        settings.key_file: create_key_file,
        settings.master_key_file: create_master_key,
        settings.jwt_secret_file: _create_jwt_secret,
    }
    missing = [path for path in makers if not path.exists()]
    if missing and migrations.current(settings.database_url) is not None:
        # New keys would lock the wallets in it, or leave every terminal with another gateway.
        raise OperatorError(
            f"there is a database, but not {missing[0]}", fix="restore it from its backup"
        )
    for path in missing:
        makers[path](path)
    return missing


def _create_jwt_secret(path: Path) -> None:
    write_secret_file(path, secrets.token_hex(_JWT_SECRET_BYTES) + "\n")

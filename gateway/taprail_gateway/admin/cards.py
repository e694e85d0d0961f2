"""`taprail admin card`: prepaid cards and their limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection, select

from taprail_common.errors import InputError, OperatorError
from taprail_common.signing import write_secret_file
from taprail_gateway import registry
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.ledger import schema
from taprail_gateway.registry import CardOrder, IssuedCard

cards: Final = typer.Typer(help="Prepaid cards and their limits.", no_args_is_help=True)

_KINDS: Final = {"sun": "sun", "signed": "signed", "uid": "uid (weak)"}

Limit = Annotated[str | None, typer.Option(help="Decimal, like 50.00.")]


@cards.command("issue")
def issue(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="Whose card it is.")],
    uid: Annotated[str, typer.Option(help="The chip's UID, in hex. It is not stored.")] = "",
    address: Annotated[
        str | None, typer.Option(help="Of a card that signs: the account of its own key.")
    ] = None,
    name: Annotated[str, typer.Option(help="A name to know it by.")] = "",
    profile: Annotated[
        str, typer.Option(help="sun (NTAG 424 DNA), uid (weak: it can be copied) or signed.")
    ] = "sun",
    single_limit: Limit = None,
    daily_limit: Limit = None,
    time_zone: Annotated[str, typer.Option(help="Where its day begins.")] = "UTC",
    show_keys: Annotated[
        Path | None,
        typer.Option(help="Write the keys to personalise the chip with to this new file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Issue a card with a new prepaid account, or one that signs for its own. Fund the account that
    is printed."""
    session = session_of(context)
    order = CardOrder(
        user_id=user,
        uid=_uid(uid),
        address=address,
        name=name,
        profile=profile,
        time_zone=time_zone,
        single_limit_units=_limit(session, single_limit, registry.DEFAULT_SINGLE_LIMIT_UNITS),
        daily_limit_units=_limit(session, daily_limit, registry.DEFAULT_DAILY_LIMIT_UNITS),
    )
    custody, now_ms = session.custody, session.clock.now_ms()
    if show_keys is not None and address is not None:
        raise OperatorError("a card that signs is given no keys", fix="leave out --show-keys")
    if show_keys is not None and show_keys.exists():
        raise OperatorError(f"{show_keys} exists already", fix="name a new file")
    issued = session.write(
        lambda connection: registry.issue_card(connection, custody, order, now_ms)
    )
    if show_keys is not None:
        _write_keys(session, issued, order.uid, show_keys)
    output.record(
        {"cardUuid": issued.card_uuid, "account": issued.account},
        as_json=as_json,
        labels={"cardUuid": "card", "account": "account to fund"},
    )


@cards.command("list")
def list_cards(context: typer.Context, as_json: Json = False) -> None:
    """List all cards with what is left on them."""
    session = session_of(context)
    rows = session.read(_all_cards)
    if not as_json:
        for row in rows:
            for name in ("balance", "held", "single_limit", "daily_limit"):
                row[name] = session.text(row[f"{name}_units"])
            row["profile"] = _KINDS[row["profile"]]
    columns = {
        "uuid": "card",
        "name": "name",
        "user_id": "user",
        "status": "status",
        "profile": "proof",
        "balance": "balance",
        "held": "held",
        "single_limit": "a payment",
        "daily_limit": "a day",
    }
    output.listing(rows, as_json=as_json, columns=columns, what="card")


@cards.command("freeze")
def freeze(context: typer.Context, card_uuid: str, as_json: Json = False) -> None:
    """Take no more payments of a card, beginning with its next tap."""
    _set_status(context, card_uuid, "frozen", as_json=as_json)


@cards.command("unfreeze")
def unfreeze(context: typer.Context, card_uuid: str, as_json: Json = False) -> None:
    """Take payments of a card again."""
    _set_status(context, card_uuid, "active", as_json=as_json)


@cards.command("limits")
def limits(
    context: typer.Context,
    card_uuid: str,
    single: Limit = None,
    daily: Limit = None,
    as_json: Json = False,
) -> None:
    """Set what a card may pay at once, and in a day."""
    session = session_of(context)
    single_units = None if single is None else session.units(single)
    daily_units = None if daily is None else session.units(daily)
    session.write(
        lambda connection: registry.set_card_limits(
            connection, card_uuid, single_limit_units=single_units, daily_limit_units=daily_units
        )
    )
    data = {
        "cardUuid": card_uuid,
        "singleLimitUnits": single_units,
        "dailyLimitUnits": daily_units,
    }
    output.done(data, f"limits of {card_uuid} set", as_json=as_json)


def _set_status(context: typer.Context, card_uuid: str, status: str, *, as_json: bool) -> None:
    session_of(context).write(
        lambda connection: registry.set_card_status(connection, card_uuid, status)
    )
    data = {"cardUuid": card_uuid, "status": status}
    output.done(data, f"card {card_uuid} is {status}", as_json=as_json)


def _uid(text: str) -> bytes:
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        raise InputError("uid", "must be hex digits") from None


def _limit(session: Session, text: str | None, default_units: int) -> int:
    return default_units if text is None else session.units(text)


def _write_keys(session: Session, issued: IssuedCard, uid: bytes, path: Path) -> None:
    custody = session.custody
    issuer = session.read(lambda connection: registry.issuer_keys(connection, custody))
    keys = registry.card_keys(issuer, issued.key_version, uid)
    content = {
        "cardUuid": issued.card_uuid,
        "uid": uid.hex(),
        "keyVersion": issued.key_version,
        "sdmMetaReadKey": keys.meta_read_key.hex(),
        "sdmFileReadKey": keys.file_read_key.hex(),
    }
    write_secret_file(path, json.dumps(content, indent=2) + "\n")


def _all_cards(connection: Connection) -> list[dict[str, Any]]:
    c, a = schema.cards.c, schema.accounts.c
    statement = (
        select(
            c.uuid,
            c.name,
            c.user_id,
            c.profile,
            c.status,
            c.account,
            a.balance_units,
            a.held_units,
            c.single_limit_units,
            c.daily_limit_units,
            c.time_zone,
        )
        .join_from(schema.cards, schema.accounts, c.account == a.address)
        .order_by(c.created_at_ms)
    )
    return [dict(row._mapping) for row in connection.execute(statement)]

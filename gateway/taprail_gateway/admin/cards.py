"""`taprail admin card`: prepaid cards and their limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection, select

from taprail_common.clock import rfc3339
from taprail_common.errors import InputError, OperatorError
from taprail_common.signing import write_secret_file
from taprail_gateway import card_life, issuer, registry
from taprail_gateway.admin import card_import, card_keys, card_personalize, card_pins, output
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.authorize import Profile
from taprail_gateway.card_life import Successor
from taprail_gateway.ledger import schema
from taprail_gateway.registry import CardOrder, IssuedCard

cards: Final = typer.Typer(help="Prepaid cards and their limits.", no_args_is_help=True)

_KINDS: Final = {"sun": "sun", "signed": "signed", "uid": "uid (weak)"}

_PROVES: Final = {
    Profile.SUN: "a fresh tap of this very card; not the amount",
    Profile.SIGNED: "this very transfer: nobody else could sign for its account",
    Profile.UID: "WEAK: nothing. Its serial number can be copied by anyone who held it",
}

Limit = Annotated[str | None, typer.Option(help="Decimal, like 50.00.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the record.")]


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
    custody, by = session.custody, session.by()
    if show_keys is not None and address is not None:
        raise OperatorError("a card that signs is given no keys", fix="leave out --show-keys")
    _check_new(show_keys)
    issued = session.write(lambda connection: card_life.issue(connection, custody, order, by))
    if show_keys is not None:
        _write_keys(session, issued, order.uid, show_keys)
    output.record(
        {"cardUuid": issued.card_uuid, "account": issued.account},
        as_json=as_json,
        labels={"cardUuid": "card", "account": "account to fund"},
    )


cards.command("import")(card_import.import_cards)
cards.command("personalize")(card_personalize.personalize_card)
cards.add_typer(card_pins.pins, name="pin")
cards.add_typer(card_keys.keys, name="keys")


@cards.command("list")
def list_cards(context: typer.Context, as_json: Json = False) -> None:
    """List all cards with what is left on them."""
    session = session_of(context)
    rows = session.read(_all_cards)
    now_ms = session.clock.now_ms()
    for row in rows:
        row["status"] = card_life.standing(row["status"], row["expires_at_ms"], now_ms)
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


@cards.command("show")
def show(context: typer.Context, card_uuid: str, as_json: Json = False) -> None:
    """Show a card: its limits, what is spent and held, its last payment, and what it proves."""
    session = session_of(context)
    now_ms = session.clock.now_ms()
    found = session.read(lambda connection: card_life.describe(connection, card_uuid, now_ms))
    found["proves"] = _PROVES[Profile(found["profile"])]
    if as_json:
        output.print_json(found)
        return
    output.record(_in_words(session, found), as_json=False, labels=_SHOWN)


@cards.command("freeze")
def freeze(
    context: typer.Context, card_uuid: str, reason: Reason = None, as_json: Json = False
) -> None:
    """Take no more payments of a card, beginning with its next tap."""
    _set_status(context, card_uuid, "frozen", reason, as_json=as_json)


@cards.command("unfreeze")
def unfreeze(
    context: typer.Context, card_uuid: str, reason: Reason = None, as_json: Json = False
) -> None:
    """Take payments of a card again."""
    _set_status(context, card_uuid, "active", reason, as_json=as_json)


@cards.command("limits")
def limits(
    context: typer.Context,
    card_uuid: str,
    single: Limit = None,
    daily: Limit = None,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Set what a card may pay at once, and in a day."""
    session = session_of(context)
    single_units = None if single is None else session.units(single)
    daily_units = None if daily is None else session.units(daily)
    by = session.by(reason)
    session.write(
        lambda connection: card_life.set_limits(
            connection,
            card_uuid,
            by,
            single_limit_units=single_units,
            daily_limit_units=daily_units,
        )
    )
    data = {
        "cardUuid": card_uuid,
        "singleLimitUnits": single_units,
        "dailyLimitUnits": daily_units,
    }
    output.done(data, f"limits of {card_uuid} set", as_json=as_json)


@cards.command("expire")
def expire(
    context: typer.Context,
    card_uuid: str,
    on: Annotated[
        str | None, typer.Option(help="Its last day, like 2027-12-31, where the card lives.")
    ] = None,
    never: Annotated[bool, typer.Option("--never", help="Take its end back.")] = False,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Refuse a card from now on, or after its last day. A later date makes it good again."""
    if on is not None and never:
        raise InputError("on", "goes with --never as little as a day with none")
    session = session_of(context)
    by = session.by(reason)

    def change(connection: Connection) -> int | None:
        zone = card_life.row_of(connection, card_uuid)["time_zone"]
        end_ms = by.at_ms if on is None else card_life.end_of_day_ms(on, zone)
        card_life.set_end(connection, card_uuid, None if never else end_ms, by)
        return None if never else end_ms

    end_ms = session.write(change)
    sentence = (
        f"card {card_uuid} is good until {on} is over" if on else f"card {card_uuid} ends now"
    )
    if never:
        sentence = f"card {card_uuid} has no end any more"
    output.done({"cardUuid": card_uuid, "expiresAtMs": end_ms}, sentence, as_json=as_json)


@cards.command("replace")
def replace(
    context: typer.Context,
    card_uuid: str,
    uid: Annotated[str, typer.Option(help="The new chip's UID, in hex. It is not stored.")],
    profile: Annotated[
        str | None, typer.Option(help="sun or uid, if it is another than the old card's.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name, if another one.")] = None,
    show_keys: Annotated[
        Path | None, typer.Option(help="Write the new chip's keys to this new file.")
    ] = None,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Give a lost card's account to a new card. The old one is refused from now on, for good.

    What is on the account stays there. Limits are taken over, and what was spent of the day too.
    """
    session = session_of(context)
    custody, by = session.custody, session.by(reason)
    successor = Successor(_uid(uid), profile, name)
    _check_new(show_keys)
    issued = session.write(
        lambda connection: card_life.replace_card(connection, custody, card_uuid, successor, by)
    )
    if show_keys is not None:
        _write_keys(session, issued, successor.uid, show_keys)
    output.record(
        {"cardUuid": issued.card_uuid, "account": issued.account, "replaced": card_uuid},
        as_json=as_json,
        labels={"cardUuid": "card", "replaced": "in place of", "account": "account, as before"},
    )


_SHOWN: Final = {
    "uuid": "card",
    "name": "name",
    "user_id": "user",
    "status": "status",
    "ends": "good until",
    "replaced_by": "replaced by",
    "profile": "proof",
    "proves": "proves",
    "single": "a payment",
    "daily": "a day",
    "spent": "spent today",
    "balance": "balance",
    "held": "held of it",
    "last": "last payment",
    "time_zone": "time zone",
    "account": "account",
}


def _in_words(session: Session, found: dict[str, Any]) -> dict[str, Any]:
    end_ms, last = found["expires_at_ms"], found["last_payment"]
    text = session.text
    return {
        **found,
        "profile": _KINDS[found["profile"]],
        "ends": None if end_ms is None else card_life.last_day(end_ms, found["time_zone"]),
        "single": text(found["single_limit_units"]),
        "daily": text(found["daily_limit_units"]),
        "spent": f"{text(found['spent_today_units'])} ({found['today']})",
        "balance": text(found["balance_units"]),
        "held": text(found["held_units"]),
        "last": "none yet"
        if last is None
        else f"{rfc3339(last['created_at_ms'])}, {text(last['amount_units'])} at"
        f" {last['terminal_id']}, {last['state']}",
    }


def _set_status(
    context: typer.Context, card_uuid: str, status: str, reason: str | None, *, as_json: bool
) -> None:
    session = session_of(context)
    by = session.by(reason)
    session.write(lambda connection: card_life.set_status(connection, card_uuid, status, by))
    data = {"cardUuid": card_uuid, "status": status}
    output.done(data, f"card {card_uuid} is {status}", as_json=as_json)


def _check_new(path: Path | None) -> None:
    if path is not None and path.exists():
        raise OperatorError(f"{path} exists already", fix="name a new file")


def _uid(text: str) -> bytes:
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        raise InputError("uid", "must be hex digits") from None


def _limit(session: Session, text: str | None, default_units: int) -> int:
    return default_units if text is None else session.units(text)


def _write_keys(session: Session, issued: IssuedCard, uid: bytes, path: Path) -> None:
    custody = session.custody
    issuers = session.read(lambda connection: issuer.load(connection, custody))
    keys = issuer.card_keys(issuers, issued.key_version, uid)
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
            c.expires_at_ms,
        )
        .join_from(schema.cards, schema.accounts, c.account == a.address)
        .order_by(c.created_at_ms)
    )
    return [dict(row._mapping) for row in connection.execute(statement)]

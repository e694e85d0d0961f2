"""`taprail admin card pin`: what cardholders type above an amount."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from taprail_common.errors import InputError
from taprail_common.pin_block import check_pin
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, session_of
from taprail_gateway.ledger import card_pins
from taprail_gateway.pin_desk import Pepper

pins: Final = typer.Typer(help="Cards' PINs.", no_args_is_help=True)

Reason = Annotated[str | None, typer.Option(help="Why, for the record.")]


@pins.command("set")
def set_pin(
    context: typer.Context,
    card_uuid: str,
    above: Annotated[str, typer.Option(help="Payments above this need it, like 20.00; or 0.")],
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Give a card a PIN, or another one. It is asked for here, twice, or read from a pipe; what is
    stored does not tell it, and no option takes it, since those are seen by others."""
    session = session_of(context)
    above_units = 0 if above == "0" else session.units(above)
    pin, by = _asked_for(), session.by(reason)
    pepper = Pepper(session.settings.pin_pepper_file)
    pepper.make(session.read(card_pins.count))
    verifier = pepper.hashed(card_uuid, pin)
    session.write(lambda db: card_pins.put(db, card_uuid, verifier, above_units, by))
    data = {"cardUuid": card_uuid, "aboveUnits": above_units}
    output.done(data, f"card {card_uuid} has a PIN, above {above}", as_json=as_json)


@pins.command("remove")
def remove(
    context: typer.Context, card_uuid: str, reason: Reason = None, as_json: Json = False
) -> None:
    """Ask for no PIN of this card any more."""
    session = session_of(context)
    by = session.by(reason)
    session.write(lambda connection: card_pins.remove(connection, card_uuid, by))
    output.done({"cardUuid": card_uuid}, f"card {card_uuid} has no PIN any more", as_json=as_json)


@pins.command("unlock")
def unlock(
    context: typer.Context, card_uuid: str, reason: Reason = None, as_json: Json = False
) -> None:
    """Give a card its three tries back, and thaw it where wrong PINs have frozen it."""
    session = session_of(context)
    by = session.by(reason)
    session.write(lambda connection: card_pins.unlock(connection, card_uuid, by))
    output.done({"cardUuid": card_uuid}, f"card {card_uuid} has three tries", as_json=as_json)


@pins.command("show")
def show(context: typer.Context, card_uuid: str, as_json: Json = False) -> None:
    """Show from where on a card's PIN is asked for, and how many tries it has."""
    session = session_of(context)
    found = session.read(lambda connection: card_pins.describe(connection, card_uuid))
    if as_json or found is None:
        output.done({"pin": found}, f"card {card_uuid} has no PIN", as_json=as_json)
        return
    words = {"above": session.text(found["above_units"]), "tries": found["tries_left"]}
    output.record(words, as_json=False, labels={"above": "asked for above", "tries": "tries left"})


def _asked_for() -> str:
    pin = check_pin(typer.prompt("PIN", hide_input=True))
    if typer.prompt("The same again", hide_input=True) != pin:
        raise InputError("pin", "the two are not the same")
    return pin

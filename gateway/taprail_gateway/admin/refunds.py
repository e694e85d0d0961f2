"""`taprail admin payment refund` and `merchant float`: giving sales back, and from what."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from taprail_common.ids import check_identifier, new_id
from taprail_gateway import registry
from taprail_gateway.admin import output
from taprail_gateway.admin.payments import find
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import actions, floats, refund_shares, refunds, schema
from taprail_gateway.ledger.floats import Float
from taprail_gateway.ledger.refunds import Refund, Wanted

_REST = b"the rest"


def register(payments: typer.Typer, merchants: typer.Typer) -> None:
    """Add the commands to these groups."""
    payments.command()(refund)
    merchants.command("float")(float_account)


def refund(
    context: typer.Context,
    payment_id: Annotated[str, typer.Argument(help="The sale's id, or how it begins.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")],
    amount: Annotated[
        str | None, typer.Option(help="Like 12.50; all that is left when left out.")
    ] = None,
    request_id: Annotated[
        str | None,
        typer.Option(help="A name of your choice: the same one never refunds twice."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a completed sale back to the account that paid, or a part of it.

    It is paid from the merchant's float account. If that does not cover it, it waits, and goes on
    by itself when the account was topped up; until then `taprail admin payment cancel` takes it
    back.
    """
    session = session_of(context)
    by = session.by(reason)
    units = None if amount is None else session.units(amount)
    name = new_id("req") if request_id is None else check_identifier("request-id", request_id)

    def work(connection: Connection) -> Refund:
        sale = find(connection, payment_id.lower())
        asked = Wanted(
            sale_id=sale.id,
            amount_units=units or _left(connection, sale.id, sale.amount_units),
            requester=refunds.requester(by.actor),
            request_id=name,
            request=sale.id.encode() + b"\n" + (_REST if units is None else str(units).encode()),
            at_ms=by.at_ms,
        )
        before = refunds.asked_before(connection, asked)
        if before is not None:
            return before
        made = refunds.ask(connection, asked)
        after = {"refund": made.id, "units": made.amount_units}
        actions.note(connection, "refund", sale.id, by, after=after)
        return made

    made = session.write(work)
    what = f"{session.text(made.amount_units)} of payment {made.sale_id} goes back as {made.id}"
    sentence = what if made.failure_reason is None else f"{what}: {made.failure_reason}"
    output.done(as_row(made), sentence, as_json=as_json)


def _left(connection: Connection, sale_id: str, paid_units: int) -> int:
    """What is left to be refunded; when nothing is, a unit, so that it is refused like any."""
    return max(1, paid_units - refund_shares.refunded_units(connection, sale_id))


def as_row(each: Refund) -> dict[str, Any]:
    """A refund as JSON."""
    return {name: getattr(each, name) for name in Refund.__slots__}


def float_account(
    context: typer.Context,
    merchant_id: Annotated[str, typer.Argument(help="Whose refunds are paid from it.")],
    as_json: Json = False,
) -> None:
    """Show the account that a merchant's refunds are paid from, and what it lacks; make it first
    when there is none. It is topped up by sending the token there."""
    session = session_of(context)
    custody, now_ms = session.custody, session.clock.now_ms()
    found = session.write(lambda c: _ensured(c, custody, merchant_id, now_ms))
    record = {
        "merchant": found.merchant_id,
        "account": found.account,
        "balanceUnits": found.balance_units,
        "heldUnits": found.held_units,
        "shortUnits": found.short_units,
    }
    labels = {"merchant": "merchant", "account": "account to top up"}
    if not as_json:
        record |= _amounts(session, found)
        labels |= {"balance": "balance", "held": "wanted by refunds", "short": "lacks"}
    output.record(record, as_json=as_json, labels=labels)


def _ensured(connection: Connection, custody: Custody, merchant_id: str, now_ms: int) -> Float:
    registry.require(connection, schema.merchants, "merchant", merchant_id)
    found = floats.float_of(connection, merchant_id)
    if found is None:
        address, wrapped = custody.new_key()
        floats.open_float(connection, merchant_id, address, wrapped, now_ms)
        found = Float(merchant_id, address, balance_units=0, held_units=0)
    return found


def _amounts(session: Session, found: Float) -> dict[str, Any]:
    short = found.short_units
    return {
        "balance": session.text(found.balance_units),
        "held": session.text(found.held_units),
        "short": session.text(short) if short else None,
    }

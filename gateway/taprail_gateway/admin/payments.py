"""`taprail admin payment`: what became of payments, and what may be done to one by hand."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Connection, select

from taprail_common.clock import rfc3339
from taprail_common.errors import OperatorError
from taprail_common.payment_state import PaymentState
from taprail_gateway.admin import output
from taprail_gateway.admin.review import print_review
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.ledger import by_hand, queries, refunds, schema
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.queries import Payment, PaymentEventRow
from taprail_gateway.ledger.refunds import Refund

payments: Final = typer.Typer(
    help="What became of payments, and what may be done to one by hand.", no_args_is_help=True
)

_MAX_LISTED: Final = 10_000
_SHORT_ID: Final = 14
_ID_START: Final = re.compile(r"0x[0-9a-f]{8,64}", re.ASCII)


@payments.command("list")
def list_payments(
    context: typer.Context,
    state: Annotated[PaymentState | None, typer.Option(help="Only those in this state.")] = None,
    card: Annotated[str | None, typer.Option(help="Only those of this card.")] = None,
    review: Annotated[
        bool,
        typer.Option(
            "--review",
            help="The list for manual review, the oldest first: what is not confirmed, why,"
            " and what happens next.",
        ),
    ] = False,
    limit: Annotated[int, typer.Option(help="At most.", min=1, max=_MAX_LISTED)] = 20,
    as_json: Json = False,
) -> None:
    """List payments, the newest first."""
    session = session_of(context)
    if review:
        print_review(session, limit, as_json=as_json)
        return
    rows = session.read(lambda connection: _newest(connection, state, card, limit))
    if not as_json:
        for row in rows:
            row["short"] = row["id"][:_SHORT_ID] + "…"
            row["amount"] = session.text(row["amount_units"])
            row["at"] = rfc3339(row["created_at_ms"])
    columns = {
        "short": "payment",
        "at": "accepted",
        "amount": "amount",
        "card_uuid": "card",
        "terminal_id": "terminal",
        "state": "state",
    }
    output.listing(rows, as_json=as_json, columns=columns, what="payment", none="No such payment.")


@payments.command("show")
def show(
    context: typer.Context,
    payment_id: Annotated[str, typer.Argument(help="The id, or how it begins.")],
    as_json: Json = False,
) -> None:
    """Show a payment and every step that it took."""
    session = session_of(context)
    payment = session.read(lambda connection: find(connection, payment_id.lower()))
    events = session.read(lambda connection: queries.history(connection, payment.id))
    given_back = session.read(lambda connection: refunds.of_sale(connection, payment.id))
    sale_id = session.read(lambda connection: refunds.sale_of(connection, payment.id))
    if as_json:
        output.print_json(_as_json(payment, events, given_back, sale_id))
        return
    output.record(
        {
            "id": payment.id,
            "state": payment.state,
            "amount": session.text(payment.amount_units),
            "card": payment.card_uuid,
            "terminal": payment.terminal_id,
            "merchant": payment.merchant_id,
            "tx": payment.tx_hash,
            "why": payment.failure_reason,
            "of": sale_id,
        },
        as_json=False,
        labels={
            "id": "payment",
            "state": "state",
            "amount": "amount",
            "card": "card",
            "terminal": "terminal",
            "merchant": "merchant",
            "tx": "transaction",
            "why": "reason",
            "of": "refund of",
        },
    )
    _print_timeline(payment, events)
    _print_refunds(session, given_back)


@payments.command("retry")
def retry(
    context: typer.Context,
    payment_ids: Annotated[
        list[str] | None, typer.Argument(help="The ids, or how they begin.", metavar="ID…")
    ] = None,
    all_failed: Annotated[
        bool, typer.Option("--all-failed", help="All that are `confirmation_failed`.")
    ] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for the record.")] = None,
    as_json: Json = False,
) -> None:
    """Send payments that are `confirmation_failed` round again.

    That can never charge twice, so it is safe at any time: a payment keeps its authorization nonce
    for ever, and the token itself refuses to carry it out a second time. If it was paid after all,
    it will be found out and becomes `completed`. Others are refused, all of them together.
    """
    session = session_of(context)
    by = session.by(reason)
    if bool(payment_ids) == all_failed:
        raise OperatorError("which payments?", fix="give ids, or --all-failed")
    if all_failed:
        done = _retry_all(session, by)
    else:
        done = session.write(lambda connection: _retry_each(connection, payment_ids or [], by))
    count = "1 payment goes" if len(done) == 1 else f"{len(done)} payments go"
    output.done({"retried": done}, f"{count} round again", as_json=as_json)


@payments.command("cancel")
def cancel(
    context: typer.Context,
    payment_id: Annotated[str, typer.Argument(help="The id, or how it begins.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; the customer is told it.")],
    as_json: Json = False,
) -> None:
    """Fail a pending payment that nobody has ever signed for, and give its funds back.

    Any other is refused: what was signed may be carried out by anyone, so that only the chain can
    tell what becomes of it.
    """
    session = session_of(context)
    by = session.by(reason)

    def work(connection: Connection) -> str:
        found = find(connection, payment_id.lower()).id
        by_hand.cancel(connection, found, by)
        return found

    cancelled = session.write(work)
    data = {"id": cancelled, "state": PaymentState.FAILED.value}
    output.done(data, f"payment {cancelled} is cancelled, its funds are released", as_json=as_json)


def _retry_each(connection: Connection, starts: list[str], by: By) -> list[str]:
    ids = [find(connection, start.lower()).id for start in starts]
    for each in dict.fromkeys(ids):
        by_hand.retry(connection, each, by)
    return list(dict.fromkeys(ids))


def _retry_all(session: Session, by: By) -> list[str]:
    listed = [each.id for each in session.read(by_hand.review_list)]
    done: list[str] = []
    for start in range(0, len(listed), by_hand.AT_ONCE):
        some = listed[start : start + by_hand.AT_ONCE]
        done += session.write(partial(by_hand.retry_listed, payment_ids=some, by=by))
    return done


def _print_timeline(payment: Payment, events: list[PaymentEventRow]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    for event in events:
        after_ms = event.at_ms - payment.created_at_ms
        table.add_row(
            f"+{after_ms} ms",
            rfc3339(event.at_ms),
            event.event,
            output.coloured(event.state),
            escape(event.detail or ""),
        )
    output.console().print()
    output.console().print(table)


def _print_refunds(session: Session, given_back: list[Refund]) -> None:
    rows = [
        {
            "refund": each.id[:_SHORT_ID] + "…",
            "at": rfc3339(each.created_at_ms),
            "amount": session.text(each.amount_units),
            "state": each.state,
            "why": each.failure_reason,
        }
        for each in given_back
    ]
    columns = {name: name for name in ("refund", "at", "amount", "state")} | {"why": "reason"}
    if rows:
        output.listing(rows, as_json=False, columns=columns, what="refund")


def _as_json(
    payment: Payment,
    events: list[PaymentEventRow],
    given_back: list[Refund],
    sale_id: str | None,
) -> dict[str, Any]:
    names = Payment.__slots__
    return {
        **{name: getattr(payment, name) for name in names},
        "refund_of": sale_id,
        "refunds": [
            {name: getattr(each, name) for name in Refund.__slots__} for each in given_back
        ],
        "events": [
            {
                "event": event.event,
                "state": event.state,
                "atMs": event.at_ms,
                "detail": event.detail,
            }
            for event in events
        ],
    }


def _newest(
    connection: Connection, state: PaymentState | None, card: str | None, limit: int
) -> list[dict[str, Any]]:
    p = schema.payments.c
    statement = select(
        p.id,
        p.request_id,
        p.terminal_id,
        p.merchant_id,
        p.card_uuid,
        p.amount_units,
        p.currency,
        p.state,
        p.created_at_ms,
        p.completed_at_ms,
        p.tx_hash,
        p.failure_reason,
    )
    if state is not None:
        statement = statement.where(p.state == state.value)
    if card is not None:
        statement = statement.where(p.card_uuid == card)
    statement = statement.order_by(p.created_at_ms.desc(), p.id).limit(limit)
    return [dict(row._mapping) for row in connection.execute(statement)]


def find(connection: Connection, start: str) -> Payment:
    """The payment whose id begins so; OperatorError unless there is exactly one."""
    if _ID_START.fullmatch(start) is None:
        raise OperatorError(
            f"{start[:70]!r} is not how a payment's id begins", fix="give 0x and 8 digits or more"
        )
    p = schema.payments.c
    # A range, not LIKE: it uses the index whatever the collation. "g" sorts after every digit.
    statement = select(p.id).where(p.id >= start, p.id < start + "g").limit(2)
    ids = list(connection.execute(statement).scalars())
    payment = queries.payment(connection, ids[0]) if len(ids) == 1 else None
    if payment is None:
        few = "there is no payment" if not ids else "several payments begin with"
        raise OperatorError(f"{few} {start}", fix="see `taprail admin payment list`")
    return payment

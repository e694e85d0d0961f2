"""`taprail admin queue`: stop and go, and what is done with payments that wait."""

from __future__ import annotations

import getpass
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection, func, select, update

from taprail_common.errors import OperatorError
from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.ledger import actions, queries, transitions
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.schema import chain_transactions, payment_is_open, payments
from taprail_gateway.settle.live import QUEUE_MODE, QueueMode

queue: Final = typer.Typer(
    help="Stop and go of settlement, and payments that wait.", no_args_is_help=True
)

Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]
_AT_ONCE: Final = 500
"""Payments cancelled in one commit: taps go on being answered in between."""


@queue.command("status")
def status(context: typer.Context, as_json: Json = False) -> None:
    """Show whether the queue runs, and how many payments are where."""
    data = session_of(context).read(_status)
    labels = {"mode": "queue", **{str(state): str(state) for state in _STATES}}
    output.record(data, as_json=as_json, labels={**labels, "unsigned": "never signed"})


@queue.command("pause")
def pause(context: typer.Context, reason: Reason, as_json: Json = False) -> None:
    """Bind nothing new: taps are accepted and wait, what is on its way goes on."""
    _switch(session_of(context), QueueMode.PAUSED, reason, as_json=as_json)


@queue.command("drain")
def drain(context: typer.Context, reason: Reason, as_json: Json = False) -> None:
    """Accept nothing new (terminals are told to try later), and finish what there is."""
    _switch(session_of(context), QueueMode.DRAINING, reason, as_json=as_json)


@queue.command("resume")
def resume(context: typer.Context, reason: Reason, as_json: Json = False) -> None:
    """End a pause or a drain."""
    _switch(session_of(context), QueueMode.RUNNING, reason, as_json=as_json)


@queue.command("cancel-unsent")
def cancel_unsent(
    context: typer.Context,
    reason: Reason,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this it only counts.")] = False,
    as_json: Json = False,
) -> None:
    """Cancel all pending payments that nobody has ever signed for; only while the queue is paused.

    They become `failed`, their holds are released, and merchants and customers are told. A payment
    that was signed for may still be carried out by anyone, so it is left as it is, and counted.
    """
    session = session_of(context)
    before = session.read(_status)
    if before["mode"] != QueueMode.PAUSED:
        raise OperatorError(
            f"the queue is {before['mode']}", fix="pause it first: taprail admin queue pause"
        )
    left = before["pending"] - before["unsigned"]
    if not yes:
        sentence = f"would cancel {before['unsigned']} payments, leave {left}; say --yes to do it"
        output.done({"cancelled": 0, "would": before["unsigned"]}, sentence, as_json=as_json)
        return
    cancelled = 0
    while some := session.write(lambda connection: _cancel_some(session, connection, reason)):
        cancelled += some
    by = _by(session, reason)
    session.write(
        lambda connection: actions.note(connection, "cancel-unsent", "queue", by, after=cancelled)
    )
    output.done(
        {"cancelled": cancelled, "left": left},
        f"{cancelled} payments cancelled, {left} left because they were signed for",
        as_json=as_json,
    )


@queue.command("reset-stuck")
def reset_stuck(
    context: typer.Context,
    reason: Reason,
    older_than_s: Annotated[
        int, typer.Option("--older-than", help="Seconds in `sent`.", min=0, max=86_400)
    ] = 300,
    as_json: Json = False,
) -> None:
    """Have transactions that hang broadcast again, then made dearer; none is ever bound anew."""
    session = session_of(context)
    by = _by(session, reason)

    def work(connection: Connection) -> int:
        before_ms = by.at_ms - older_than_s * 1000
        stuck = select(payments.c.chain_transaction_id).where(
            payments.c.state == PaymentState.SENT.value,
            payment_is_open,
            payments.c.sent_at_ms <= before_ms,
        )
        t = chain_transactions.c
        asked = update(chain_transactions).where(t.id.in_(stuck), t.status != "final")
        count = connection.execute(asked.values(rescue_asked_at_ms=by.at_ms)).rowcount
        actions.note(connection, "reset-stuck", "queue", by, after=count)
        return count

    count = session.write(work)
    output.done({"transactions": count}, f"{count} transactions are sent anew", as_json=as_json)


_STATES: Final = (
    PaymentState.PENDING,
    PaymentState.PROCESSING,
    PaymentState.SENT,
    PaymentState.CONFIRMATION_FAILED,
)


def _status(connection: Connection) -> dict[str, Any]:
    rows = actions.stored_settings(connection)
    counts = queries.open_counts(connection)
    unsigned = select(func.count()).where(
        payments.c.state == PaymentState.PENDING.value,
        payment_is_open,
        payments.c.signed_until_s == 0,
    )
    return {
        "mode": rows.get(QUEUE_MODE, QueueMode.RUNNING.value),
        **{str(state): counts[state] for state in _STATES},
        "unsigned": connection.scalar(unsigned) or 0,
    }


def _switch(session: Session, mode: QueueMode, reason: str, *, as_json: bool) -> None:
    by = _by(session, reason)
    value = None if mode is QueueMode.RUNNING else mode.value
    session.write(lambda connection: actions.set_values(connection, {QUEUE_MODE: value}, by))
    output.done({"mode": mode.value}, f"the queue is {mode} from now on", as_json=as_json)


def _cancel_some(session: Session, connection: Connection, reason: str) -> int:
    if actions.stored_settings(connection).get(QUEUE_MODE) != QueueMode.PAUSED:
        raise OperatorError("the queue was resumed meanwhile", fix="pause it again")
    unsigned = select(payments.c.id).where(
        payments.c.state == PaymentState.PENDING.value,
        payment_is_open,
        payments.c.signed_until_s == 0,
    )
    ids = list(connection.scalars(unsigned.limit(_AT_ONCE)))
    text = f"cancelled by the operator: {reason}"
    transitions.apply(
        connection,
        PaymentEvent.REJECT,
        ids,
        session.clock.now_ms(),
        detail=text,
        failure_reason=text,
    )
    return len(ids)


def _by(session: Session, reason: str) -> By:
    return By(f"cli:{getpass.getuser()}", session.clock.now_ms(), reason)

"""`taprail admin queue`: stop and go, and what is done with payments that wait or hang."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from sqlalchemy import Connection

from taprail_common.clock import rfc3339
from taprail_common.errors import OperatorError
from taprail_gateway.admin import output
from taprail_gateway.admin.lanes import lane_row, print_lanes
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.ledger import actions, by_hand, queue_report
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.queue_report import LastChange, QueueReport
from taprail_gateway.ledger.side_queues import SideQueue
from taprail_gateway.settle import tuning
from taprail_gateway.settle.live import QUEUE_MODE, QueueMode

queue: Final = typer.Typer(
    help="Stop and go of settlement, and payments that wait or hang.", no_args_is_help=True
)

Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]
MayReason = Annotated[str | None, typer.Option("--reason", help="Why, for the record.")]


@queue.command("status")
def status(context: typer.Context, as_json: Json = False) -> None:
    """Show whether the queue runs, how many payments are where, what follows from them, the lanes.

    Mints are rewards, callbacks hand on what has happened; neither ever holds up a payment.
    """
    session = session_of(context)
    now_ms = session.clock.now_ms()
    mode, change, report = session.read(partial(_status, now_ms=now_ms))
    states = [
        {"state": str(each.state), "count": each.count, "oldestS": _age_s(each.oldest_ms, now_ms)}
        for each in report.states
    ]
    queues = [_queue_row(each, now_ms) for each in report.side_queues]
    if as_json:
        data = {"mode": mode, "changed": asdict(change) if change else None, "states": states}
        more = {
            "queues": {row.pop("name"): row for row in queues},
            "openAlerts": report.open_alerts,
        }
        lanes = [lane_row(lane) for lane in report.lanes]
        output.print_json({**data, "neverSigned": report.never_signed, **more, "lanes": lanes})
        return
    output.console().print(_headline(mode, change, report))
    columns = {"state": "state", "count": "payments", "oldestS": "oldest, s"}
    output.listing(states, as_json=False, columns=columns, what="state")
    columns = {name: name for name in queues[0]} | {"name": "queue", "oldestS": "oldest, s"}
    output.listing(queues, as_json=False, columns=columns, what="queue")
    print_lanes(report.lanes, now_ms)


@queue.command("pause")
def pause(context: typer.Context, reason: Reason, as_json: Json = False) -> None:
    """Bind nothing new: taps are accepted and wait, what is signed already goes on.

    What waits is kept, and goes out after `queue resume`.
    """
    _switch(session_of(context), QueueMode.PAUSED, reason, as_json=as_json)


@queue.command("drain")
def drain(context: typer.Context, reason: Reason, as_json: Json = False) -> None:
    """Accept nothing new, and finish what there is: before a gateway is taken out of service.

    Terminals are told to ask again later (503, never a decline) while a tap may still be charged,
    and get their final answer when it cannot be any more. `queue status` shows what is left.
    """
    _switch(session_of(context), QueueMode.DRAINING, reason, as_json=as_json)


@queue.command("resume")
def resume(context: typer.Context, reason: MayReason = None, as_json: Json = False) -> None:
    """End a pause or a drain."""
    _switch(session_of(context), QueueMode.RUNNING, reason, as_json=as_json)


@queue.command("cancel-unsent")
def cancel_unsent(
    context: typer.Context,
    reason: Annotated[str, typer.Option("--reason", help="Why; customers are told it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this it only counts.")] = False,
    as_json: Json = False,
) -> None:
    """Cancel all pending payments that nobody has ever signed for; only while the queue is paused.

    They become `failed`, their holds and spend are given back, and merchants and customers are
    told. A payment that was signed for may still be carried out by anyone, so it is left pending
    (parked, as long as the pause lasts) and counted. Without --yes it only says what it would do.
    """
    session = session_of(context)
    by = session.by(reason)
    unsigned, left = session.read(_cancellable)
    if not yes:
        sentence = f"would cancel {unsigned} payments and leave {left}; say --yes to do it"
        data = {"cancelled": 0, "wouldCancel": unsigned, "left": left}
        output.done(data, sentence, as_json=as_json)
        return
    cancelled = 0
    while some := session.write(lambda connection: _cancel_some(connection, by)):
        cancelled += some
    _, left = session.read(_cancellable)
    sentence = f"{cancelled} payments cancelled"
    if left:
        sentence += (
            f"; {left} are left pending, because what was signed for them may be carried out"
        )
    output.done({"cancelled": cancelled, "left": left}, sentence, as_json=as_json)


@queue.command("reset-stuck")
def reset_stuck(
    context: typer.Context,
    older_than_s: Annotated[
        int | None,
        typer.Option(
            "--older-than",
            help="Seconds in `sent`; the setting reset_stuck_after_s (300) when left out.",
            min=0,
            max=86_400,
        ),
    ] = None,
    reason: MayReason = None,
    as_json: Json = False,
) -> None:
    """Have transactions that hang broadcast again, then made dearer. None is ever bound anew.

    Each payment keeps its transaction and its nonce, so this can be repeated without harm.
    """
    session = session_of(context)
    by = session.by(reason)
    older_s = _stuck_after_s(session) if older_than_s is None else older_than_s
    stuck = session.write(lambda connection: by_hand.ask_rescue(connection, older_s, by))
    sentence = (
        f"{stuck.payments} payments in {stuck.transactions} transactions: the gateway sends them"
        " again, and raises their fees if that does not help"
    )
    if not stuck.transactions:
        sentence = f"nothing hangs for {older_s} s or longer"
    output.done(asdict(stuck), sentence, as_json=as_json)


def _status(connection: Connection, *, now_ms: int) -> tuple[str, LastChange | None, QueueReport]:
    change = queue_report.last_change(connection, QUEUE_MODE)
    return _mode(connection), change, queue_report.report(connection, now_ms)


def _queue_row(queue: SideQueue, now_ms: int) -> dict[str, Any]:
    row = asdict(queue)
    row["oldestS"] = _age_s(row.pop("oldest_ms"), now_ms)
    return row


def _mode(connection: Connection) -> str:
    return str(actions.stored_settings(connection).get(QUEUE_MODE, QueueMode.RUNNING.value))


def _headline(mode: str, change: LastChange | None, report: QueueReport) -> str:
    if change is None:
        line = f"The queue is [green]{mode}[/]."
    else:
        why = f": {escape(change.reason)}" if change.reason else ""
        since = f"{rfc3339(change.at_ms)} by {escape(change.actor)}{why}"
        line = f"The queue is [yellow]{mode}[/] since {since}."
    if mode == QueueMode.DRAINING:
        left = report.unfinished
        line += f" {left} payments are left." if left else " Nothing is left: it may be stopped."
    if report.open_alerts:
        line += f" [yellow]Open alerts: {report.open_alerts}[/], see `taprail admin alert list`."
    return line


def _age_s(since_ms: int | None, now_ms: int) -> int | None:
    return None if since_ms is None else max(0, now_ms - since_ms) // 1000


_SAID: Final = {
    QueueMode.RUNNING: "the queue runs",
    QueueMode.PAUSED: "the queue is paused: nothing new is sent",
    QueueMode.DRAINING: "the queue drains: nothing new is accepted",
}


def _switch(session: Session, mode: QueueMode, reason: str | None, *, as_json: bool) -> None:
    by = session.by(reason)
    value = None if mode is QueueMode.RUNNING else mode.value

    def work(connection: Connection) -> str:
        before = _mode(connection)
        if before != mode:
            was, becomes = {QUEUE_MODE: before}, {QUEUE_MODE: mode.value}
            actions.set_values(connection, {QUEUE_MODE: value}, by, was=was, becomes=becomes)
        return before

    before = session.write(work)
    when = "already" if before == mode else "within a second of now"
    data: dict[str, Any] = {"mode": mode.value, "before": before}
    output.done(data, f"{_SAID[mode]}, {when}", as_json=as_json)


def _cancellable(connection: Connection) -> tuple[int, int]:
    """How many pending payments can be cancelled, and how many cannot; refused without a pause."""
    _require_pause(connection)
    waiting, unsigned = queue_report.pending(connection)
    return unsigned, waiting - unsigned


def _cancel_some(connection: Connection, by: By) -> int:
    _require_pause(connection)
    return by_hand.cancel_unsigned(connection, by)


def _require_pause(connection: Connection) -> None:
    mode = _mode(connection)
    if mode != QueueMode.PAUSED:
        raise OperatorError(
            f"the queue is {mode}", fix="pause it first: taprail admin queue pause --reason …"
        )


def _stuck_after_s(session: Session) -> int:
    base = session.settings.settlement
    return session.read(lambda connection: tuning.in_force(connection, base)).reset_stuck_after_s

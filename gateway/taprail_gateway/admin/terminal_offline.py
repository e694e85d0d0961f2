"""`taprail admin terminal offline`: what terminals may take while they cannot ask."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection

from taprail_common.clock import rfc3339
from taprail_gateway import registry
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.ledger import offline, schema
from taprail_gateway.offline_policy import Limits, Terms

policies: Final = typer.Typer(
    help="What terminals may take without asking; off until it is set.", no_args_is_help=True
)

Reason = Annotated[str | None, typer.Option(help="Why, for the record.")]


@policies.command("set")
def set_policy(
    context: typer.Context,
    terminal_id: str,
    per_tap: Annotated[str, typer.Option(help="The most that one tap may pay, like 10.00.")],
    total: Annotated[str, typer.Option("--sum", help="The most that may wait, like 50.00.")],
    count: Annotated[int, typer.Option(help="How many taps may wait, 1 to 50.")],
    age: Annotated[int, typer.Option(help="For how many seconds, 60 to 86400.")],
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Let a terminal take cards that sign while the gateway is away, within these limits. What is
    declined later is the merchant's loss; an alert tells of each."""
    session = session_of(context)
    limits = Limits(session.units(per_tap), count, session.units(total), age)
    by = session.by(reason)
    terms = session.write(lambda db: offline.put(db, terminal_id, limits, by))
    data = {"id": terminal_id, **_told(terms)}
    sentence = (
        f"terminal {terminal_id} may take {count} taps of {session.text(limits.per_tap_units)},"
        f" {session.text(limits.sum_units)} in all, for {age} s"
    )
    output.done(data, sentence, as_json=as_json)


@policies.command("off")
def off(
    context: typer.Context, terminal_id: str, reason: Reason = None, as_json: Json = False
) -> None:
    """Let a terminal take nothing offline any more. One that is away right now hears of it when it
    is back; until then it goes on within the limits, for as long as it was allowed."""
    session = session_of(context)
    by = session.by(reason)
    ended = session.write(lambda db: offline.end(db, terminal_id, by))
    until = rfc3339(by.at_ms + ended.limits.max_age_s * 1000)
    data = {"id": terminal_id, "lastTapsUntil": until}
    sentence = f"terminal {terminal_id} takes nothing offline any more, at the latest from {until}"
    output.done(data, sentence, as_json=as_json)


@policies.command("show")
def show(context: typer.Context, terminal_id: str, as_json: Json = False) -> None:
    """Show what a terminal may take offline, and what came of all that it has taken so."""
    session = session_of(context)
    data = session.read(lambda connection: _described(connection, terminal_id))
    if as_json:
        output.print_json(data)
        return
    output.record(_in_words(session, data), as_json=False, labels=_LABELS)


_LABELS: Final = {
    "offline": "offline",
    "per_tap": "one tap",
    "max_count": "taps",
    "sum": "in all",
    "age": "for",
    "taken": "taken so far",
    "lost": "of it lost",
}


def _described(connection: Connection, terminal_id: str) -> dict[str, Any]:
    registry.require(connection, schema.terminals, "terminal", terminal_id)
    terms = offline.policy(connection, terminal_id)
    figures = offline.figures(connection, terminal_id)
    return {
        "id": terminal_id,
        "policy": None if terms is None else _told(terms),
        "taken": {"count": figures.count, "units": figures.units},
        "lost": {"count": figures.lost_count, "units": figures.lost_units},
    }


def _told(terms: Terms) -> dict[str, Any]:
    """A policy as JSON."""
    names = {
        "per_tap_units": "perTapUnits",
        "max_count": "maxCount",
        "sum_units": "sumUnits",
        "max_age_s": "maxAgeS",
    }
    limits = {names[name]: value for name, value in asdict(terms.limits).items()}
    return {"version": terms.version, **limits, "setAt": rfc3339(terms.set_at_ms)}


def _in_words(session: Session, data: dict[str, Any]) -> dict[str, Any]:
    policy = data["policy"]
    words = {
        name: f"{data[name]['count']} taps, {session.text(data[name]['units'])}"
        for name in ("taken", "lost")
    }
    if policy is None:
        return {"offline": "off", **words}
    return {
        "offline": f"on, version {policy['version']}, since {policy['setAt']}",
        "per_tap": session.text(policy["perTapUnits"]),
        "max_count": policy["maxCount"],
        "sum": session.text(policy["sumUnits"]),
        "age": f"{policy['maxAgeS']} s",
        **words,
    }

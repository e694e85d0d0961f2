"""`taprail admin terminal list`, `show` and `diagnose`: how terminals are."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Final

import typer
from sqlalchemy import Connection, select

from taprail_common.api.fleet import DiagnosisAnswer, TerminalHealth
from taprail_common.errors import OperatorError
from taprail_common.signing import fingerprint, parse_public_key
from taprail_gateway import registry
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.diagnosis import WORDS, Stage, stage
from taprail_gateway.fleet_view import diagnosis_body, health_body
from taprail_gateway.ledger import fleet, schema
from taprail_gateway.ledger.fleet import Diagnosis, DiagnosisRunsError, Health

_LOOK_EVERY_S: Final = 0.25

_COLUMNS: Final = {
    "id": "terminal",
    "merchant_id": "merchant",
    "status": "status",
    "heard": "heard",
    "version": "version",
    "reader": "reader",
    "unconfirmed": "unconfirmed",
    "config": "settings",
    "fingerprint": "key",
}
_LABELS: Final = {
    "id": "terminal",
    "name": "name",
    "merchant_id": "merchant",
    "status": "status",
    "fingerprint": "key",
    "heard": "heard",
    "version": "version",
    "phase": "shows",
    "reader": "reader",
    "unconfirmed": "unconfirmed",
    "uptime": "runs for",
    "clock": "clock",
    "config": "settings",
    "diagnosis": "last diagnosis",
}


def register(terminals: typer.Typer) -> None:
    """Add the commands to the group."""
    terminals.command("list")(list_terminals)
    terminals.command("show")(show)
    terminals.command("diagnose")(diagnose)


def list_terminals(context: typer.Context, as_json: Json = False) -> None:
    """List all terminals and how they are; one that was not heard for 90 s is silent."""
    session = session_of(context)
    rows = session.read(_all)
    now_ms = session.clock.now_ms()
    told = [_told(row, health, now_ms) for row, health in rows]
    shown = told if as_json else [{**row, **_in_words(row, now_ms)} for row in told]
    output.listing(shown, as_json=as_json, columns=_COLUMNS, what="terminal")


def show(context: typer.Context, terminal_id: str, as_json: Json = False) -> None:
    """Show how a terminal is, what is wanted of its settings, and what it has found last."""
    session = session_of(context)
    row, health, asked = session.read(partial(_one, terminal_id=terminal_id))
    now_ms = session.clock.now_ms()
    found = None if asked is None or asked.report is None else diagnosis_body(asked)
    told = _told(row, health, now_ms)
    told["diagnosis"] = None if found is None else found.model_dump(mode="json", by_alias=True)
    if as_json:
        output.print_json(told)
        return
    words = {**told, **_in_words(told, now_ms), "diagnosis": _summary(found)}
    output.record(words, as_json=False, labels=_LABELS)


def diagnose(context: typer.Context, terminal_id: str, as_json: Json = False) -> None:
    """Have a terminal look at all of its parts now, through a running gateway. Lights and tones
    are left alone. The exit code is 1 when something is not as it should be."""
    session = session_of(context)
    found = _ask(session, terminal_id)
    if as_json:
        output.print_json(found.model_dump(mode="json", by_alias=True))
    else:
        rows = [
            {
                "part": check.name,
                "state": "ok" if check.ok else "NOT OK",
                "detail": check.detail,
                "fix": check.what_to_do,
            }
            for check in found.checks
        ]
        columns = {"part": "part", "state": "", "detail": "found", "fix": "what to do"}
        output.listing(rows, as_json=False, columns=columns, what="check")
    if not found.ok:
        raise typer.Exit(1)


def _ask(session: Session, terminal_id: str) -> DiagnosisAnswer:
    """Ask by the ledger, which a running gateway looks into; raises OperatorError without a
    report in time."""
    by = session.by()
    try:
        asked = session.write(partial(fleet.ask, terminal_id=terminal_id, by=by))
    except DiagnosisRunsError as exc:
        raise OperatorError(exc.message, fix=exc.fix, code=exc.code) from exc
    found = asked
    while (at := stage(found, session.clock.now_ms())) is Stage.WAITING:
        time.sleep(_LOOK_EVERY_S)
        seen = session.read(partial(fleet.diagnosis_of, terminal_id=terminal_id))
        found = asked if seen is None or seen.id != asked.id else seen
    if at is Stage.ANSWERED:
        return diagnosis_body(found)
    now_ms = session.clock.now_ms()
    session.write(partial(fleet.give_up, asked=asked, now_ms=now_ms))
    raise OperatorError(WORDS[at], fix="is a gateway running, and the terminal on?", code=at.value)


_t, _STATUS = schema.terminals.c, schema.terminal_status.label("status")
_ROWS: Final = select(_t.id, _t.merchant_id, _t.name, _t.public_key, _STATUS)


def _all(connection: Connection) -> list[tuple[dict[str, Any], Health]]:
    rows = [dict(row) for row in connection.execute(_ROWS.order_by(_t.created_at_ms)).mappings()]
    health = fleet.health_of(connection, [row["id"] for row in rows])
    return [(row, health[row["id"]]) for row in rows]


def _one(
    connection: Connection, *, terminal_id: str
) -> tuple[dict[str, Any], Health, Diagnosis | None]:
    registry.require(connection, schema.terminals, "terminal", terminal_id)
    row = connection.execute(_ROWS.where(_t.id == terminal_id)).mappings().one()
    health = fleet.health_of(connection, [terminal_id])
    return dict(row), health[terminal_id], fleet.diagnosis_of(connection, terminal_id)


def _told(row: dict[str, Any], health: Health, now_ms: int) -> dict[str, Any]:
    """A terminal as JSON."""
    shown = fingerprint(parse_public_key(row["public_key"]))
    told = health_body(health, now_ms).model_dump(mode="json", by_alias=True)
    return {**row, "fingerprint": shown, "health": told}


def _in_words(row: dict[str, Any], now_ms: int) -> dict[str, Any]:
    """The same for people."""
    health = TerminalHealth.model_validate(row["health"])
    reader = None if health.reader is None else health.reader
    if health.reader_ok is False:
        reader = f"NOT OK: {health.reader}"
    return {
        "heard": _heard(health, now_ms),
        "version": health.version,
        "phase": health.phase,
        "reader": reader,
        "unconfirmed": health.unconfirmed,
        "uptime": None if health.uptime_seconds is None else _lasting(health.uptime_seconds),
        "clock": None if health.clock_offset_ms is None else f"{-health.clock_offset_ms:+d} ms",
        "config": _config(health),
    }


def _heard(health: TerminalHealth, now_ms: int) -> str:
    if health.last_heard_at is None:
        return "never"
    ago = f"{_lasting(max(0, now_ms - health.last_heard_at) // 1000)} ago"
    return f"SILENT, {ago}" if health.is_silent else ago


def _config(health: TerminalHealth) -> str:
    config = health.config
    wanted = f"version {config.wanted_version}"
    match config.state:
        case "none":
            return "its own"
        case "applied":
            return wanted
        case "waiting":
            return f"{wanted} is wanted, it has {config.applied_version or 0}"
        case "refused":
            return f"{wanted} REFUSED: {config.reason}"


def _summary(found: DiagnosisAnswer | None) -> str | None:
    if found is None:
        return None
    bad = [check.name for check in found.checks if not check.ok]
    return f"NOT OK: {', '.join(bad)}" if bad else f"all {len(found.checks)} parts ok"


def _lasting(seconds: int) -> str:
    """A time span as people say it."""
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"

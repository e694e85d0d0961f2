"""The fleet in the ledger: heartbeats, wanted configurations and diagnoses. Functions on a
connection.

Answers for one wanted configuration of each terminal, each change of it a version of its own, and
for one diagnosis of a terminal at a time. What a terminal says never changes what is wanted of it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, or_, select, update

from taprail_common.errors import OperatorError, TapRailError
from taprail_common.ids import new_id
from taprail_common.terminal_settings import MAX_VERSION, ConfigReport
from taprail_gateway.heartbeats import Beat
from taprail_gateway.ledger import actions
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.prepared import Prepared
from taprail_gateway.ledger.schema import terminals
from taprail_gateway.ledger.schema_fleet import (
    terminal_beats,
    terminal_config_reports,
    terminal_configs,
    terminal_diagnoses,
)
from taprail_gateway.ledger.upserts import Insert, Upsert

DIAGNOSED_WITHIN_MS: Final = 30_000
"""A self-test is over within 25 s (`console.selftest` at the terminal)."""

MAX_CHANGES: Final = 500
"""Read at once."""

_t, _b, _c = terminals.c, terminal_beats.c, terminal_configs.c
_r, _d = terminal_config_reports.c, terminal_diagnoses.c


class DiagnosisRunsError(TapRailError):
    """Somebody else has asked; one at a time."""

    code = "terminal_busy"
    retryable = True


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of a terminal's settings."""

    terminal_id: str
    version: int
    settings: Mapping[str, Any]
    set_at_ms: int
    set_by: str


@dataclass(frozen=True, slots=True)
class Reported:
    """What a terminal says that it made of it."""

    version: int
    outcome: str | None
    reason: str | None
    applied_version: int
    settings: Mapping[str, Any]
    reported_at_ms: int


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A diagnosis that was asked for; `report` is what the terminal has signed."""

    terminal_id: str
    id: str
    asked_at_ms: int
    deadline_ms: int
    told_at_ms: int | None = None
    answered_at_ms: int | None = None
    report: str | None = None
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """All that the ledger knows of how a terminal is."""

    beat: Beat | None
    wanted: Wanted | None
    reported: Reported | None


# --- heartbeats -----------------------------------------------------------------------------------


def standing(connection: Connection, terminal_id: str) -> tuple[str, int]:
    """A terminal's status, and the version of the configuration that is wanted of it; 0: none."""
    row = connection.execute(
        select(_t.status, _c.version)
        .join_from(terminals, terminal_configs, _t.id == _c.terminal_id, isouter=True)
        .where(_t.id == terminal_id)
    ).one()
    return row[0], row[1] or 0


def write_beats(connection: Connection, beats: Sequence[Beat]) -> None:
    """Keep these; of two of one terminal the later one stays."""
    ordered = sorted(beats, key=lambda beat: beat.terminal_id)  # see `ledger.collisions`
    rows = [{**asdict(beat), "reader_ok": int(beat.reader_ok)} for beat in ordered]
    _BEAT.run_each(connection, rows)


def _beat(insert_: Insert) -> Insert:
    names = [each.name for each in fields(Beat)]
    given = insert_.values({name: bindparam(name) for name in names})
    return given.on_conflict_do_update(
        index_elements=["terminal_id"],
        set_={name: given.excluded[name] for name in names if name != "terminal_id"},
        where=_b.heard_at_ms <= given.excluded.heard_at_ms,
    )


_BEAT: Final = Prepared(
    Upsert(terminal_beats, _beat).statement, [each.name for each in fields(Beat)]
)


def health_of(connection: Connection, terminal_ids: Collection[str]) -> dict[str, Health]:
    """How these terminals are, by their ids."""
    beats = {row["terminal_id"]: row for row in _of(connection, terminal_beats, terminal_ids)}
    wanted = {row["terminal_id"]: row for row in _of(connection, terminal_configs, terminal_ids)}
    reports = {
        row["terminal_id"]: row for row in _of(connection, terminal_config_reports, terminal_ids)
    }
    return {
        each: Health(
            _beat_of(beats[each]) if each in beats else None,
            _wanted_of(wanted[each]) if each in wanted else None,
            _reported_of(reports[each]) if each in reports else None,
        )
        for each in terminal_ids
    }


def _of(
    connection: Connection, table: Any, terminal_ids: Collection[str]
) -> list[Mapping[str, Any]]:
    found = select(table).where(table.c.terminal_id.in_(terminal_ids))
    return [dict(row) for row in connection.execute(found).mappings()]


def _beat_of(row: Mapping[str, Any]) -> Beat:
    return Beat(**{**row, "reader_ok": bool(row["reader_ok"])})


def _wanted_of(row: Mapping[str, Any]) -> Wanted:
    return Wanted(**{**row, "settings": json.loads(row["settings"])})


def _reported_of(row: Mapping[str, Any]) -> Reported:
    values = {name: row[name] for name in row if name != "terminal_id"}
    return Reported(**{**values, "settings": json.loads(row["settings"])})


# --- configurations -------------------------------------------------------------------------------


def want(connection: Connection, terminal_id: str, changes: Mapping[str, Any], by: By) -> Wanted:
    """Want these settings as well, as the next version. What is wanted already is no change, and
    keeps its version. Raises OperatorError for no such terminal, or a revoked one."""
    _require_active(connection, terminal_id)
    before = wanted(connection, terminal_id)
    settings = {**({} if before is None else before.settings), **changes}
    if before is not None and before.settings == settings:
        return before
    version = 1 if before is None else before.version + 1
    if version > MAX_VERSION:
        raise OperatorError("this terminal's settings cannot be changed any more", code="too_many")
    made = Wanted(terminal_id, version, settings, by.at_ms, by.actor)
    row = {**asdict(made), "settings": json.dumps(settings, sort_keys=True)}
    if before is None:
        connection.execute(insert(terminal_configs).values(row))
    else:
        connection.execute(
            update(terminal_configs).where(_c.terminal_id == terminal_id).values(row)
        )
    old = {name: before.settings.get(name) for name in changes} if before is not None else None
    actions.note(connection, "want-config", terminal_id, by, before=old, after=dict(changes))
    return made


def active_terminals(connection: Connection) -> list[str]:
    """The ids of all that may take payments."""
    return list(connection.scalars(select(_t.id).where(_t.status == "active").order_by(_t.id)))


def wanted(connection: Connection, terminal_id: str) -> Wanted | None:
    """What is wanted of a terminal; None: nothing was ever."""
    rows = _of(connection, terminal_configs, [terminal_id])
    return _wanted_of(rows[0]) if rows else None


def wanted_since(connection: Connection, since_ms: int) -> list[tuple[str, int]]:
    """The terminals of which something else is wanted since then, and the versions."""
    found = select(_c.terminal_id, _c.version).where(_c.set_at_ms >= since_ms).limit(MAX_CHANGES)
    return [(row[0], row[1]) for row in connection.execute(found)]


def report(connection: Connection, said: ConfigReport, now_ms: int) -> None:
    """Keep what a terminal says that it made of it."""
    row = {
        "terminal_id": said.terminal_id,
        "version": said.version,
        "outcome": said.outcome,
        "reason": said.reason,
        "applied_version": said.applied_version,
        "settings": json.dumps(said.model_dump(mode="json")["settings"], sort_keys=True),
        "reported_at_ms": now_ms,
    }
    _REPORT.run(connection, row)


def _report(insert_: Insert) -> Insert:
    names = [column.name for column in terminal_config_reports.columns]
    given = insert_.values({name: bindparam(name) for name in names})
    return given.on_conflict_do_update(
        index_elements=["terminal_id"],
        set_={name: given.excluded[name] for name in names if name != "terminal_id"},
    )


_REPORT: Final = Prepared(Upsert(terminal_config_reports, _report).statement)


# --- diagnoses ------------------------------------------------------------------------------------


def ask(connection: Connection, terminal_id: str, by: By) -> Diagnosis:
    """Ask a terminal for a diagnosis. Raises DiagnosisRunsError while another one runs, and
    OperatorError for no such terminal, or a revoked one."""
    _require_active(connection, terminal_id)
    before = diagnosis_of(connection, terminal_id)
    if before is not None and before.answered_at_ms is None and before.deadline_ms > by.at_ms:
        raise DiagnosisRunsError("a diagnosis of this terminal runs already", fix="wait for it")
    asked = Diagnosis(terminal_id, new_id("diag"), by.at_ms, by.at_ms + DIAGNOSED_WITHIN_MS)
    if before is None:
        connection.execute(insert(terminal_diagnoses).values(asdict(asked)))
    else:
        mine = _d.terminal_id == terminal_id
        connection.execute(update(terminal_diagnoses).where(mine).values(asdict(asked)))
    actions.note(connection, "diagnose", terminal_id, by)
    return asked


def diagnosis_of(connection: Connection, terminal_id: str) -> Diagnosis | None:
    """The last one that was asked for; None: there was none."""
    rows = _of(connection, terminal_diagnoses, [terminal_id])
    return Diagnosis(**rows[0]) if rows else None


def untold(connection: Connection, terminal_ids: Collection[str], now_ms: int) -> list[Diagnosis]:
    """Those of these terminals' diagnoses that they have not been asked for yet."""
    since_ms = now_ms - DIAGNOSED_WITHIN_MS
    found = (
        select(terminal_diagnoses)
        .where(_d.asked_at_ms >= since_ms, _d.deadline_ms > now_ms, _d.told_at_ms.is_(None))
        .limit(MAX_CHANGES)
    )
    rows = connection.execute(found).mappings()
    return [Diagnosis(**row) for row in rows if row["terminal_id"] in terminal_ids]


def told(connection: Connection, asked: Diagnosis, now_ms: int) -> None:
    """The terminal is being asked."""
    which = (_d.id == asked.id, _d.terminal_id == asked.terminal_id, _d.told_at_ms.is_(None))
    connection.execute(update(terminal_diagnoses).where(*which).values(told_at_ms=now_ms))


def give_up(connection: Connection, asked: Diagnosis, now_ms: int) -> None:
    """Nobody waits for it any more, so that another one may be asked for."""
    which = (_d.terminal_id == asked.terminal_id, _d.id == asked.id, _d.report.is_(None))
    connection.execute(update(terminal_diagnoses).where(*which).values(deadline_ms=now_ms))


def answer(
    connection: Connection,
    terminal_id: str,
    diagnosis_id: str,
    body: str,
    signature: str,
    now_ms: int,
) -> bool:
    """Keep a terminal's report; False when it is not what was asked for last. The same one may come
    twice, its answer having been lost."""
    which = (_d.terminal_id == terminal_id, _d.id == diagnosis_id)
    values = {"report": body, "signature": signature, "answered_at_ms": now_ms}
    is_open = or_(_d.report.is_(None), _d.report == body)
    done = connection.execute(update(terminal_diagnoses).where(*which, is_open).values(values))
    return done.rowcount == 1


def _require_active(connection: Connection, terminal_id: str) -> None:
    """Have the terminal's row alone until the end of the transaction: one change at a time."""
    which = select(_t.status).where(_t.id == terminal_id).with_for_update(key_share=True)
    status = connection.scalar(which)
    if status is None:
        raise OperatorError(
            f"there is no terminal {terminal_id!r}",
            fix="see `taprail admin terminal list`",
            code="not_found",
        )
    if status != "active":
        raise OperatorError(f"terminal {terminal_id} is {status}", code="wrong_state")

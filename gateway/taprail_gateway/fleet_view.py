"""Terminals' health and diagnoses in the words of the contract. Pure."""

from __future__ import annotations

from typing import Literal

from taprail_common.api.fleet import (
    CheckPart,
    DiagnosisAnswer,
    TerminalConfigPart,
    TerminalHealth,
)
from taprail_common.errors import InputError
from taprail_gateway.diagnosis import report_of
from taprail_gateway.ledger.fleet import Diagnosis, Health, Reported, Wanted


def health_body(health: Health, now_ms: int) -> TerminalHealth:
    """How a terminal is."""
    beat = health.beat
    return TerminalHealth(
        last_heard_at=None if beat is None else beat.heard_at_ms,
        is_silent=beat is None or beat.is_silent(now_ms),
        version=None if beat is None else beat.version,
        phase=None if beat is None else beat.phase,
        reader_ok=None if beat is None else beat.reader_ok,
        reader=None if beat is None else beat.reader,
        unconfirmed=None if beat is None else beat.unconfirmed,
        unresolved=None if beat is None else beat.unresolved,
        unsettled=None if beat is None else beat.unsettled,
        uptime_seconds=None if beat is None else beat.uptime_s,
        clock_offset_ms=None if beat is None else beat.clock_offset_ms,
        config=config_body(health.wanted, health.reported),
    )


def config_body(wanted: Wanted | None, reported: Reported | None) -> TerminalConfigPart:
    """What is wanted of a terminal, and what it made of it."""
    if wanted is None:
        applied = None if reported is None else reported.applied_version
        return TerminalConfigPart(
            wanted_version=None, applied_version=applied, state="none", reason=None
        )
    state = _state(wanted, reported)
    return TerminalConfigPart(
        wanted_version=wanted.version,
        applied_version=None if reported is None else reported.applied_version,
        state=state,
        reason=reported.reason if reported is not None and state == "refused" else None,
    )


def _state(wanted: Wanted, reported: Reported | None) -> Literal["waiting", "applied", "refused"]:
    if reported is None or reported.version != wanted.version:
        return "waiting"
    return "applied" if reported.outcome == "applied" else "refused"


def diagnosis_body(asked: Diagnosis) -> DiagnosisAnswer:
    """What a terminal has found. Raises InputError when it has not told yet."""
    report = report_of(asked)
    if report is None or asked.answered_at_ms is None:
        raise InputError("diagnosis", "is not answered yet")
    return DiagnosisAnswer(
        terminal_id=asked.terminal_id,
        diagnosis_id=asked.id,
        asked_at=asked.asked_at_ms,
        answered_at=asked.answered_at_ms,
        version=report.version,
        ok=all(check.ok for check in report.checks),
        checks=[CheckPart.model_validate(check) for check in report.checks],
    )

"""How far a diagnosis of a terminal is. Pure.

Answers for when whoever has asked stops waiting: a terminal that no gateway has a socket of is
away, and one that was asked has until the deadline.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from taprail_common.fleet_wire import DiagnosisReport
from taprail_common.wire import parse
from taprail_gateway.ledger.fleet import Diagnosis

FOUND_WITHIN_MS: Final = 4_000
"""Every gateway looks each second for whom it is to ask."""


class Stage(StrEnum):
    """Where a diagnosis is."""

    WAITING = "waiting"
    ANSWERED = "answered"
    AWAY = "terminal_offline"
    """No gateway has its socket."""
    LATE = "timed_out"
    """It was asked, and has not answered in time."""


WORDS: Final = {
    Stage.AWAY: "the terminal is not connected to any gateway",
    Stage.LATE: "the terminal has not answered in time",
}


def stage(asked: Diagnosis, now_ms: int) -> Stage:
    """How far it is."""
    if asked.report is not None:
        return Stage.ANSWERED
    if asked.told_at_ms is None and now_ms - asked.asked_at_ms >= FOUND_WITHIN_MS:
        return Stage.AWAY
    return Stage.LATE if now_ms >= asked.deadline_ms else Stage.WAITING


def report_of(asked: Diagnosis) -> DiagnosisReport | None:
    """What the terminal has found; None when it has not told yet."""
    return None if asked.report is None else parse(DiagnosisReport, asked.report)

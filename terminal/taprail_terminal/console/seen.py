"""Tests that a person has to judge, and who has changed what here.

Answers for saying what should have been seen or heard; whether it was, the technician's tool asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from taprail_common.clock import rfc3339
from taprail_terminal.console.answers import EXIT_NOT_OK, EXIT_OK, CommandResult, table
from taprail_terminal.console.desk import Desk
from taprail_terminal.console.look import number
from taprail_terminal.feedback.parts import PartHealth

_MAX_CHANGES: Final = 100


async def lights(desk: Desk, _args: Sequence[str]) -> CommandResult:
    """Each lamp in turn."""
    health = await desk.probes.feedback.test_lights()
    return _asked(health, "did every lamp light up, one after the other?")


async def display(desk: Desk, _args: Sequence[str]) -> CommandResult:
    """A test picture."""
    health = await desk.probes.feedback.test_display()
    return _asked(health, "did the display show a test picture for a moment?")


async def buzzer(desk: Desk, _args: Sequence[str]) -> CommandResult:
    """Three tones."""
    return _asked(await desk.probes.feedback.test_buzzer(), "did you hear three tones?")


async def technicians(desk: Desk, _args: Sequence[str]) -> CommandResult:
    """The age of this terminal's own copy of the list."""
    age_ms = await desk.technicians.age_ms()
    if age_ms is None:
        text = "no list yet: bring the gateway in reach once"
        return CommandResult(EXIT_NOT_OK, text, {"ageSeconds": None})
    text = f"the list is {age_ms // 60_000} minutes old"
    return CommandResult(EXIT_OK, text, {"ageSeconds": age_ms // 1000})


async def changes(desk: Desk, args: Sequence[str]) -> CommandResult:
    """The journal's end."""
    made = await desk.journal.last(number(args, 0, "lines", 20, _MAX_CHANGES))
    rows = [
        {
            "seq": each.seq,
            "at": rfc3339(each.at),
            "technician": each.technician,
            "command": each.command,
            "outcome": each.outcome,
        }
        for each in made
    ]
    return CommandResult(EXIT_OK, table(rows, "nothing was changed"), {"changes": rows})


def _asked(health: PartHealth, question: str) -> CommandResult:
    data = {
        "ok": health.ok,
        "detail": health.detail,
        "whatToDo": health.fix,
        "question": question if health.ok else "",
    }
    if not health.ok:
        text = f"{health.name}: {health.detail} -> {health.fix}"
        return CommandResult(EXIT_NOT_OK, text, data)
    return CommandResult(EXIT_OK, f"{health.name}: {health.detail}. {question}", data)

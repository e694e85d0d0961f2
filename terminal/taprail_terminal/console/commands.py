"""The console's commands: one table, each bounded in time, each with text and data in its answer.

Answers for what a technician can ask and for never raising: whatever goes wrong becomes an answer
with an exit code. It knows no wire: the serial console and the control socket both call `run`.
No answer holds a key, a UID or a token.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

import structlog

from taprail_common.clock import rfc3339
from taprail_common.errors import TapRailError
from taprail_terminal.console.selftest import (
    SELFTEST_TIMEOUT_S,
    LastTap,
    Probes,
    run_selftest,
)
from taprail_terminal.feedback.parts import PartHealth

EXIT_OK: Final = 0
EXIT_NOT_OK: Final = 1
"""The command was carried out, and something is not as it should be."""
EXIT_REFUSED: Final = 2
"""The command could not be carried out."""

_QUICK_TIMEOUT_S: Final = 5.0
_MAX_SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A command's answer, for programs (`data`, JSON) and for people (`text`)."""

    exit_code: int
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self, command: str) -> dict[str, Any]:
        """The answer as it is sent."""
        return {
            "command": command,
            "exitCode": self.exit_code,
            "data": dict(self.data),
            "text": self.text,
        }


@dataclass(frozen=True, slots=True)
class _Command:
    summary: str
    timeout_s: float
    run: Callable[[Probes], Awaitable[CommandResult]]


class Commands:
    """Runs commands against the terminal's parts."""

    def __init__(self, probes: Probes) -> None:
        self._probes = probes

    async def run(self, name: str) -> CommandResult:
        """Carry out a command; bounded in time, never raises but when cancelled."""
        command = _COMMANDS.get(name.strip().lower())
        if command is None:
            return _refused(f"no command {name[:_MAX_SHOWN]!r}", "type help")
        try:
            async with asyncio.timeout(command.timeout_s):
                return await command.run(self._probes)
        except TimeoutError:
            return _refused(f"{name}: no answer in {command.timeout_s:g} s", "try again")
        except TapRailError as exc:
            return _refused(exc.message, exc.fix)
        except Exception:  # noqa: BLE001 - a command's bug must not end the console
            structlog.get_logger().exception("console.bug", command=name)
            return _refused(f"{name}: failed inside the terminal", "see its log")


def _refused(error: str, fix: str) -> CommandResult:
    text = f"{error}: {fix}" if fix else error
    return CommandResult(EXIT_REFUSED, text, {"error": error, "whatToDo": fix})


async def _help(_probes: Probes) -> CommandResult:
    lines = [f"{name:<10}{command.summary}" for name, command in _COMMANDS.items()]
    data = {name: command.summary for name, command in _COMMANDS.items()}
    return CommandResult(EXIT_OK, "\n".join(lines), {"commands": data})


async def _version(probes: Probes) -> CommandResult:
    data = {
        "terminalId": probes.terminal_id,
        "taprail": version("taprail"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "kernel": platform.release(),
    }
    return CommandResult(EXIT_OK, _listed(data), data)


async def _status(probes: Probes) -> CommandResult:
    """What is known without touching anything: no light blinks, no packet is sent."""
    parts = [probes.reader.health(), *probes.feedback.health().values()]
    outbox = await probes.outbox.check()
    facts = {
        "terminalId": probes.terminal_id,
        "phase": probes.sale.phase(),
        "unresolved": outbox.unresolved,
    }
    rows = [_row(part) for part in parts]
    return _judged(rows, facts)


async def _selftest(probes: Probes) -> CommandResult:
    return _judged([check.to_json() for check in await run_selftest(probes)], {})


async def _last(probes: Probes) -> CommandResult:
    tap = await probes.sale.last_tap()
    if tap is None:
        return CommandResult(EXIT_OK, "no tap yet", {"tap": None})
    return CommandResult(EXIT_OK, _told(tap), {"tap": _tap_json(tap)})


def _judged(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> CommandResult:
    all_ok = all(row["ok"] for row in rows)
    text = "\n".join([*_listed(facts).splitlines(), *(_line(row) for row in rows)])
    data = {**facts, "ok": all_ok, "checks": list(rows)}
    return CommandResult(EXIT_OK if all_ok else EXIT_NOT_OK, text, data)


def _row(part: PartHealth) -> dict[str, Any]:
    return {"name": part.name, "ok": part.ok, "detail": part.detail, "whatToDo": part.fix}


def _line(row: Mapping[str, Any]) -> str:
    """Plain ASCII: a technician's terminal program may know nothing else."""
    mark = "ok    " if row["ok"] else "NOT OK"
    what_to_do = f" -> {row['whatToDo']}" if row["whatToDo"] else ""
    return f"{mark} {row['name']:<9}{row['detail']}{what_to_do}"


def _listed(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


def _told(tap: LastTap) -> str:
    stages = ", ".join(f"{name} {ms} ms" for name, ms in tap.stages_ms.items())
    reason = f": {tap.reason}" if tap.reason else ""
    return f"{rfc3339(tap.at_ms)} {tap.outcome}{reason}" + (f" ({stages})" if stages else "")


def _tap_json(tap: LastTap) -> dict[str, Any]:
    return {
        "at": rfc3339(tap.at_ms),
        "outcome": tap.outcome,
        "reason": tap.reason,
        "stagesMs": dict(tap.stages_ms),
    }


_COMMANDS: Final[dict[str, _Command]] = {
    "help": _Command("list the commands", _QUICK_TIMEOUT_S, _help),
    "status": _Command("what the terminal does and how its parts are", _QUICK_TIMEOUT_S, _status),
    "selftest": _Command("try every part, each ok or what to do", SELFTEST_TIMEOUT_S, _selftest),
    "last": _Command("what became of the last tap, and why", _QUICK_TIMEOUT_S, _last),
    "version": _Command("which software on which machine", _QUICK_TIMEOUT_S, _version),
}

COMMAND_NAMES: Final = tuple(_COMMANDS)

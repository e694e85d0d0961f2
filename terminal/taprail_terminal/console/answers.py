"""What a command gives back: an exit code, text for people, data for programs.

Answers for the form only. Text is plain ASCII: a technician's terminal program may know nothing
else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

EXIT_OK: Final = 0
EXIT_NOT_OK: Final = 1
"""The command was carried out, and something is not as it should be."""
EXIT_REFUSED: Final = 2
"""The command could not be carried out."""


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


def facts(data: Mapping[str, Any], *, ok: bool = True) -> CommandResult:
    """Names and values, one a line."""
    return CommandResult(EXIT_OK if ok else EXIT_NOT_OK, listed(data), data)


def refused(error: str, fix: str = "") -> CommandResult:
    """A command that was not carried out, and what to do about it."""
    text = plain(f"{error}: {fix}" if fix else error)
    return CommandResult(EXIT_REFUSED, text, {"error": error, "whatToDo": fix})


def judged(rows: Sequence[Mapping[str, Any]], known: Mapping[str, Any]) -> CommandResult:
    """Checks, each ok or with what to do, below some facts."""
    all_ok = all(row["ok"] for row in rows)
    text = "\n".join([*listed(known).splitlines(), *(_line(row) for row in rows)])
    data = {**known, "ok": all_ok, "checks": list(rows)}
    return CommandResult(EXIT_OK if all_ok else EXIT_NOT_OK, text, data)


def table(rows: Sequence[Mapping[str, Any]], none: str) -> str:
    """Rows of the same names as text, the names on top."""
    if not rows:
        return none
    names = list(rows[0])
    cells = [names, *([plain(_word(row[name])) for name in names] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def listed(known: Mapping[str, Any]) -> str:
    """Names and values as text."""
    return "\n".join(f"{name}: {plain(_word(value))}" for name, value in known.items())


def plain(text: str) -> str:
    """The text as ASCII, line ends kept."""
    return text.encode("ascii", "backslashreplace").decode("ascii")


def _line(row: Mapping[str, Any]) -> str:
    mark = "ok    " if row["ok"] else "NOT OK"
    what_to_do = f" -> {row['whatToDo']}" if row["whatToDo"] else ""
    return plain(f"{mark} {row['name']:<12}{row['detail']}{what_to_do}")


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)

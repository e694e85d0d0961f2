"""How answers of a terminal look: colour for people, JSON for programs, questions for eyes.

Answers for nothing that a terminal says being taken for markup or control sequences.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from taprail_common.cli import EXIT_OPERATOR
from taprail_terminal.console.answers import EXIT_NOT_OK, EXIT_OK
from taprail_terminal.diag_talk import Answer

_COLOURS: Final = {EXIT_OK: None, EXIT_NOT_OK: "yellow"}


def print_json(data: object) -> None:
    """One JSON document on one line."""
    sys.stdout.write(json.dumps(data, ensure_ascii=True) + "\n")
    sys.stdout.flush()


def exit_code(answer: Answer) -> int:
    """The answer's own exit code, when it is one."""
    code = answer.get("exitCode")
    return code if isinstance(code, int) and 0 <= code <= EXIT_OPERATOR else EXIT_OPERATOR


def show(answer: Answer, console: Console) -> None:
    """An answer for people."""
    data = answer.get("data")
    checks = data.get("checks") if isinstance(data, dict) else None
    if isinstance(data, dict) and isinstance(checks, list):
        facts = {name: value for name, value in data.items() if name not in {"checks", "ok"}}
        for name, value in facts.items():
            console.print(f"{safe(name)}: {safe(value)}", markup=False)
        console.print(_checks(checks))
        return
    code = exit_code(answer)
    text = answer.get("text") or _error(data)
    console.print(safe(text), markup=False, style=_COLOURS.get(code, "red"))


def question(answer: Answer) -> str:
    """What only a person can tell; empty when there is nothing to ask."""
    data = answer.get("data")
    return safe(data.get("question", "")) if isinstance(data, dict) else ""


def ask_person(console: Console, words: str) -> bool:
    """Ask until it is a yes or a no."""
    while True:
        said = console.input(f"[bold]{escape(words)}[/] \\[y/n] ").strip().lower()
        if said in {"y", "yes"}:
            return True
        if said in {"n", "no"}:
            console.print("then check its wires and its pins in the configuration", style="yellow")
            return False


def safe(value: object) -> str:
    """Text without control characters, line ends kept: a terminal must not steer this screen."""
    return "".join(each if each.isprintable() or each == "\n" else "?" for each in str(value))


def rows(found: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Table:
    """Rows as a table."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in columns.values():
        table.add_column(head)
    for row in found:
        table.add_row(*(Text(safe(row.get(name) or "")) for name in columns))
    return table


def _error(data: object) -> str:
    """What a refusal says that has no text of its own."""
    if not isinstance(data, dict):
        return "the answer says nothing"
    fix = data.get("whatToDo")
    return f"{data.get('error', 'refused')}" + (f": {fix}" if fix else "")


def _checks(checks: list[Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for check in (check for check in checks if isinstance(check, dict)):
        mark = Text("✔", style="green") if check.get("ok") else Text("✘", style="bold red")
        cells = [Text(safe(check.get(key, ""))) for key in ("name", "detail", "whatToDo")]
        cells[-1].stylize("yellow")
        table.add_row(mark, *cells)
    return table

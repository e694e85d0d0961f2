"""How admin commands speak: a table for people, or JSON for programs. Results go to stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

# A pipe has no width; nothing that is searched for in it should be cut or folded.
_PIPE_COLUMNS: Final = 400


def console() -> Console:
    """Where results go; colour only on a terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def print_json(data: object) -> None:
    """One JSON document."""
    sys.stdout.write(json.dumps(data, indent=2) + "\n")


def record(data: Mapping[str, Any], *, as_json: bool, labels: Mapping[str, str]) -> None:
    """One thing: `labels` gives the words for those entries that people see."""
    if as_json:
        print_json(data)
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, label in labels.items():
        if data.get(name) is not None:
            table.add_row(f"[bold]{label}[/]", _cell(data[name]))
    console().print(table)


def listing(
    rows: Sequence[Mapping[str, Any]],
    *,
    as_json: bool,
    columns: Mapping[str, str],
    what: str,
    none: str | None = None,
) -> None:
    """Several things of a kind: `columns` gives the heads of those entries that people see, `none`
    the sentence when there is nothing."""
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        console().print(none or f"No {what}s yet.")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for head in columns.values():
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in columns))
    console().print(table)


def done(data: Mapping[str, Any], sentence: str, *, as_json: bool) -> None:
    """A change that was made."""
    if as_json:
        print_json(data)
    else:
        console().print(f"[green]✓[/] {escape(sentence)}")


_COLOURS: Final = {
    "active": "green",
    "completed": "green",
    "failed": "red",
    "frozen": "yellow",
    "revoked": "red",
    "closed": "red",
    "expired": "red",
    "confirmation_failed": "yellow",
    "sent": "cyan",
    "processing": "cyan",
    "pending": "blue",
}


def coloured(word: str) -> str:
    """A state or status in its colour; any other text as it is, whatever brackets it holds."""
    colour = _COLOURS.get(word)
    return f"[{colour}]{word}[/]" if colour else escape(word)


def _cell(value: object) -> str:
    return "" if value is None else coloured(str(value))

"""How a campaign looks: a few coloured lines a round, a table at its end."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from taprail_hwsim.chaos.report import NO_FAULT, BlockCell, Report, RoundResult
from taprail_hwsim.chaos.schedule import Round
from taprail_hwsim.chaos.troubles import about, catalogue

_BARS: Final = "▁▂▃▄▅▆▇█"
_SHOWN_IDS: Final = 3
_SHOWN_BLOCKS: Final = 60


def list_troubles(*, as_json: bool) -> None:
    """Say which faults there are and what each one is."""
    rows = {name: about(name) for name in catalogue()}
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for head in ("fault", "what it is"):
        table.add_column(head)
    for name, sentence in rows.items():
        table.add_row(Text(name, "bold cyan", no_wrap=True), sentence)
    Console(highlight=False).print(table)


class Screen:
    """Prints as the campaign goes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def title(self, text: str, detail: str) -> None:
        """The heading of the whole."""
        self._console.print(Text.assemble((f"\n{text}\n", "bold"), (detail, "dim")))

    def say(self, text: str, style: str = "dim") -> None:
        """A remark."""
        self._console.print(Text(f"     {text}", style=style), soft_wrap=True)

    @contextmanager
    def at_work(self, round_: Round) -> Iterator[None]:
        """A round goes on: its heading, and on a terminal a sign that it lives."""
        what = escape(str(round_)) or "no fault: what has to hold without any"
        self._console.print(f"\n[bold cyan]{round_.number:4}[/] [bold]{what}[/]", soft_wrap=True)
        if not self._console.is_terminal:
            yield
            return
        with self._console.status("customers are paying …"):
            yield

    def result(self, result: RoundResult) -> None:
        """What came of it."""
        holds = result.judgement.holds
        named = zip(result.round.names, result.remarks, strict=True)
        remarks = [f"{name}: {text}" for name, text in named]
        if remarks:
            self.say(" · ".join(remarks), "yellow")
        self._console.print(Text("     ") + timeline(result.blocks), soft_wrap=True)
        after = result.blocks_to_settle
        self.say(
            f"{result.approved} approved · {result.settled} settled, the last"
            f" {after} block{'s' * (after != 1)} after the end"
            + (f" · {result.declined} declined" if result.declined else "")
        )
        self._console.print(
            Text.assemble(
                "     ",
                ("✔ " if holds else "✘ ", "bold green" if holds else "bold red"),
                (result.judgement.in_words(), "green" if holds else "red"),
            ),
            soft_wrap=True,
        )
        if not holds:
            self._name_them(result)

    def end(self, report: Report) -> None:
        """The table of all faults, and how to repeat it."""
        table = Table(title="Chaos", title_justify="left", header_style="dim")
        for head in ("fault", "rounds", "injected", "settled", "slowest, blocks", ""):
            table.add_column(head, justify="left" if head in ("fault", "") else "right")
        for row in report.summary():
            verdict = Text("✔", "bold green")
            if row.failed:
                verdict = Text(f"✘ {row.failed} failed, {row.failed_alone} of them alone", "red")
            elif row.rounds and not row.injected and row.name != NO_FAULT:
                verdict = Text("never met: it says nothing", "yellow")
            cells = (row.rounds, row.injected or "", row.settled, row.slowest_blocks)
            table.add_row(row.name, *map(str, cells), verdict)
        self._console.print()
        self._console.print(table)
        style = "bold green" if report.holds else "bold red"
        word = "everything held" if report.holds else "NOT everything held"
        for problem in report.problems:
            self._console.print(Text(problem, "red"), soft_wrap=True)
        self._console.print(f"[{style}]{word}[/] in {report.seconds:.0f} s with seed {report.seed}")
        if not report.holds:
            self._console.print(f"again: {escape(report.repeat)}", soft_wrap=True)

    def _name_them(self, result: RoundResult) -> None:
        found = result.judgement
        for name in ("lost", "doubled", "stuck", "unasked", "unanswered"):
            ids = getattr(found, name)
            if ids:
                more = f" … {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
                self.say(f"{name}: {' '.join(ids[:_SHOWN_IDS])}{more}", "red")
        self.say(f"state and logs: {result.state_dir}", "red")


def timeline(blocks: Sequence[BlockCell]) -> Text:
    """A bar a block, as high as the payments that it settled; red while the trouble was on."""
    text = Text()
    most = max((block.settled for block in blocks), default=0)
    for block in blocks[:_SHOWN_BLOCKS]:
        height = math.ceil(block.settled * len(_BARS) / most) if block.settled else 0
        bar = _BARS[height - 1] if height else "·"
        text.append(bar, style="red" if block.troubled else "green")
    if len(blocks) > _SHOWN_BLOCKS:
        text.append(f" … {len(blocks) - _SHOWN_BLOCKS} more blocks", style="dim")
    return text

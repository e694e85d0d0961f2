"""How the story looks in a terminal window: a line a tap, the display as a picture, the lights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from taprail_hwsim.demo.tap_record import STAGES, TapRecord
from taprail_hwsim.panel.remote import RemotePanel

_COLOURS: Final = {
    "approved": "green",
    "declined": "red",
    "unknown": "yellow",
    "try_again": "yellow",
    "card_refused": "red",
}
_WORDS: Final = {"try_again": "try again", "card_refused": "refused"}
_LAMP_COLOURS: Final = {"red": "red", "amber": "yellow"}


class Screen:
    """Prints the story. On a pipe it prints each step once, when it is complete."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def title(self, text: str, detail: str) -> None:
        """The heading of the whole."""
        self.console.print(Text.assemble((f"\n{text}\n", "bold"), (detail, "dim")))

    def step(self, number: int, text: str) -> None:
        """The heading of a step."""
        self.console.print(Text.assemble((f"\n{number}  ", "bold cyan"), (text, "bold")))

    def say(self, text: str, style: str = "dim") -> None:
        """A remark."""
        self.console.print(Text(f"   {text}", style=style))

    @contextmanager
    def live(self, records: Callable[[], Sequence[TapRecord]]) -> Iterator[None]:
        """A timeline that grows while the block runs; it stays on the screen after it."""
        if not self.console.is_terminal:
            yield
            self.console.print(timeline(records()))
            return
        with Live(
            get_renderable=lambda: timeline(records()),
            console=self.console,
            refresh_per_second=12,
            vertical_overflow="crop",
        ):
            yield

    def panel(self, panel: RemotePanel) -> None:
        """What the customer sees now: the display's picture and the lights."""
        picture = Panel(
            Text(panel.display.braille(), style="bold white"), border_style="dim", expand=False
        )
        self.console.print(Columns([picture, lights(panel.lights())], padding=(0, 2)))

    def proof(self, rows: Sequence[tuple[str, str, str, bool]]) -> None:
        """The comparison at the end: (what, by the ledger, by the chain, whether they agree)."""
        table = Table(title="Proof", title_justify="left", header_style="dim")
        table.add_column("")
        table.add_column("the ledger says", justify="right")
        table.add_column("the chain says", justify="right")
        table.add_column("")
        for what, ledger, chain, agree in rows:
            mark = Text("✔", "bold green") if agree else Text("✘ DIFFERENT", "bold red")
            table.add_row(what, ledger, chain, mark)
        self.console.print()
        self.console.print(table)


def timeline(records: Sequence[TapRecord]) -> RenderableType:
    """A table: a row a tap, a column a stage, milliseconds since the card was sensed."""
    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=True)
    table.add_column("card", min_width=7)
    table.add_column("amount", justify="right", min_width=7)
    table.add_column("outcome", min_width=9)
    for stage in STAGES:
        table.add_column(stage, justify="right", min_width=6)
    table.add_column("ms", style="dim")
    reasons = []
    for record in records:
        colour = _COLOURS.get(record.outcome, "dim")
        word = _WORDS.get(record.outcome, record.outcome)
        cells = [
            Text(str(record.stages_ms[stage]) if stage in record.stages_ms else "·", "default")
            for stage in STAGES
        ]
        if record.is_settled:
            cells[-1].stylize("bold green")
        table.add_row(record.card, record.amount, Text(word, f"bold {colour}"), *cells)
        if record.reason:
            reasons.append(Text(f"   {record.card}: “{record.reason}”", style=colour))
    return Group(table, *reasons)


def lights(now: dict[str, bool]) -> RenderableType:
    """The row of lights: filled is on; a name stands by each, so that colour is not needed."""
    text = Text()
    for name, is_on in now.items():
        colour = _LAMP_COLOURS.get(name, "green")
        text.append("● " if is_on else "○ ", style=f"bold {colour}" if is_on else "dim")
        text.append(f"{name}\n", style="default" if is_on else "dim")
    return text

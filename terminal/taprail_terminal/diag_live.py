"""The live view: what the terminal shows and does, drawn in the technician's window.

Answers for drawing only; the console's `live` says what there is. The lights blink here by the
patterns that they were given, so that one question a second is enough. The display is drawn in
Braille dots, 64 columns wide, or in half blocks where the window has room for all 128.
"""

from __future__ import annotations

import base64
import binascii
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from taprail_terminal.diag_show import rows, safe
from taprail_terminal.diag_talk import Answer, Talk

_EVERY_S: Final = 1.0
_FRAMES_PER_S: Final = 8
_MAX_PX: Final = 256
_HALF_BLOCK_COLUMNS: Final = 190
"""The picture in half blocks, with its frame, beside the facts."""
_SIDE_BY_SIDE_COLUMNS: Final = 112
_LAMPS: Final = ("green", "green", "green", "green", "red", "yellow")
# Unicode 16.0, chapter 21.1 "Braille Patterns": the dots' bits, by column and row.
_BRAILLE: Final = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_HALVES: Final = " ▀▄█"


class LiveView:
    """What was heard last, as rich draws it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._data: Mapping[str, Any] = {}
        self._heard_s = 0.0
        self._news = "asking ..."

    def hear(self, answer: Answer) -> None:
        """A new answer."""
        data = answer.get("data")
        self._data = data if isinstance(data, dict) else {}
        self._heard_s = time.monotonic()
        self._news = "" if "phase" in self._data else str(answer.get("text", "no live view"))

    def tell(self, news: str) -> None:
        """What becomes of the line."""
        self._news = news

    def __rich__(self) -> RenderableType:
        since_ms = round((time.monotonic() - self._heard_s) * 1000)
        return drawn(self._data, since_ms, self._console.width, self._news)


def watch(talk: Talk, console: Console) -> None:
    """Draw until Ctrl-C; a lost line is waited for. Raises OperatorError."""
    view, pause = LiveView(console), threading.Event()
    before, talk.tell = talk.tell, view.tell
    try:
        with Live(view, console=console, screen=True, refresh_per_second=_FRAMES_PER_S):
            while True:
                view.hear(talk.ask(["live"]))
                pause.wait(_EVERY_S)
    except KeyboardInterrupt:
        return
    finally:
        talk.tell = before


def drawn(data: Mapping[str, Any], since_ms: int, columns: int, news: str = "") -> RenderableType:
    """The whole window, `since_ms` after the answer came."""
    footer = Text(safe(news) or "Ctrl-C leaves", style="bold yellow" if news else "dim")
    if "phase" not in data:
        return footer
    front = Group(_lamps(data, since_ms), _display(data, columns))
    rest = Group(_facts(data), Text(), _taps(data))
    if columns < _SIDE_BY_SIDE_COLUMNS:
        return Group(front, rest, footer)
    side = Table.grid(padding=(0, 2))
    side.add_row(front, rest)
    return Group(side, footer)


def lit(patterns: Sequence[Sequence[int]], elapsed_ms: int) -> list[bool]:
    """Which lights are on, by period, time on and offset of each."""
    return [
        0 <= elapsed_ms % max(1, period_ms) - offset_ms < on_ms
        for period_ms, on_ms, offset_ms in patterns
    ]


def braille(picture: bytes, width_px: int, height_px: int) -> list[str]:
    """A picture of one bit a pixel as lines of Braille, two by four pixels a sign."""
    return [
        "".join(_sign(picture, width_px, left, top) for left in range(0, width_px, 2))
        for top in range(0, height_px, 4)
    ]


def half_blocks(picture: bytes, width_px: int, height_px: int) -> list[str]:
    """The same as lines of half blocks, one by two pixels each."""
    return [
        "".join(
            _HALVES[_pixel(picture, width_px, x, y) + 2 * _pixel(picture, width_px, x, y + 1)]
            for x in range(width_px)
        )
        for y in range(0, height_px, 2)
    ]


def _sign(picture: bytes, width_px: int, left: int, top: int) -> str:
    dots = sum(
        bit
        for column, bits in enumerate(_BRAILLE)
        for row, bit in enumerate(bits)
        if _pixel(picture, width_px, left + column, top + row)
    )
    return chr(0x2800 + dots)


def _pixel(picture: bytes, width_px: int, x: int, y: int) -> int:
    at = y * ((width_px + 7) // 8) + x // 8
    return picture[at] >> (7 - x % 8) & 1 if at < len(picture) else 0


def _lamps(data: Mapping[str, Any], since_ms: int) -> Text:
    shown = data.get("shown") or {}
    patterns = shown.get("lights") or []
    text = Text(" ")
    for colour, is_lit in zip(
        _LAMPS, lit(patterns, shown.get("elapsedMs", 0) + since_ms), strict=False
    ):
        text.append("● " if is_lit else "○ ", style=f"bold {colour}" if is_lit else "dim")
    text.append(f"  {safe(data['phase'])}", style="bold")
    return text


def _display(data: Mapping[str, Any], columns: int) -> RenderableType:
    shown = data.get("shown") or {}
    found = _picture(shown.get("picture"))
    if found is None:
        return Text("no display yet", style="dim")
    draw = half_blocks if columns >= _HALF_BLOCK_COLUMNS else braille
    return Panel.fit("\n".join(draw(*found)), style="bright_white on black", padding=0)


def _picture(told: Any) -> tuple[bytes, int, int] | None:
    """The picture's bits and its size; None when it is none."""
    try:
        width_px, height_px = int(told["widthPx"]), int(told["heightPx"])
        if not (0 < width_px <= _MAX_PX and 0 < height_px <= _MAX_PX):
            return None
        packed = base64.b64decode(told["zlib"], validate=True)
        size = (width_px + 7) // 8 * height_px
        return zlib.decompressobj().decompress(packed, size), width_px, height_px
    except (TypeError, KeyError, ValueError, binascii.Error, zlib.error):
        return None


def _facts(data: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for part in data.get("parts", []):
        mark = Text("✔", style="green") if part.get("ok") else Text("✘", style="bold red")
        fix = f" -> {part['whatToDo']}" if part.get("whatToDo") else ""
        table.add_row(mark, Text(safe(part["name"])), Text(safe(f"{part['detail']}{fix}")))
    queue, reach = data.get("queue", {}), data.get("gateway", {}).get("inReach")
    mark = Text("✔", style="green") if reach else Text("✘", style="bold red")
    table.add_row(mark, Text("gateway"), Text("in reach" if reach else "out of reach"))
    waits = queue.get("unresolved", 0)
    mark = Text("✘", style="bold red") if waits else Text("✔", style="green")
    oldest = f", the oldest for {queue['oldestMs'] // 1000} s" if queue.get("oldestMs") else ""
    table.add_row(mark, Text("queue"), Text(safe(f"{waits} without an answer{oldest}")))
    return table


def _taps(data: Mapping[str, Any]) -> RenderableType:
    taps = data.get("taps", [])
    if not taps:
        return Text("no tap since the start", style="dim")
    listed = [
        {
            "at": str(tap.get("at", ""))[11:19],
            "outcome": tap.get("outcome"),
            "ms": tap.get("stagesMs", {}).get("shown", ""),
            "reason": tap.get("reason"),
        }
        for tap in reversed(taps)
    ]
    return rows(listed, {"at": "tap at", "outcome": "outcome", "ms": "ms", "reason": "why"})

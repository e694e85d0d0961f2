"""A 128x64 OLED that exists only as a picture: takes what a display driver sends on its serial bus.

Answers for being a luma-style serial interface, for locking, and for showing the picture as an
image, a PNG or text. What the bytes mean is decided in `ssd1306_ram`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from PIL import Image

from taprail_hwsim.panel.ssd1306_ram import HEIGHT, WIDTH, Ssd1306Ram

# Upper and lower pixel of a character cell, by (upper lit, lower lit).
HALF_BLOCKS: Final = {
    (False, False): " ",
    (True, False): "\N{UPPER HALF BLOCK}",
    (False, True): "\N{LOWER HALF BLOCK}",
    (True, True): "\N{FULL BLOCK}",
}

# Unicode 15 chapter 21.1: U+2800 and a bit for each dot; (x, y, bit) within the 2x4 cell.
BRAILLE: Final = 0x2800
BRAILLE_DOTS: Final = (
    *((0, 0, 0x01), (0, 1, 0x02), (0, 2, 0x04), (1, 0, 0x08)),
    *((1, 1, 0x10), (1, 2, 0x20), (0, 3, 0x40), (1, 3, 0x80)),
)


class Ssd1306Panel:
    """Give it to luma.oled's `ssd1306` as serial interface; read the picture from any thread.

    `on_frame()` is called after every block of data, and after a command call that switched the
    display, inversion or contrast: on the drawing thread and outside the lock.
    """

    def __init__(self, on_frame: Callable[[], None] | None = None) -> None:
        self.on_frame = on_frame
        self._ram = Ssd1306Ram()
        self._lock = threading.Lock()
        self.frames = 0

    def command(self, *cmd: int) -> None:
        """Command bytes, several commands in a row at will."""
        with self._lock:
            before = (self._ram.on, self._ram.inverse, self._ram.contrast)
            for byte in cmd:
                self._ram.command(byte)
            changed = before != (self._ram.on, self._ram.inverse, self._ram.contrast)
        if changed:
            self._tell()

    def data(self, data: Iterable[int]) -> None:
        """Picture bytes for the current window."""
        with self._lock:
            for byte in data:
                self._ram.data(byte)
            self.frames += 1
        self._tell()

    def cleanup(self) -> None:
        """Nothing to release; the last picture stays readable."""

    @property
    def on(self) -> bool:
        with self._lock:
            return self._ram.on

    @property
    def contrast(self) -> int:
        """0 to 255."""
        with self._lock:
            return self._ram.contrast

    def picture(self) -> Image.Image:
        """What the customer sees: a 128x64 image of mode "1", black while the display is off."""
        return Image.frombytes("L", (WIDTH, HEIGHT), b"".join(self._rows())).convert("1")

    def png(self, path: str | Path, scale: int = 4) -> None:
        """Save the picture as a PNG, each pixel `scale` times `scale`. Raises OSError."""
        picture = self.picture()
        enlarged = picture.resize((WIDTH * scale, HEIGHT * scale), Image.Resampling.NEAREST)
        enlarged.save(path, format="PNG")

    def ansi(self) -> str:
        """The picture as 32 lines of 128 half-block characters."""
        rows = self._rows()
        pairs = zip(rows[::2], rows[1::2], strict=True)
        return "\n".join(
            "".join(HALF_BLOCKS[bool(a), bool(b)] for a, b in zip(upper, lower, strict=True))
            for upper, lower in pairs
        )

    def braille(self) -> str:
        """The picture as 16 lines of 64 Braille patterns, each of 2x4 pixels."""
        rows = self._rows()
        return "\n".join(
            "".join(
                chr(BRAILLE + sum(bit for x, y, bit in BRAILLE_DOTS if rows[top + y][left + x]))
                for left in range(0, WIDTH, 2)
            )
            for top in range(0, HEIGHT, 4)
        )

    def _rows(self) -> list[bytes]:
        with self._lock:
            return self._ram.rows()

    def _tell(self) -> None:
        if self.on_frame is not None:
            self.on_frame()

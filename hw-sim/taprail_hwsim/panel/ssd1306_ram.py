"""The SSD1306 display controller's memory, fed with its command and data bytes. Pure.

Answers for addressing, orientation and the on/inverse/all-on switches (Solomon Systech SSD1306 data
sheet rev. 1.1, table 9-1 and clause 10). Scrolling and analog settings are taken and ignored: no
terminal scrolls by hardware, and a picture has no contrast ratio.
"""

from __future__ import annotations

from typing import Final

WIDTH: Final = 128
PAGES: Final = 8
HEIGHT: Final = 8 * PAGES

# Table 9-1. Commands with a range of codes carry their argument in the low bits.
COLUMN_LOW_END: Final = 0x0F
COLUMN_HIGH_END: Final = 0x1F
MEMORY_MODE: Final = 0x20
COLUMN_ADDRESS: Final = 0x21
PAGE_ADDRESS: Final = 0x22
START_LINE: Final = range(0x40, 0x80)
CONTRAST: Final = 0x81
SEGMENT_NORMAL, SEGMENT_REMAPPED = 0xA0, 0xA1
FOLLOW_RAM, ALL_ON = 0xA4, 0xA5
NORMAL, INVERSE = 0xA6, 0xA7
DISPLAY_OFF, DISPLAY_ON = 0xAE, 0xAF
PAGE_START: Final = range(0xB0, 0xB8)
SCAN_NORMAL, SCAN_REMAPPED = 0xC0, 0xC8
DISPLAY_OFFSET: Final = 0xD3

# How many argument bytes follow; commands that are not listed have none.
ARGUMENTS: Final = {
    MEMORY_MODE: 1,
    COLUMN_ADDRESS: 2,
    PAGE_ADDRESS: 2,
    0x26: 6,  # continuous horizontal scroll, right
    0x27: 6,  # and left
    0x29: 5,  # vertical and right
    0x2A: 5,  # vertical and left
    CONTRAST: 1,
    0x8D: 1,  # charge pump (application note in the data sheet)
    0xA3: 2,  # vertical scroll area
    0xA8: 1,  # multiplex ratio
    DISPLAY_OFFSET: 1,
    0xD5: 1,  # clock divide ratio
    0xD9: 1,  # pre-charge period
    0xDA: 1,  # COM pins
    0xDB: 1,  # VCOMH deselect level
}
HORIZONTAL, VERTICAL, PAGE_MODE = 0, 1, 2  # clause 10.1.3
CONTRAST_AT_RESET: Final = 0x7F


class Ssd1306Ram:
    """Display RAM with its write pointer. State is as after reset until commands change it."""

    def __init__(self) -> None:
        self._ram = bytearray(WIDTH * PAGES)  # page by page, in screen columns
        self._pending: list[int] = []
        self._mode = PAGE_MODE
        self._columns = (0, WIDTH - 1)
        self._pages = (0, PAGES - 1)
        self._column = 0
        self._page = 0
        self._start_line = 0
        self._offset = 0
        # The glass of the common modules is mounted so that both remaps give an upright picture.
        self._segment_remapped = False
        self._scan_remapped = False
        self._all_on = False
        self.on = False
        self.inverse = False
        self.contrast = CONTRAST_AT_RESET

    def command(self, byte: int) -> None:
        """One byte with D/C low: a command, or an argument of the one before."""
        self._pending.append(byte)
        code = self._pending[0]
        if len(self._pending) > ARGUMENTS.get(code, 0):
            arguments, self._pending = self._pending[1:], []
            self._run(code, arguments)

    def data(self, byte: int) -> None:
        """One byte with D/C high: eight pixels downwards, lowest bit on top."""
        column = self._column if self._segment_remapped else WIDTH - 1 - self._column
        self._ram[self._page * WIDTH + column] = byte
        self._advance()

    def rows(self) -> list[bytes]:
        """The visible picture: 64 rows of 128 bytes, each 0 or 255."""
        if not self.on or self._all_on:
            level = 255 if self.on else 0
            return [bytes([level]) * WIDTH] * HEIGHT
        rows = [self._row((y + self._start_line + self._offset) % HEIGHT) for y in range(HEIGHT)]
        return rows if self._scan_remapped else rows[::-1]

    def _row(self, y: int) -> bytes:
        page, mask = y // 8, 1 << y % 8
        lit, dark = (0, 255) if self.inverse else (255, 0)
        line = self._ram[page * WIDTH : (page + 1) * WIDTH]
        return bytes(lit if byte & mask else dark for byte in line)

    def _advance(self) -> None:
        if self._mode == PAGE_MODE:  # stays in its page (clause 10.1.3)
            self._column = (self._column + 1) % WIDTH
        elif self._mode == HORIZONTAL:
            self._column, wrapped = _step(self._column, self._columns, WIDTH)
            if wrapped:
                self._page, _ = _step(self._page, self._pages, PAGES)
        else:
            self._page, wrapped = _step(self._page, self._pages, PAGES)
            if wrapped:
                self._column, _ = _step(self._column, self._columns, WIDTH)

    def _run(self, code: int, arguments: list[int]) -> None:
        if arguments:
            self._set(code, arguments)
        elif code <= COLUMN_LOW_END:
            self._column = self._column & 0x70 | code & 0x0F
        elif code <= COLUMN_HIGH_END:
            self._column = (code & 0x07) << 4 | self._column & 0x0F
        elif code in START_LINE:
            self._start_line = code - START_LINE.start
        elif code in PAGE_START:
            self._page = code - PAGE_START.start
        else:
            self._switch(code)

    def _set(self, code: int, arguments: list[int]) -> None:
        if code == MEMORY_MODE:
            self._mode = min(arguments[0] & 0x03, PAGE_MODE)
        elif code == COLUMN_ADDRESS:
            self._columns = (arguments[0] % WIDTH, arguments[1] % WIDTH)
            self._column = self._columns[0]
        elif code == PAGE_ADDRESS:
            self._pages = (arguments[0] % PAGES, arguments[1] % PAGES)
            self._page = self._pages[0]
        elif code == CONTRAST:
            self.contrast = arguments[0]
        elif code == DISPLAY_OFFSET:
            self._offset = arguments[0] % HEIGHT

    def _switch(self, code: int) -> None:
        if code in (DISPLAY_OFF, DISPLAY_ON):
            self.on = code == DISPLAY_ON
        elif code in (NORMAL, INVERSE):
            self.inverse = code == INVERSE
        elif code in (FOLLOW_RAM, ALL_ON):
            self._all_on = code == ALL_ON
        elif code in (SEGMENT_NORMAL, SEGMENT_REMAPPED):
            self._segment_remapped = code == SEGMENT_REMAPPED  # for data written from now on
        elif code in (SCAN_NORMAL, SCAN_REMAPPED):
            self._scan_remapped = code == SCAN_REMAPPED


def _step(position: int, window: tuple[int, int], size: int) -> tuple[int, bool]:
    """The next address in a window, and whether it went back to the window's start."""
    if position == window[1]:
        return window[0], True
    return (position + 1) % size, False

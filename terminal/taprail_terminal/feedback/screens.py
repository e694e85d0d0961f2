"""A screen as a picture of 128 by 64 pixels, pure: the same screen gives the same pixels.

Answers for layout. An amount stands large with its prompt below; a result has its icon and headline
on top and its words below; a bar at the bottom asks to take the card away. What is said is decided
in `scene`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from PIL import Image, ImageDraw

from taprail_terminal.feedback.icons import ICON_PX, icon
from taprail_terminal.feedback.scene import Screen
from taprail_terminal.feedback.text_fit import (
    SMALLEST_DIGITS_PX,
    SMALLEST_PX,
    Fitted,
    fit,
    width_px,
    write,
)

WIDTH_PX: Final = 128
HEIGHT_PX: Final = 64
_BAR_PX: Final = 16
_GAP_PX: Final = 5

_AMOUNT_SIZES: Final = range(34, SMALLEST_DIGITS_PX - 1, -1)
_HEADLINE_SIZES: Final = range(22, SMALLEST_PX - 1, -1)
_TEXT_SIZES: Final = range(15, SMALLEST_PX - 1, -1)
# For what has no other way to stand there whole: huge sums, and sentences from outside.
_TINY_SIZES: Final = range(SMALLEST_PX - 1, SMALLEST_DIGITS_PX - 1, -1)
_CURRENCY_SIZES: Final = (12, SMALLEST_DIGITS_PX)
# Beside its currency an amount stays readable down to here; below, the currency goes underneath.
_AMOUNT_BESIDE_PX: Final = 20
_COMPACT_PX: Final = 16

_Pen = ImageDraw.ImageDraw
_Box = tuple[int, int, int, int]


@lru_cache(maxsize=32)
def render(screen: Screen) -> Image.Image:
    """Draw the screen; gives an image of mode "1", white on black, shared: copy it to change it."""
    image = Image.new("1", (WIDTH_PX, HEIGHT_PX))
    pen = ImageDraw.Draw(image)
    bottom = HEIGHT_PX
    if screen.lift_card is not None:
        bottom -= _BAR_PX + 1  # letters with a tail must not touch the bar
        _draw_bar(pen, screen.lift_card)
    if screen.amount is not None:
        _draw_amount(image, pen, screen, bottom)
    else:
        _draw_result(image, pen, screen, bottom)
    return image


def _draw_bar(pen: _Pen, words: str) -> None:
    top = HEIGHT_PX - _BAR_PX
    pen.rectangle((0, top, WIDTH_PX - 1, HEIGHT_PX - 1), fill=1)
    fitted = fit([words], (WIDTH_PX - 40, _BAR_PX), (SMALLEST_PX,))
    _draw_text(pen, fitted, (20, top, WIDTH_PX - 20, HEIGHT_PX), fill=0)
    for left in (4, WIDTH_PX - 17):
        _draw_arrow_up(pen, left, top + 1)


def _draw_arrow_up(pen: _Pen, left: int, top: int) -> None:
    pen.polygon(((left, top + 6), (left + 6, top), (left + 12, top + 6)), fill=0)
    pen.rectangle((left + 4, top + 6, left + 8, top + 10), fill=0)


def _draw_amount(image: Image.Image, pen: _Pen, screen: Screen, bottom: int) -> None:
    """The amount on top; below it what to do, with its icon when there is room for one."""
    has_room = bottom == HEIGHT_PX
    top = bottom - (ICON_PX if has_room else 16)
    _draw_sum(pen, screen.amount or "", screen.currency, top)
    text_left = ICON_PX + _GAP_PX if has_room else 0
    if has_room:
        image.paste(icon(screen.icon), (2, top))
    fitted = fit([screen.headline], (WIDTH_PX - text_left, bottom - top), _HEADLINE_SIZES)
    _draw_text(pen, fitted, (text_left, top, WIDTH_PX, bottom))


def _draw_sum(pen: _Pen, amount: str, currency: str, height_px: int) -> None:
    """The amount as large as it goes, its currency beside it or, where that is narrow, below."""
    small_px = _CURRENCY_SIZES[0]
    currency_width = width_px(currency, small_px)
    room_px = max(1, WIDTH_PX - currency_width - _GAP_PX)
    large = fit([amount], (room_px, height_px), _AMOUNT_SIZES)
    if not large.whole or large.size_px < _AMOUNT_BESIDE_PX:
        _draw_sum_in_two_lines(pen, amount, currency, height_px)
        return
    amount_width = width_px(amount, large.size_px)
    left = (WIDTH_PX - amount_width - _GAP_PX - currency_width) // 2
    middle = height_px // 2
    write(pen, (left, middle), amount, large.size_px, fill=1)
    # On the amount's own foot, like a unit.
    foot = middle + large.size_px // 3 - small_px // 3
    write(pen, (left + amount_width + _GAP_PX, foot), currency, small_px, fill=1)


def _draw_sum_in_two_lines(pen: _Pen, amount: str, currency: str, height_px: int) -> None:
    split = height_px - SMALLEST_DIGITS_PX - 2
    _draw_text(pen, fit([amount], (WIDTH_PX, split), _AMOUNT_SIZES), (0, 0, WIDTH_PX, split))
    below = fit([currency], (WIDTH_PX, height_px - split), _CURRENCY_SIZES)
    _draw_text(pen, below, (0, split, WIDTH_PX, height_px))


def _draw_result(image: Image.Image, pen: _Pen, screen: Screen, bottom: int) -> None:
    """Icon and headline on top; both make room when there is much to say."""
    words = fit(screen.lines, (WIDTH_PX, bottom - ICON_PX), _TEXT_SIZES)
    top, left = ICON_PX, ICON_PX + _GAP_PX
    if words.whole:
        image.paste(icon(screen.icon), (0, 0))
    else:
        top, left = _COMPACT_PX, 0
        words = fit(screen.lines, (WIDTH_PX, bottom - top), _TEXT_SIZES)
    if not words.whole:
        words = fit(screen.lines, (WIDTH_PX, bottom - top), _TINY_SIZES)
    headline = fit([screen.headline], (WIDTH_PX - left, top), _HEADLINE_SIZES)
    _draw_text(pen, headline, (left, 0, WIDTH_PX, top), centred=left == 0)
    _draw_text(pen, words, (0, top, WIDTH_PX, bottom))


def _draw_text(
    pen: _Pen, fitted: Fitted, box: _Box, *, fill: int = 1, centred: bool = True
) -> None:
    """Write lines into the middle of a box of (left, top, right, bottom)."""
    left, top, right, bottom = box
    y = top + (bottom - top - fitted.height_px) // 2 + fitted.line_px // 2
    for line in fitted.lines:
        spare_px = right - left - width_px(line, fitted.size_px)
        x = left + (spare_px // 2 if centred else 0)
        write(pen, (x, y), line, fitted.size_px, fill)
        y += fitted.line_px

"""Pictures of 24 by 24 pixels that say what happened without a word.

Answers for drawing one icon into an image; where it stands is up to `screens`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

from PIL import Image, ImageDraw

from taprail_terminal.feedback.scene import Icon

ICON_PX: Final = 24

_Pen = ImageDraw.ImageDraw


@cache
def icon(kind: Icon) -> Image.Image:
    """The icon, white on black, as an image of mode "1", shared: copy it to change it."""
    image = Image.new("1", (ICON_PX, ICON_PX))
    _DRAW[kind](ImageDraw.Draw(image))
    return image


def _none(_pen: _Pen) -> None:
    pass


def _wave(pen: _Pen) -> None:
    """A card's waves, as on every contactless reader."""
    for radius in (5, 11, 17, 23):
        pen.arc((-radius, 12 - radius, radius, 12 + radius), -42, 42, fill=1, width=3)


def _check(pen: _Pen) -> None:
    pen.ellipse((0, 0, 23, 23), fill=1)
    pen.line(((5, 12), (10, 17), (18, 7)), fill=0, width=3)


def _link(pen: _Pen) -> None:
    """Two links of a chain, and nothing between them that could break."""
    for left in (0, 10):
        pen.rounded_rectangle((left, 6, left + 13, 17), radius=5, outline=1, width=3)
    pen.line((8, 11, 15, 11), fill=1, width=1)
    pen.line((8, 12, 15, 12), fill=1, width=1)


def _cross(pen: _Pen) -> None:
    pen.ellipse((0, 0, 23, 23), fill=1)
    pen.line((7, 7, 16, 16), fill=0, width=3)
    pen.line((16, 7, 7, 16), fill=0, width=3)


def _keys(pen: _Pen) -> None:
    for left in (1, 9, 17):
        for top in (1, 9, 17):
            pen.rectangle((left, top, left + 5, top + 5), fill=1)


def _hourglass(pen: _Pen) -> None:
    pen.rectangle((4, 0, 19, 2), fill=1)
    pen.rectangle((4, 21, 19, 23), fill=1)
    pen.polygon(((6, 3), (17, 3), (17, 6), (12, 11), (11, 11), (6, 6)), outline=1)
    pen.polygon(((6, 20), (17, 20), (17, 17), (12, 12), (11, 12), (6, 17)), outline=1)
    pen.polygon(((9, 7), (14, 7), (12, 10), (11, 10)), fill=1)
    pen.polygon(((8, 19), (15, 19), (12, 16), (11, 16)), fill=1)


def _clock(pen: _Pen) -> None:
    pen.ellipse((0, 0, 23, 23), outline=1, width=3)
    pen.line(((11, 5), (11, 12), (16, 15)), fill=1, width=2)


def _retry(pen: _Pen) -> None:
    """An arrow that goes round."""
    pen.arc((2, 2, 21, 21), -30, 250, fill=1, width=3)
    pen.polygon(((7, 0), (15, 4), (8, 10)), fill=1)


def _closed(pen: _Pen) -> None:
    pen.ellipse((0, 0, 23, 23), outline=1, width=3)
    pen.rectangle((5, 10, 18, 13), fill=1)


_DRAW: Final[dict[Icon, Callable[[_Pen], None]]] = {
    Icon.NONE: _none,
    Icon.WAVE: _wave,
    Icon.CHECK: _check,
    Icon.LINK: _link,
    Icon.CROSS: _cross,
    Icon.HOURGLASS: _hourglass,
    Icon.CLOCK: _clock,
    Icon.KEYS: _keys,
    Icon.RETRY: _retry,
    Icon.CLOSED: _closed,
}

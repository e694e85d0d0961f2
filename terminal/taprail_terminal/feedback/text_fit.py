"""Text into a box: the largest size at which all of it fits, wrapped between words.

Answers for nothing being cut: what does not fit at one size is tried at the next smaller one. Only
a sentence from outside that fits at no size is shortened, and then it ends in "…".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias

from PIL import Image, ImageDraw, ImageFont

SMALLEST_PX: Final = 13
"""Of words. Below this, marks fall onto the same pixels of the grid: at 12 ã and ă look the same,
at 11 ằ and ắ, and a Vietnamese word becomes another one."""

SMALLEST_DIGITS_PX: Final = 11
"""Of amounts. Below this a decimal point may vanish, and 12.50 reads 1250."""

_UNBROKEN_PX: Final = 13
"""From here up, an unbroken line is preferred to a larger one."""

_FONT: Final = Path(__file__).with_name("fonts") / "DejaVuSansCondensed.ttf"
"""Comes with us, so that a picture is the same on every machine; Pillow's own has no letters with
marks."""

Font: TypeAlias = ImageFont.FreeTypeFont


@dataclass(frozen=True, slots=True)
class Fitted:
    """Lines as they will stand, and the size of their font; `whole` unless words were left out."""

    lines: tuple[str, ...]
    size_px: int
    whole: bool = True

    @property
    def line_px(self) -> int:
        """From one baseline to the next: tight, since there are few pixels and short texts, with
        room for the marks over and under a letter."""
        return self.size_px + 2

    @property
    def height_px(self) -> int:
        return self.line_px * len(self.lines)


@lru_cache(maxsize=64)
def font(size_px: int) -> Font:
    """The font at a size."""
    return ImageFont.truetype(_FONT, size_px)


def width_px(text: str, size_px: int) -> int:
    """How wide one line stands."""
    words = text.split()
    return sum(_word_px(word, size_px) for word in words) + _space_px(size_px) * (len(words) - 1)


def write(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size_px: int, fill: int
) -> None:
    """Write one line; `at` is the left end of its middle."""
    x, y = at
    for word in text.split():
        pen.bitmap((x - size_px, y - size_px), _stamp(word, size_px), fill=fill)
        x += _word_px(word, size_px) + _space_px(size_px)


@lru_cache(maxsize=512)
def _stamp(word: str, size_px: int) -> Image.Image:
    """A word with a margin of its size, its left middle at (size, size).

    Words come back, while a sum or a code is new with each sale; drawing letters is what takes the
    time of a picture.
    """
    stamp = Image.new("1", (_word_px(word, size_px) + 2 * size_px, 2 * size_px))
    pen = ImageDraw.Draw(stamp)
    pen.fontmode = "1"  # no grey: the display has none
    pen.text((size_px, size_px), word, font=font(size_px), fill=1, anchor="lm")
    return stamp


@lru_cache(maxsize=4096)
def _word_px(word: str, size_px: int) -> int:
    return round(font(size_px).getlength(word, mode="1"))


def _space_px(size_px: int) -> int:
    # Without grey a font's own space shrinks to a pixel or two at small sizes.
    return max(4, size_px // 3)


def fit(paragraphs: Sequence[str], box: tuple[int, int], sizes_px: Sequence[int]) -> Fitted:
    """Put paragraphs into a box of (width, height) at the first of the sizes that holds them all.

    A little smaller and unbroken reads better than larger and broken.
    """
    first: Fitted | None = None
    for size_px in sizes_px:
        if first is not None and size_px < _UNBROKEN_PX:
            break
        fitted = _wrapped(paragraphs, box[0], size_px)
        if fitted is None or fitted.height_px > box[1]:
            continue
        first = first or fitted
        if len(fitted.lines) == len(paragraphs):
            return fitted
    if first is None:
        return _shortened(paragraphs, box, sizes_px[-1])
    return _even(paragraphs, box[0], first)


def _wrapped(paragraphs: Sequence[str], box_px: int, size_px: int) -> Fitted | None:
    words = [word for paragraph in paragraphs for word in paragraph.split()]
    if any(_word_px(word, size_px) > box_px for word in words):
        return None
    lines = [line for paragraph in paragraphs for line in _wrap(paragraph, box_px, size_px)]
    return Fitted(tuple(lines), size_px)


def _even(paragraphs: Sequence[str], box_px: int, fitted: Fitted) -> Fitted:
    lines = [
        line for paragraph in paragraphs for line in _balanced(paragraph, box_px, fitted.size_px)
    ]
    return replace(fitted, lines=tuple(lines))


def _balanced(paragraph: str, box_px: int, size_px: int) -> list[str]:
    """Wrap into as few lines as the box allows, then as evenly as that allows."""
    lines = _wrap(paragraph, box_px, size_px)
    for narrower_px in range(box_px - 4, 0, -4):
        narrower = _wrap(paragraph, narrower_px, size_px)
        too_wide = any(width_px(line, size_px) > narrower_px for line in narrower)
        if too_wide or len(narrower) > len(lines):
            break
        lines = narrower
    return lines


def _wrap(paragraph: str, box_px: int, size_px: int) -> list[str]:
    lines: list[str] = []
    current = ""
    for word in paragraph.split():
        longer = f"{current} {word}" if current else word
        if current and width_px(longer, size_px) > box_px:
            lines.append(current)
            longer = word
        current = longer
    return [*lines, current] if current else lines


def _shortened(paragraphs: Sequence[str], box: tuple[int, int], size_px: int) -> Fitted:
    words = [_short_word(word, box[0], size_px) for word in " ".join(paragraphs).split()]
    while len(words) > 1:
        words.pop()
        fitted = _wrapped([" ".join(words).removesuffix("…") + "…"], box[0], size_px)
        if fitted is not None and fitted.height_px <= box[1]:
            return replace(_even([" ".join(fitted.lines)], box[0], fitted), whole=False)
    return Fitted((_with_ellipsis(words[0], box[0], size_px),), size_px, whole=False)


def _short_word(word: str, box_px: int, size_px: int) -> str:
    fits = _word_px(word, size_px) <= box_px
    return word if fits else _with_ellipsis(word, box_px, size_px)


def _with_ellipsis(word: str, box_px: int, size_px: int) -> str:
    word = word.removesuffix("…")
    while word and _word_px(word + "…", size_px) > box_px:
        word = word[:-1]
    return word + "…"

"""The pictures: as they were approved by eye, and no text ever cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from taprail_common.money import MAX_AMOUNT_UNITS
from taprail_terminal.feedback.icons import ICON_PX, icon
from taprail_terminal.feedback.messages import ENGLISH
from taprail_terminal.feedback.scene import Icon, Screen, scene, self_test_screen
from taprail_terminal.feedback.screens import HEIGHT_PX, WIDTH_PX, render
from taprail_terminal.feedback.text_fit import SMALLEST_PX, fit, font, width_px
from taprail_terminal.sale import Phase, View
from tests.support.screen_gallery import FOLDER, GALLERY, view

# FreeType may place a pixel of a curve elsewhere in its next version; a letter has dozens.
TOLERATED_PIXELS = 40


def _differing(one: Image.Image, other: Image.Image) -> int:
    return sum(ImageChops.logical_xor(one, other).convert("L").histogram()[128:])


@pytest.mark.parametrize("name", GALLERY)
def test_a_screen_looks_as_approved(name: str) -> None:
    golden = Image.open(FOLDER / f"{name}.png").convert("1")
    drawn = render(scene(GALLERY[name]).screen)
    assert drawn.mode == "1"
    assert drawn.size == (WIDTH_PX, HEIGHT_PX)
    assert _differing(golden, drawn) <= TOLERATED_PIXELS


def test_every_golden_picture_has_its_screen() -> None:
    assert {path.stem for path in FOLDER.glob("*.png")} == set(GALLERY)


def test_golden_pictures_differ_by_more_than_is_tolerated() -> None:
    drawn = {name: render(scene(shown).screen) for name, shown in GALLERY.items()}
    names = sorted(drawn)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            assert _differing(drawn[name], drawn[other]) > TOLERATED_PIXELS, (name, other)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("card_present", [True, False])
@pytest.mark.parametrize("currency", ["USDC", "ABCDEFGHIJKL"])
def test_the_largest_amount_is_never_cut(phase: Phase, card_present: bool, currency: str) -> None:
    shown = view(
        phase,
        amount_units=MAX_AMOUNT_UNITS,
        currency=currency,
        card_present=card_present,
        left_units=MAX_AMOUNT_UNITS,
        reason="daily_limit" if phase is Phase.DECLINED else None,
    )
    _assert_whole(shown)


@pytest.mark.parametrize("phase", [Phase.APPROVED, Phase.DECLINED, Phase.UNKNOWN])
def test_a_late_result_of_nearly_a_million_is_never_cut(phase: Phase) -> None:
    _assert_whole(view(phase, amount_units=999_999_990_000, late=True, card_present=True))


def _assert_whole(shown: View) -> None:
    """All words of the screen fit in the least room that a layout gives them."""
    screen = scene(shown).screen
    bottom = HEIGHT_PX if screen.lift_card is None else HEIGHT_PX - 15
    assert fit(screen.lines, (WIDTH_PX, bottom - 13), [SMALLEST_PX]).whole
    assert fit([screen.headline], (WIDTH_PX - ICON_PX - 5, ICON_PX), [SMALLEST_PX]).whole
    if screen.amount is not None:
        assert width_px(screen.amount, SMALLEST_PX) <= WIDTH_PX
        assert width_px(screen.currency, SMALLEST_PX) <= WIDTH_PX
    render(screen)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="latin-1", categories=["L", "N", "P"])), max_size=60),
    st.integers(20, WIDTH_PX),
    st.integers(SMALLEST_PX + 1, HEIGHT_PX),
)
def test_any_text_stays_in_its_box(words: list[str], width: int, height: int) -> None:
    fitted = fit([" ".join(words)], (width, height), range(22, SMALLEST_PX - 1, -1))
    assert fitted.height_px <= height
    assert all(width_px(line, fitted.size_px) <= width for line in fitted.lines)
    if fitted.whole:
        assert " ".join(fitted.lines).split() == " ".join(words).split()
    else:
        assert fitted.lines[-1].endswith("…")


def test_a_long_sentence_from_outside_ends_in_an_ellipsis_not_in_a_cut() -> None:
    long = "Please call the number on the back of your card and ask " * 5
    fitted = fit([long], (WIDTH_PX, 36), range(15, SMALLEST_PX - 1, -1))
    assert not fitted.whole
    assert fitted.lines[-1].endswith("…")


@pytest.mark.parametrize("size_px", range(SMALLEST_PX, 35))
def test_a_decimal_point_never_vanishes(size_px: int) -> None:
    def drawn(text: str) -> int:
        return sum(1 for pixel in font(size_px).getmask(text, mode="1") if pixel)

    assert drawn("12.50") > drawn("1250")


def test_every_character_of_the_catalogue_has_a_glyph() -> None:
    missing = bytes(font(20).getmask("\U0010fffe", mode="1"))
    characters = {c for text in ENGLISH.values() for c in text if not c.isspace()} - set("{}")
    for character in characters | set("0123456789.-"):
        assert bytes(font(20).getmask(character, mode="1")) != missing, character


def test_icons_are_told_apart() -> None:
    pictures = {kind: icon(kind).tobytes() for kind in Icon}
    assert len(set(pictures.values())) == len(pictures)


def test_the_self_test_has_a_screen_of_its_own() -> None:
    drawn = render(self_test_screen())
    assert _differing(drawn, render(Screen(""))) > TOLERATED_PIXELS

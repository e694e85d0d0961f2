"""The pictures: as they were approved by eye, and no text ever cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from taprail_common.money import MAX_AMOUNT_UNITS
from taprail_terminal.feedback.icons import ICON_PX, icon
from taprail_terminal.feedback.messages import CATALOGUES, ENGLISH, Catalogue, Language
from taprail_terminal.feedback.scene import Icon, Screen, scene, self_test_screen
from taprail_terminal.feedback.screens import HEIGHT_PX, WIDTH_PX, render
from taprail_terminal.feedback.text_fit import (
    SMALLEST_DIGITS_PX,
    SMALLEST_PX,
    fit,
    font,
    width_px,
)
from taprail_terminal.sale import Phase, View
from tests.support.screen_gallery import FOLDER, GALLERY, golden, view

# FreeType may place a pixel of a curve elsewhere in its next version; a letter has dozens.
TOLERATED_PIXELS = 40


def _differing(one: Image.Image, other: Image.Image) -> int:
    return sum(ImageChops.logical_xor(one, other).convert("L").histogram()[128:])


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("name", GALLERY)
def test_a_screen_looks_as_approved(name: str, language: Language) -> None:
    approved = Image.open(golden(language, name)).convert("1")
    drawn = render(scene(GALLERY[name], CATALOGUES[language]).screen)
    assert drawn.mode == "1"
    assert drawn.size == (WIDTH_PX, HEIGHT_PX)
    assert _differing(approved, drawn) <= TOLERATED_PIXELS


def test_every_golden_picture_has_its_screen() -> None:
    wanted = {golden(language, name) for language in Language for name in GALLERY}
    assert set(FOLDER.rglob("*.png")) == wanted


@pytest.mark.parametrize("words", CATALOGUES.values(), ids=list(Language))
def test_golden_pictures_differ_by_more_than_is_tolerated(words: Catalogue) -> None:
    drawn = {name: render(scene(shown, words).screen) for name, shown in GALLERY.items()}
    names = sorted(drawn)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            assert _differing(drawn[name], drawn[other]) > TOLERATED_PIXELS, (name, other)


WORDS = pytest.mark.parametrize("words", CATALOGUES.values(), ids=list(Language))


@WORDS
@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    ("amount_units", "currency", "card_present"),
    [
        (MAX_AMOUNT_UNITS, "USDC", False),
        (MAX_AMOUNT_UNITS, "ABCDEFGHIJKL", False),
        (9_999_999_990_000, "USDC", True),  # the bar takes a line
    ],
)
def test_the_largest_amount_is_never_cut(
    phase: Phase, amount_units: int, currency: str, card_present: bool, words: Catalogue
) -> None:
    shown = view(
        phase,
        amount_units=amount_units,
        currency=currency,
        card_present=card_present,
        left_units=999_999_990_000,
        reason="daily_limit" if phase is Phase.DECLINED else None,
    )
    _assert_whole(shown, words, smallest_px=SMALLEST_DIGITS_PX)


@WORDS
@pytest.mark.parametrize("phase", [Phase.APPROVED, Phase.SETTLED, Phase.DECLINED, Phase.UNKNOWN])
def test_a_late_result_of_nearly_a_million_is_never_cut(phase: Phase, words: Catalogue) -> None:
    _assert_whole(view(phase, amount_units=999_999_990_000, late=True, card_present=True), words)


@WORDS
@pytest.mark.parametrize("code", [key[7:] for key in ENGLISH if key.startswith("reason.")])
def test_every_reason_is_told_whole_in_every_place(code: str, words: Catalogue) -> None:
    """With the bar, without, of an earlier sale, and with what a limit leaves."""
    amount_units = 9_999_990_000
    _assert_whole(view(Phase.DECLINED, reason_code=code, card_present=True), words)
    _assert_whole(view(Phase.CARD_REFUSED, reason_code=code, card_present=True), words)
    _assert_whole(view(Phase.TRY_AGAIN, reason_code=code, card_present=True), words)
    _assert_whole(
        view(Phase.DECLINED, reason_code=code, amount_units=amount_units, late=True), words
    )


@WORDS
@pytest.mark.parametrize("card_present", [True, False])
def test_every_phase_says_its_words_whole(card_present: bool, words: Catalogue) -> None:
    for phase in Phase:
        _assert_whole(view(phase, card_present=card_present, auth_code="7K2M9Q"), words)
    _assert_whole(view(Phase.APPROVED, card_present=True, left_behind=True), words)


def _assert_whole(shown: View, words: Catalogue, smallest_px: int = SMALLEST_PX) -> None:
    """All words of the screen fit in the least room that a layout gives them."""
    screen = scene(shown, words).screen
    bottom, text_left = HEIGHT_PX, ICON_PX + 5
    if screen.lift_card is not None:
        bottom -= 17
        assert fit([screen.lift_card], (WIDTH_PX - 40, 16), [SMALLEST_PX]).whole, screen
    if screen.amount is not None:
        assert width_px(screen.amount, SMALLEST_DIGITS_PX) <= WIDTH_PX
        assert width_px(screen.currency, SMALLEST_DIGITS_PX) <= WIDTH_PX
        text_left = text_left if screen.lift_card is None else 0
    assert fit(screen.lines, (WIDTH_PX, bottom - 16), [smallest_px]).whole, screen
    assert fit([screen.headline], (WIDTH_PX - text_left, 16), [SMALLEST_PX]).whole, screen
    render(screen)


@settings(max_examples=150)
@given(
    st.lists(st.text(st.characters(codec="latin-1", categories=["L", "N", "P"])), max_size=60),
    st.integers(20, WIDTH_PX),
    st.integers(SMALLEST_PX + 2, HEIGHT_PX),
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


@pytest.mark.parametrize("size_px", range(SMALLEST_DIGITS_PX, 35))
def test_a_decimal_point_never_vanishes(size_px: int) -> None:
    def drawn(text: str) -> int:
        return sum(1 for pixel in font(size_px).getmask(text, mode="1") if pixel)

    assert drawn("12.50") > drawn("1250")


def _letters(words: Catalogue) -> set[str]:
    return {letter for text in words.values() for letter in text if not letter.isspace()}


def _drawn(letter: str, size_px: int) -> tuple[object, ...]:
    box = font(size_px).getbbox(letter, mode="1")
    return box, bytes(font(size_px).getmask(letter, mode="1"))


@WORDS
@pytest.mark.parametrize("size_px", range(SMALLEST_PX, 23))
def test_every_letter_of_a_language_has_a_glyph_that_is_like_no_other(
    size_px: int, words: Catalogue
) -> None:
    """Of the language, not only of today's sentences: ằ and ắ are two letters."""
    marked = "àáảãạăằắẳẵặâầấẩẫậđèéẻẽẹêềếểễệìíỉĩịòóỏõọôồốổỗộơờớởỡợùúủũụưừứửữựỳýỷỹỵ"
    missing = _drawn("\U0010fffe", size_px)[1]
    letters = _letters(words) | set("0123456789.,-$€£¥₫")
    if words["idle.headline"] != ENGLISH["idle.headline"]:
        letters |= set(marked) | set(marked.upper())
    drawn = {letter: _drawn(letter, size_px) for letter in letters}
    assert [letter for letter in sorted(letters) if drawn[letter][1] == missing] == []
    assert len(set(drawn.values())) == len(letters)


def test_icons_are_told_apart() -> None:
    pictures = {kind: icon(kind).tobytes() for kind in Icon}
    assert len(set(pictures.values())) == len(pictures)


def test_the_self_test_has_a_screen_of_its_own() -> None:
    drawn = render(self_test_screen())
    assert _differing(drawn, render(Screen(""))) > TOLERATED_PIXELS

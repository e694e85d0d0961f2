"""The grammar of lights, sounds and words: each phase is told from every other without colour."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest

from taprail_gateway.charges import Objection
from taprail_gateway.pins import PinReason
from taprail_gateway.reasons import Reason
from taprail_terminal.card_session import BANK_CARD, UNKNOWN_CARD
from taprail_terminal.feedback import sounds
from taprail_terminal.feedback.lights import LIGHT_COUNT, OFF, ON, TEST_LIGHTS, Lights, Pattern
from taprail_terminal.feedback.messages import CATALOGUES, ENGLISH, SERVICE_NEEDED, reason_text
from taprail_terminal.feedback.scene import Icon, Scene, scene
from taprail_terminal.offline import LOSS, OfflineNo
from taprail_terminal.sale import (
    CARD_CHANGED,
    NOT_SETTLED,
    PAYMENT_FAILED,
    CardTorn,
    CardUnreadable,
    NotSent,
    Phase,
    PinLeft,
)
from taprail_terminal.signing_session import CANNOT_SIGN, NOT_BY_CARD, NOT_READY
from tests.support.screen_gallery import view

PAIRS = list(itertools.combinations(Phase, 2))


def _shown(phase: Phase) -> Scene:
    return scene(view(phase, reason=None))


def _film(lights: Lights) -> tuple[tuple[bool, ...], ...]:
    """What an eye sees in ten seconds, a frame every 25 ms."""
    return tuple(lights.lit(at_ms) for at_ms in range(0, 10_000, 25))


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_phases_never_look_alike(one: Phase, other: Phase) -> None:
    assert _film(_shown(one).lights) != _film(_shown(other).lights)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_phases_never_say_the_same(one: Phase, other: Phase) -> None:
    def words(phase: Phase) -> tuple[object, ...]:
        screen = _shown(phase).screen
        return screen.headline, screen.lines

    assert words(one) != words(other)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_patterns_differ_even_where_all_lights_have_one_colour(one: Phase, other: Phase) -> None:
    # Each light is told by its place; here red and amber are only the fifth and sixth place, and a
    # place that blinks is not a place that is on.
    def seen(phase: Phase) -> tuple[tuple[int, ...], ...]:
        film = _film(_shown(phase).lights)
        return tuple(
            (place, sum(frame[place] for frame in film), _changes(film, place))
            for place in range(LIGHT_COUNT)
        ) + tuple((frame.count(True),) for frame in film[:80])

    assert seen(one) != seen(other)


def _changes(film: tuple[tuple[bool, ...], ...], place: int) -> int:
    return sum(a[place] != b[place] for a, b in itertools.pairwise(film))


def test_the_emv_steps_light_from_left_to_right() -> None:
    assert _shown(Phase.READY).lights == Lights(emv=(ON, OFF, OFF, OFF))
    assert _shown(Phase.WAITING).lights == Lights(emv=(ON, ON, ON, ON))
    idle = _shown(Phase.IDLE).lights
    assert idle.emv[1:] == (OFF, OFF, OFF)
    assert [at_ms for at_ms in range(0, 10_000, 100) if idle.lit(at_ms)[0]] == [0, 100, 5000, 5100]


def test_a_card_that_was_read_is_no_approval() -> None:
    waiting, approved = _shown(Phase.WAITING), _shown(Phase.APPROVED)
    assert waiting.sound != approved.sound
    assert sounds.duration_ms(waiting.sound) < sounds.duration_ms(approved.sound)
    assert waiting.screen.icon is not Icon.CHECK
    assert "pprov" not in waiting.screen.headline


def test_only_a_yes_has_the_check_mark_and_the_rising_tone() -> None:
    assert [phase for phase in Phase if _shown(phase).screen.icon is Icon.CHECK] == [Phase.APPROVED]
    assert [phase for phase in Phase if _shown(phase).screen.icon is Icon.LINK] == [Phase.SETTLED]
    rising = [phase for phase in Phase if _shown(phase).sound == sounds.APPROVED]
    assert rising == [Phase.APPROVED]


def test_unknown_is_neither_yes_nor_no() -> None:
    unknown = _shown(Phase.UNKNOWN)
    assert unknown.lights.emv == (OFF, OFF, OFF, OFF)
    assert unknown.lights.red is OFF
    assert unknown.lights.amber.period_ms >= 2000
    assert unknown.screen.headline == "Checking…"
    assert unknown.screen.lines[0] == "Do not pay again"
    assert unknown.screen.icon not in {Icon.CHECK, Icon.LINK, Icon.CROSS}
    assert unknown.sound not in {sounds.APPROVED, sounds.DECLINED}


def test_a_no_is_a_double_low_tone() -> None:
    tones = [tone for tone in _shown(Phase.DECLINED).sound if tone.frequency_hz]
    assert len(tones) == 2
    lowest = min(
        tone.frequency_hz
        for phase in Phase
        for tone in _shown(phase).sound
        if tone.frequency_hz and phase not in {Phase.DECLINED, Phase.CARD_REFUSED}
    )
    assert all(tone.frequency_hz < lowest for tone in tones)


def test_a_limit_says_what_is_left() -> None:
    declined = scene(view(Phase.DECLINED, reason="daily_limit", left_units=3_200_000))
    assert declined.screen.lines == ("Daily limit: 3.20 left",)
    single = scene(view(Phase.DECLINED, reason="single_limit", left_units=50_000_000))
    assert single.screen.lines == ("At most 50.00 per payment",)


def test_a_sentence_that_names_the_rest_does_not_say_it_twice() -> None:
    assert reason_text("Insufficient daily limit: 3.20 left", "3.20") == (
        "Insufficient daily limit: 3.20 left"
    )
    assert reason_text("Too much", "3.20") == "Too much: 3.20 left"


def test_a_code_of_a_newer_gateway_is_shown_in_its_own_words() -> None:
    assert reason_text("card_too_young", None) == "Card too young"


def test_every_reason_has_words_and_no_words_are_without_a_reason() -> None:
    again = [CardTorn("").code, CardUnreadable("").code, NotSent("", "").code]
    again += [CARD_CHANGED, "two_cards", NOT_SETTLED, PAYMENT_FAILED]
    signing = [CANNOT_SIGN.code, NOT_BY_CARD.code, NOT_READY.code]
    codes = [
        *Reason,
        *Objection,
        *PinReason,
        PinLeft().code,
        BANK_CARD.code,
        UNKNOWN_CARD.code,
        *signing,
        *again,
        *OfflineNo,
        LOSS,
        SERVICE_NEEDED,
    ]
    catalogued = {key.split(".")[1] for key in ENGLISH if key.startswith("reason.")}
    assert catalogued == set(codes)


def test_every_language_has_every_message_with_the_same_places_to_fill() -> None:
    for words in CATALOGUES.values():
        assert words.keys() == ENGLISH.keys()
        for key, text in words.items():
            assert re.findall(r"{\w+}", text) == re.findall(r"{\w+}", ENGLISH[key]), key


def test_what_fails_inside_is_not_told_to_the_customer() -> None:
    for phase in (Phase.TRY_AGAIN, Phase.OUT_OF_SERVICE):
        shown = scene(view(phase, reason="no bytes from /dev/serial0"))
        assert shown == scene(view(phase))


def test_a_card_torn_away_is_told_so() -> None:
    assert scene(view(Phase.TRY_AGAIN, reason_code="torn")).screen.lines == (
        "Card removed too early",
    )


def test_a_forgotten_card_is_asked_for_and_the_result_stays() -> None:
    left = view(Phase.DECLINED, reason="card_frozen", card_present=True, left_behind=True)
    shown, before = scene(left), scene(replace(left, left_behind=False))
    assert (shown.lights, shown.screen.lines) == (before.lights, before.screen.lines)
    assert (shown.sound, shown.screen.lift_card) == (sounds.CARD_LEFT, "TAKE CARD!")


def test_the_next_customer_is_told_to_wait_and_a_card_that_lies_there_to_come_anew() -> None:
    assert scene(view(Phase.WAITING)).screen.headline == "One moment"
    assert scene(view(Phase.READY, card_present=True)).screen.headline == "Lift card first"


@pytest.mark.parametrize("phase", Phase)
def test_a_card_is_asked_away_once_it_is_done_with(phase: Phase) -> None:
    there = scene(view(phase, card_present=True)).screen.lift_card
    assert there == (None if phase is Phase.READING else "LIFT CARD")
    assert scene(view(phase)).screen.lift_card is None


def test_a_late_result_names_its_own_sale_first_and_no_code() -> None:
    late = scene(view(Phase.APPROVED, late=True, auth_code="7K2M9Q"))
    assert late.screen.lines == ("Earlier: 12.50",)


def test_a_pattern_changes_exactly_when_it_says() -> None:
    for pattern in (Pattern(1600, 1300, 300), Pattern(250, 125), Pattern(5000, 200)):
        at_ms = 0
        while at_ms < 3 * pattern.period_ms:
            wait_ms = pattern.next_change_ms(at_ms)
            assert wait_ms is not None
            assert wait_ms > 0
            before = pattern.is_lit(at_ms)
            assert all(pattern.is_lit(t) is before for t in range(at_ms, at_ms + wait_ms))
            at_ms += wait_ms
    assert ON.next_change_ms(7) is None


@pytest.mark.parametrize("wrong", [(0, 0, 0), (100, 101, 0), (100, 60, 50), (100, -1, 0)])
def test_an_impossible_pattern_is_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="a light"):
        Pattern(*wrong)


def test_the_light_test_shows_each_light_alone() -> None:
    seen = [TEST_LIGHTS.lit(at_ms) for at_ms in range(50, 600, 100)]
    assert [frame.index(True) for frame in seen] == [0, 1, 2, 3, 4, 5]
    assert all(frame.count(True) == 1 for frame in seen)


def test_a_sound_is_played_through_and_ends() -> None:
    assert sounds.sounding(sounds.DECLINED, 0) == (750, 200)
    assert sounds.sounding(sounds.DECLINED, 250) == (0, 150)
    assert sounds.sounding(sounds.DECLINED, 599) == (750, 1)
    assert sounds.sounding(sounds.DECLINED, 600) == (0, None)

"""Views on real gpiozero devices and a real luma.oled ssd1306, down to pins and display memory."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from gpiozero.pins.mock import MockFactory, MockPWMPin
from PIL import ImageChops

from taprail_common.errors import OperatorError
from taprail_hwsim.panel import GpioPanel, Ssd1306Panel, panel_factory
from taprail_terminal.feedback.drivers import (
    gpio_signals,
    oled_display,
    open_display,
    open_signals,
)
from taprail_terminal.feedback.feedback import Feedback
from taprail_terminal.feedback.gpio import DEFAULT_BUZZER_PIN, DEFAULT_LIGHT_PINS
from taprail_terminal.feedback.parts import PartHealth
from taprail_terminal.feedback.scene import scene
from taprail_terminal.feedback.screens import render
from taprail_terminal.sale import Phase, View
from tests.support.screen_gallery import GALLERY, view

NAMES = ("light1", "light2", "light3", "light4", "red", "amber")
WAIT_S = 10.0


class LoosePanel(Ssd1306Panel):
    """The simulated display with a plug that can be pulled."""

    def __init__(self) -> None:
        super().__init__()
        self.plugged = True

    def command(self, *cmd: int) -> None:
        self._check()
        super().command(*cmd)

    def data(self, data: Any) -> None:
        self._check()
        super().data(data)

    def _check(self) -> None:
        if not self.plugged:
            raise OSError(121, "Remote I/O error")


class Front:
    """A terminal's front: the real drivers, simulated copper, and what was reported as shown."""

    def __init__(self) -> None:
        factory = panel_factory()
        signals = gpio_signals(DEFAULT_LIGHT_PINS, DEFAULT_BUZZER_PIN, factory)
        self.display = LoosePanel()
        self.shown: queue.Queue[View] = queue.Queue()
        self.feedback = Feedback(
            signals, oled_display(lambda: self.display), on_shown=self.shown.put
        )
        pins = dict(zip(NAMES, DEFAULT_LIGHT_PINS, strict=True)) | {"buzzer": DEFAULT_BUZZER_PIN}
        self.panel = GpioPanel(pins, factory)

    def show(self, wanted: View) -> None:
        """Show and wait until the front says that it did."""
        self.feedback.show(wanted)
        while self.shown.get(timeout=WAIT_S) != wanted:
            pass

    def on(self) -> set[str]:
        return {name for name, is_on in self.panel.lights().items() if is_on}


@pytest.fixture
def front() -> Iterator[Front]:
    made = Front()
    yield made
    made.feedback.close()


def _until(condition: Callable[[], bool]) -> None:
    """Wait for a state that a part's own thread brings about."""
    deadline = threading.Event()
    for _ in range(int(WAIT_S / 0.005)):
        if condition():
            return
        deadline.wait(0.005)
    raise AssertionError("it never came about")


@pytest.mark.parametrize("name", sorted(GALLERY))
def test_the_picture_on_the_glass_is_the_picture_drawn(front: Front, name: str) -> None:
    front.show(GALLERY[name])
    drawn = render(scene(GALLERY[name]).screen)
    assert ImageChops.logical_xor(front.display.picture(), drawn).getbbox() is None
    assert front.display.on


@pytest.mark.parametrize(
    ("phase", "lit"),
    [
        (Phase.READY, {"light1"}),
        (Phase.READING, {"light1", "light2"}),
        (Phase.WAITING, {"light1", "light2", "light3", "light4"}),
        (Phase.DECLINED, {"red"}),
        (Phase.OUT_OF_SERVICE, {"red", "amber"}),
    ],
)
def test_steady_lights_are_on_when_the_view_is_shown(
    front: Front, phase: Phase, lit: set[str]
) -> None:
    front.show(view(phase))
    assert front.on() == lit


def test_a_blinking_light_goes_on_and_off_by_itself(front: Front) -> None:
    front.show(view(Phase.TRY_AGAIN))
    _until(lambda: _changes(front, "light1") >= 5)
    assert {name for _, name, _ in front.panel.history()} >= {"light1"}
    front.show(view(Phase.READY))
    assert front.on() == {"light1"}


def _changes(front: Front, light: str) -> int:
    return sum(name == light for _, name, _ in front.panel.history())


def test_a_no_sounds_twice_and_low(front: Front) -> None:
    front.show(view(Phase.DECLINED))
    _until(lambda: _finished_beeps(front) == 2)
    assert [hz for _, _, hz in front.panel.beeps()] == [750, 750]


def test_a_sound_is_heard_once_per_phase_not_once_per_view(front: Front) -> None:
    front.show(view(Phase.WAITING, card_present=True))
    _until(lambda: _finished_beeps(front) == 1)
    front.show(view(Phase.WAITING))
    front.show(view(Phase.READY))
    front.show(view(Phase.WAITING, card_present=True))
    _until(lambda: _finished_beeps(front) == 2)
    assert [hz for _, _, hz in front.panel.beeps()] == [1500, 1500]


def _finished_beeps(front: Front) -> int:
    return sum(name == "buzzer" and duty == 0 for _, name, duty in front.panel.history())


def test_the_newest_view_wins_and_the_caller_never_waits() -> None:
    entered, release = threading.Event(), threading.Event()

    class SlowPanel(Ssd1306Panel):
        def data(self, data: Any) -> None:
            if entered.is_set():
                release.wait(WAIT_S)
            super().data(data)

    shown: queue.Queue[View] = queue.Queue()
    display = oled_display(SlowPanel)
    entered.set()  # set up is over; from now on the glass is slow
    feedback = Feedback(open_signals("none", DEFAULT_LIGHT_PINS, None), display, on_shown=shown.put)
    try:
        for phase in (Phase.READY, Phase.READING, Phase.WAITING, Phase.APPROVED):
            feedback.show(view(phase))  # returns although the display is stuck
        assert shown.empty()
        release.set()
        assert shown.get(timeout=WAIT_S).phase is Phase.APPROVED
        assert shown.empty()
    finally:
        release.set()
        feedback.close()


def test_a_display_that_is_pulled_out_stops_nothing_and_comes_back(front: Front) -> None:
    front.show(view(Phase.READY))
    front.display.plugged = False
    front.show(view(Phase.DECLINED))  # reported as shown: the lights did
    assert front.on() == {"red"}
    health = front.feedback.health()["display"]
    assert not health.ok
    assert "wires" in health.fix
    assert front.feedback.health()["lights"].ok

    front.display.plugged = True
    _until(lambda: front.feedback.health()["display"].ok)
    drawn = render(scene(view(Phase.DECLINED)).screen)
    assert ImageChops.logical_xor(front.display.picture(), drawn).getbbox() is None


def test_a_broken_pin_is_told_and_the_display_goes_on() -> None:
    class BrokenPin(MockPWMPin):  # type: ignore[misc]  # gpiozero ships no types
        broken = False

        def _set_state(self, value: float) -> None:
            if BrokenPin.broken:
                raise OSError(5, "Input/output error")
            super()._set_state(value)

    shown: queue.Queue[View] = queue.Queue()
    signals = gpio_signals(DEFAULT_LIGHT_PINS, None, MockFactory(pin_class=BrokenPin))
    display = Ssd1306Panel()
    feedback = Feedback(signals, oled_display(lambda: display), on_shown=shown.put)
    try:
        BrokenPin.broken = True
        feedback.show(view(Phase.WAITING))
        assert shown.get(timeout=WAIT_S).phase is Phase.WAITING
        assert feedback.health()["lights"].ok is False
        assert feedback.health()["display"].ok
    finally:
        BrokenPin.broken = False
        feedback.close()


async def test_each_part_can_be_tried(front: Front) -> None:
    await asyncio.to_thread(front.show, view(Phase.READY))
    results = await asyncio.gather(
        front.feedback.test_lights(), front.feedback.test_display(), front.feedback.test_buzzer()
    )
    assert [result.ok for result in results] == [True, True, True]
    assert {name for _, name, duty in front.panel.history() if duty} == {*NAMES, "buzzer"}
    _until(lambda: front.on() == {"light1"})  # and back to the sale


async def test_a_test_never_disturbs_a_sale(front: Front) -> None:
    await asyncio.to_thread(front.show, view(Phase.WAITING))
    before = [entry for entry in front.panel.history() if entry[1] != "buzzer"]
    assert await front.feedback.test_lights() == PartHealth("lights", ok=True, detail="works")
    assert [entry for entry in front.panel.history() if entry[1] != "buzzer"] == before


async def test_a_sale_ends_a_test_at_once(front: Front) -> None:
    await asyncio.to_thread(front.show, view(Phase.READY))
    testing = asyncio.create_task(front.feedback.test_lights())
    await asyncio.to_thread(_until, lambda: "light3" in front.on())
    await asyncio.to_thread(front.show, view(Phase.WAITING))
    assert (await testing).ok
    assert front.on() == {"light1", "light2", "light3", "light4"}


def test_closing_leaves_the_front_dark_and_silent(front: Front) -> None:
    front.show(view(Phase.UNKNOWN))
    front.feedback.close()
    assert front.on() == set()
    assert not front.display.on


def test_absent_parts_are_said_to_be_absent_and_a_view_is_shown_at_once() -> None:
    shown: list[View] = []
    feedback = Feedback(
        open_signals("none", DEFAULT_LIGHT_PINS, None),
        open_display("none", 1, 0x3C),
        on_shown=shown.append,
    )
    feedback.show(view(Phase.READY))
    assert shown == [view(Phase.READY)]
    assert all(part.ok and "not fitted" in part.detail for part in feedback.health().values())
    feedback.close()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: open_signals("neopixel", DEFAULT_LIGHT_PINS, None), r"use one of: gpio, none"),
        (lambda: open_display("hdmi", 1, 0x3C), r"use one of: none, ssd1306-i2c"),
        (lambda: gpio_signals((5, 6), None, panel_factory()), "name 6"),
        (lambda: gpio_signals((5, 5, 6, 13, 19, 26), None, panel_factory()), "pin 5 cannot"),
        (lambda: gpio_signals(DEFAULT_LIGHT_PINS, 5, panel_factory()), "pin 5 cannot"),
        (lambda: gpio_signals((5, 6, 13, 19, 26, 4711), None, panel_factory()), "pin 4711"),
    ],
)
def test_a_driver_that_is_unknown_or_broken_stops_the_program(
    build: Callable[[], Any], words: str
) -> None:
    with pytest.raises(OperatorError, match=words):
        build()


@pytest.mark.skipif(Path("/dev/i2c-1").exists(), reason="this machine has an I2C bus")
def test_a_display_without_its_bus_stops_the_program_with_what_to_do() -> None:
    with pytest.raises(OperatorError, match=r"/dev/i2c-1.*driver = \"none\""):
        open_display("ssd1306-i2c", 1, 0x3C)


def test_a_refused_pin_gives_back_the_ones_before_it() -> None:
    factory = panel_factory()
    with pytest.raises(OperatorError):
        gpio_signals((5, 6, 13, 19, 26, 4711), None, factory)
    again: Sequence[int] = (5, 6, 13, 19, 26, 16)
    signals = gpio_signals(again, None, factory)
    assert signals.lights is not None
    signals.lights.close()

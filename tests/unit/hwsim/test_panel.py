"""The panel decoders against the real luma.oled driver and real gpiozero devices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gpiozero import LED, Device, PWMOutputDevice, TonalBuzzer
from gpiozero.pins.mock import MockFactory, MockPWMPin
from gpiozero.tones import Tone
from luma.core.render import canvas
from luma.oled.device import ssd1306
from PIL import Image, ImageChops, ImageDraw

from taprail_hwsim.panel import GpioPanel, Ssd1306Panel, panel_factory
from taprail_hwsim.panel.lights import Beep, Edge, beeps_of

PINS = {"light1": 5, "light2": 6, "red": 13, "buzzer": 12}
SIZE = (128, 64)


def drawn() -> Image.Image:
    image = Image.new("1", SIZE)
    draw = ImageDraw.Draw(image)
    draw.rectangle((3, 5, 40, 21), outline=255)
    draw.line((0, 63, 127, 0), fill=255)
    draw.text((50, 40), "12.50", fill=255)
    return image


def same(first: Image.Image, second: Image.Image) -> bool:
    return (first.mode, first.tobytes()) == (second.mode, second.tobytes())


def test_what_luma_draws_is_what_the_panel_shows() -> None:
    panel = Ssd1306Panel()
    ssd1306(panel).display(drawn())
    assert same(panel.picture(), drawn())


def test_a_canvas_counts_one_frame_and_is_told() -> None:
    told: list[Image.Image] = []
    panel = Ssd1306Panel()
    device = ssd1306(panel)
    panel.on_frame = lambda: told.append(panel.picture())
    with canvas(device) as draw:
        draw.point((0, 0), fill="white")
    assert len(told) == 1
    assert told[0].getpixel((0, 0)) == 255
    assert told[0].getbbox() == (0, 0, 1, 1)


def test_off_inverse_and_contrast_follow_the_driver() -> None:
    panel = Ssd1306Panel()
    device = ssd1306(panel)
    device.display(drawn())
    device.hide()
    assert panel.picture().getbbox() is None
    device.show()
    panel.command(0xA7)
    assert same(panel.picture(), ImageChops.invert(drawn()))
    device.contrast(9)
    assert panel.contrast == 9


@pytest.mark.parametrize("quarter_turns", [0, 2])
def test_a_rotated_driver_gives_a_rotated_picture(quarter_turns: int) -> None:
    panel = Ssd1306Panel()
    ssd1306(panel, rotate=quarter_turns).display(drawn())
    assert same(panel.picture(), drawn().rotate(90 * quarter_turns))


def test_the_display_is_dark_after_reset() -> None:
    panel = Ssd1306Panel()
    panel.data(b"\xff" * 1024)
    assert panel.picture().getbbox() is None


def test_page_mode_column_and_page_commands_place_one_byte() -> None:
    panel = Ssd1306Panel()
    panel.command(0xAF, 0xA1, 0xC8, 0x20, 0x02, 0xB3, 0x05, 0x12)
    panel.data(b"\x81")
    picture = panel.picture()
    lit = [(x, y) for x in range(128) for y in range(64) if picture.getpixel((x, y))]
    assert lit == [(0x25, 24), (0x25, 31)]


def test_vertical_mode_fills_columns_of_its_window() -> None:
    panel = Ssd1306Panel()
    panel.command(0xAF, 0xA1, 0xC8, 0x20, 0x01, 0x21, 10, 11, 0x22, 2, 3)
    panel.data(b"\x01\x02\x04\x08\x10")
    picture = panel.picture()
    lit = {(x, y) for x in range(128) for y in range(64) if picture.getpixel((x, y))}
    assert lit == {(10, 20), (10, 25), (11, 18), (11, 27)}


def test_png_and_text_show_the_same_picture(tmp_path: Path) -> None:
    panel = Ssd1306Panel()
    ssd1306(panel).display(drawn())
    panel.png(tmp_path / "panel.png", scale=3)
    with Image.open(tmp_path / "panel.png") as saved:
        assert saved.size == (384, 192)
        assert same(saved.resize(SIZE, Image.Resampling.NEAREST).convert("1"), drawn())
    lines = panel.ansi().split("\n")
    assert (len(lines), len(lines[0])) == (32, 128)
    assert lines[0][127] == "\N{UPPER HALF BLOCK}"
    assert lines[31][0] == "\N{LOWER HALF BLOCK}"


@pytest.fixture
def factory() -> Iterator[MockFactory]:
    before = Device.pin_factory
    Device.pin_factory = panel_factory()
    yield Device.pin_factory
    Device.pin_factory.reset()
    Device.pin_factory = before


def test_lights_are_named(factory: MockFactory) -> None:
    panel = GpioPanel(PINS)
    with LED(5) as first, LED(13) as red:
        assert panel.lights() == {"light1": False, "light2": False, "red": False}
        first.on()
        red.on()
        red.off()
        assert panel.lights() == {"light1": True, "light2": False, "red": False}
        names = [(name, duty) for _, name, duty in panel.history()]
    assert names == [("light1", 1.0), ("red", 1.0), ("red", 0.0)]
    times = [at_s for at_s, _, _ in panel.history()]
    assert times == sorted(times)


def test_tones_of_a_tonal_buzzer_have_their_pitch(factory: MockFactory) -> None:
    panel = GpioPanel(PINS)
    with TonalBuzzer(12) as buzzer:
        buzzer.play(Tone("A4"))
        buzzer.stop()
        buzzer.play(Tone("A3"))
        buzzer.play(Tone("C4"))
        assert len(panel.beeps()) == 3
        buzzer.stop()
    pitches = [frequency_hz for _, _, frequency_hz in panel.beeps()]
    assert pitches == pytest.approx([440.0, 220.0, 261.63], abs=0.01)
    assert all(duration_s >= 0 for _, duration_s, _ in panel.beeps())


def test_a_pwm_device_beeps_too(factory: MockFactory) -> None:
    panel = GpioPanel(PINS)
    with PWMOutputDevice(12, frequency=2000) as buzzer:
        buzzer.value = 0.5
        buzzer.value = 0.7
        buzzer.value = 0
    assert [frequency_hz for _, _, frequency_hz in panel.beeps()] == [2000]


def test_gpiozeros_own_mock_pin_is_readable_without_pitch() -> None:
    plain = MockFactory(pin_class=MockPWMPin)
    panel = GpioPanel(PINS, plain)
    with LED(5, pin_factory=plain) as light, TonalBuzzer(12, pin_factory=plain) as buzzer:
        light.on()
        buzzer.play(440.0)
        buzzer.stop()
        assert panel.lights()["light1"]
    assert [name for _, name, _ in panel.history()] == ["light1", "buzzer", "buzzer", "light1"]
    assert [frequency_hz for _, _, frequency_hz in panel.beeps()] == [None]


def test_the_panel_refuses_real_pins() -> None:
    with pytest.raises(TypeError, match="MockFactory"):
        GpioPanel(PINS, object())


def test_beeps_split_at_a_change_of_pitch_and_last_until_now() -> None:
    edges = [Edge(1.0, 0.0, 440), Edge(1.5, 0.5, 440), Edge(2.0, 0.5, 220), Edge(2.2, 0.6, 220)]
    assert beeps_of(edges, now_s=3.0) == [Beep(1.5, 0.5, 440), Beep(2.0, 1.0, 220)]

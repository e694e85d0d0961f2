"""Draws `wiring.svg`: which part of a terminal goes to which pin of a Raspberry Pi's header.

`python docs/draw_wiring.py` writes it anew. Every wire lies at the height of its pin, so none
crosses another, and each is named, so that nothing depends on its colour. A test holds the table
below against the defaults of the configuration.
Source: Raspberry Pi documentation, "GPIO and the 40-pin header".
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SVG: Final = Path(__file__).with_name("wiring.svg")

# Of the pins that are used here, the others are power or ground.
BCM_OF_PIN: Final = dict(
    zip(
        (3, 5, 8, 10, 16, 29, 31, 32, 33, 35, 36, 37),
        (2, 3, 14, 15, 23, 5, 6, 12, 13, 19, 16, 26),
        strict=True,
    )
)
POWER: Final = {1: "3V3", 2: "5V"}


@dataclass(frozen=True)
class Wire:
    """From a pin of the header to what it is called at the part."""

    pin: int
    label: str
    colour: str
    dashed: bool = False


DISPLAY: Final = (
    Wire(1, "VCC", "#c0392b"),
    Wire(3, "SDA", "#2471a3"),
    Wire(5, "SCL", "#7d3c98"),
    Wire(9, "GND", "#222"),
)
READER: Final = (
    Wire(2, "VCC", "#c0392b"),
    Wire(6, "GND", "#222"),
    Wire(8, "RXD", "#2471a3"),
    Wire(10, "TXD", "#7d3c98"),
    Wire(16, "RSTPDN", "#666", dashed=True),
)
BUZZER: Final = (Wire(30, "GND", "#222"), Wire(32, "+", "#2471a3"))
LEDS: Final = (
    Wire(29, "light 1", "#27ae60"),
    Wire(31, "light 2", "#27ae60"),
    Wire(33, "light 3", "#27ae60"),
    Wire(35, "light 4", "#27ae60"),
    Wire(37, "red", "#c0392b"),
    Wire(36, "amber", "#d68910"),
)
LED_GROUNDS: Final = (39, 34)

_WIDTH, _HEIGHT = 960, 640
_TOP, _ROW = 70, 27
_LEFT, _RIGHT = 462, 498  # the two columns of pins
_PART_LEFT, _PART_RIGHT = 190, 770  # where the parts' own pins are
_BUS = 300  # where the LEDs of a side meet their ground, from the header


def _y(pin: int) -> int:
    return _TOP + (pin - 1) // 2 * _ROW


def _x(pin: int) -> int:
    return _LEFT if pin % 2 else _RIGHT


def _outward(pin: int) -> int:
    return -1 if pin % 2 else 1


def _name(pin: int) -> str:
    return f"GPIO {BCM_OF_PIN[pin]}" if pin in BCM_OF_PIN else POWER.get(pin, "GND")


def _text(x: int, y: int, words: str, anchor: str = "middle", extra: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" {extra}>{words}</text>'


def _line(points: str, colour: str, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    return f'<polyline points="{points}" stroke="{colour}"{dash}/>'


def _header() -> Iterator[str]:
    box = f'x="{_LEFT - 24}" y="{_TOP - 22}" width="84" height="{20 * _ROW + 18}" rx="6"'
    yield f'<rect {box} fill="#1e6b3a"/>'
    yield _text(480, _TOP - 34, "Raspberry Pi, 40-pin header", extra='class="title"')
    for pin in range(1, 41):
        y, x, used = _y(pin), _x(pin), pin in _USED
        fill = "#f4d03f" if used else "#cfd8d2"
        yield f'<circle cx="{x}" cy="{y}" r="10" fill="{fill}"/>'
        yield _text(x, y + 4, str(pin), extra='class="pin"')


def _wire(wire: Wire) -> Iterator[str]:
    """From the header to a part's own pin, at one height."""
    y, out = _y(wire.pin), _outward(wire.pin)
    end = _PART_LEFT if out < 0 else _PART_RIGHT
    yield _line(f"{_x(wire.pin) + out * 10},{y} {end},{y}", wire.colour, wire.dashed)
    yield _pin_name(wire.pin)
    yield _text(end + out * 8, y + 4, wire.label, "start" if out > 0 else "end", 'class="at"')


def _pin_name(pin: int) -> str:
    out = _outward(pin)
    x = _x(pin) + out * 40
    return _text(x, _y(pin) - 4, _name(pin), "start" if out > 0 else "end", 'class="name"')


def _part(title: str, about: str, wires: tuple[Wire, ...]) -> Iterator[str]:
    """A box round the ends of its wires."""
    first, last = _y(wires[0].pin) - 18, _y(wires[-1].pin) + 16
    x = 20 if wires[0].pin % 2 else _PART_RIGHT
    yield f'<rect x="{x}" y="{first}" width="170" height="{last - first}" rx="6" class="part"/>'
    middle = x + (60 if wires[0].pin % 2 else 112)
    yield _text(middle, (first + last) // 2 - 2, title, extra='class="title"')
    yield _text(middle, (first + last) // 2 + 14, about, extra='class="name"')
    for wire in wires:
        yield from _wire(wire)


def _led(wire: Wire) -> Iterator[str]:
    """A resistor and an LED on the way to the ground wire."""
    y, out, x = _y(wire.pin), _outward(wire.pin), _x(wire.pin)
    resistor, led, end = x + out * 130, x + out * 210, x + out * _BUS
    yield _line(f"{x + out * 10},{y} {end},{y}", wire.colour)
    yield f'<rect x="{resistor - 18}" y="{y - 6}" width="36" height="12" class="part"/>'
    yield _text(resistor, y + 4, "330 Ω", extra='class="ohm"')
    tip = led + out * 8
    yield f'<path d="M{led - out * 8},{y - 8} V{y + 8} L{tip},{y} Z" fill="{wire.colour}"/>'
    yield _line(f"{tip},{y - 8} {tip},{y + 8}", wire.colour)
    yield _pin_name(wire.pin)
    yield _text(led + out * 18, y - 4, wire.label, "start" if out > 0 else "end", 'class="at"')


def _ground(pin: int) -> Iterator[str]:
    """What takes the LEDs of the pin's side to it."""
    x, y, out = _x(pin), _y(pin), _outward(pin)
    heights = [_y(wire.pin) for wire in LEDS if _outward(wire.pin) == out]
    end = x + out * _BUS
    farthest = max(heights, key=lambda height: abs(height - y))
    yield _line(f"{x + out * 10},{y} {end},{y} {end},{farthest}", "#222")
    yield _pin_name(pin)


_STYLE: Final = """<style>
text { font-family: sans-serif; font-size: 12px; fill: #222 }
.title { font-weight: bold; font-size: 14px }
.pin { font-size: 10px }
.name { font-size: 11px; fill: #555 }
.ohm { font-size: 9px }
.part { fill: #fdfefe; stroke: #555; stroke-width: 1.5 }
polyline { fill: none; stroke-width: 2.5 }
</style>"""
_USED: Final = {
    *(wire.pin for part in (DISPLAY, READER, BUZZER, LEDS) for wire in part),
    *LED_GROUNDS,
}


def picture() -> str:
    """The whole SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        "<title>Wiring of a TapRail terminal</title>",
        _STYLE,
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        *_part("SSD1306", "OLED, I2C", DISPLAY),
        *_part("PN532", "UART, set to HSU", READER),
        *_part("Buzzer", "passive piezo", BUZZER),
    ]
    for wire in LEDS:
        parts += _led(wire)
    for pin in LED_GROUNDS:
        parts += _ground(pin)
    parts += _header()
    parts.append(_text(480, _HEIGHT - 14, _LEGEND, extra='class="name"'))
    return "\n".join([*parts, "</svg>"]) + "\n"


_LEGEND: Final = "Dashed: optional. An LED's short leg, its cathode, goes to ground."

if __name__ == "__main__":
    SVG.write_text(picture())
    sys.stdout.write(f"{SVG} written\n")

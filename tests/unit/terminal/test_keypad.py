"""The kernel's codes, an amount's line, a PIN's line, and the device's edge."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from taprail_common.errors import OperatorError
from taprail_terminal import keypad_device
from taprail_terminal.keypad import EV_KEY, AmountLine, Command, Key, PinLine, key_of

KEYS: list[Key] = [*"0123456789.", *Command]


def typed(text: str, decimals: int = 2) -> str:
    line = AmountLine(decimals)
    for key in text:
        line = line.press(Command.BACK if key == "<" else key)
    return line.text


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("1250", "1250"),
        ("12.50", "12.50"),
        ("12.505", "12.50"),
        ("12..5", "12.5"),
        (".5", "0.5"),
        ("007", "7"),
        ("0.07", "0.07"),
        ("12<<<3", "3"),
        ("9" * 30, "9" * 17),
    ],
)
def test_an_amount_is_typed_as_it_is_written(keys: str, text: str) -> None:
    assert typed(keys) == text


def test_a_currency_without_coins_has_no_point() -> None:
    assert typed("12.50", decimals=0) == "1250"


@given(st.lists(st.sampled_from(KEYS), max_size=40), st.integers(0, 6))
def test_no_keys_write_more_than_an_amount(keys: list[Key], decimals: int) -> None:
    line = AmountLine(decimals)
    for key in keys:
        line = line.press(key)
    whole, _, fraction = line.text.partition(".")
    assert len(line.text) <= 18
    assert (whole + fraction).isdigit() or not line.text
    assert len(fraction) <= decimals


@given(st.lists(st.sampled_from(KEYS), max_size=40))
def test_a_pin_shows_how_long_it_is_and_nothing_else(keys: list[Key]) -> None:
    line = PinLine()
    for key in keys:
        line = line.press(key)
    assert line.shown == "•" * len(line.digits)
    assert len(line.digits) <= 12
    assert not any(digit in repr(line) for digit in line.digits)


@pytest.mark.parametrize(
    ("code", "key"),
    [(2, "1"), (11, "0"), (79, "1"), (82, "0"), (73, "9"), (52, "."), (28, Command.ENTER)],
)
def test_a_key_counts_once_when_it_goes_down(code: int, key: Key) -> None:
    assert key_of(EV_KEY, code, 1) == key
    assert [key_of(EV_KEY, code, value) for value in (0, 2)] == [None, None]
    assert key_of(EV_KEY + 1, code, 1) is None


@given(st.integers(), st.integers(), st.integers())
def test_any_event_is_a_key_or_nothing(kind: int, code: int, value: int) -> None:
    assert key_of(kind, code, value) in {None, *KEYS}


class FakeDevice:
    """What python-evdev gives for a keypad: these keys, then it is unplugged."""

    def __init__(self, codes: list[int]) -> None:
        self.codes = codes
        self.calls: list[str] = []

    def grab(self) -> None:
        self.calls.append("grab")

    def close(self) -> None:
        self.calls.append("close")

    async def async_read_loop(self) -> AsyncIterator[Any]:
        for code in self.codes:
            yield SimpleNamespace(type=EV_KEY, code=code, value=1)
        raise OSError(19, "No such device")


async def test_a_keypad_is_had_alone_and_taken_up_again_after_it_was_unplugged(
    mocker: MockerFixture,
) -> None:
    devices = [FakeDevice([2, 3, 240]), FakeDevice([28])]
    opened = iter(devices)
    evdev = SimpleNamespace(InputDevice=lambda _path: next(opened))
    mocker.patch.dict(sys.modules, {"evdev": evdev})
    mocker.patch.object(keypad_device, "REOPEN_S", 0.0)
    pressed: asyncio.Queue[Key] = asyncio.Queue()
    reading = asyncio.create_task(keypad_device.read_keys(Path("/dev/pad"), pressed.put_nowait))
    keys = [await asyncio.wait_for(pressed.get(), 5.0) for _ in range(3)]
    reading.cancel()
    assert keys == ["1", "2", Command.ENTER]
    assert devices[0].calls == ["grab", "close"]


def test_without_the_library_it_says_what_to_install(mocker: MockerFixture) -> None:
    mocker.patch.dict(sys.modules, {"evdev": None})
    with pytest.raises(OperatorError, match=r"taprail\[keypad\]"):
        keypad_device.check()

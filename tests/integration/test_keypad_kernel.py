"""A keypad of the kernel's own making, where /dev/uinput is there: real events, read by evdev."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from taprail_terminal.keypad import Command, Key
from taprail_terminal.keypad_device import read_keys

TURNS = 200


async def test_what_is_pressed_is_read_and_nobody_else_hears_it() -> None:
    evdev = pytest.importorskip("evdev", reason="the extra [keypad] is not installed")
    if not os.access("/dev/uinput", os.W_OK):
        pytest.skip("no /dev/uinput to make a keypad with")
    codes = evdev.ecodes
    pressed: list[Key] = []
    with evdev.UInput({codes.EV_KEY: [codes.KEY_KP7, codes.KEY_KPENTER]}) as pad:
        reading = asyncio.create_task(read_keys(Path(pad.device.path), pressed.append))
        for _ in range(TURNS):  # what is pressed before it is opened nobody hears
            for code in (codes.KEY_KP7, codes.KEY_KPENTER):
                for value in (1, 0):
                    pad.write(codes.EV_KEY, code, value)
                pad.syn()
            if Command.ENTER in pressed:
                break
            await asyncio.sleep(0.05)
        reading.cancel()
    assert pressed[:2] == ["7", Command.ENTER]

"""A keypad where no kernel will make one: what is pressed at one end of a pipe is read at the
other, as the kernel hands it on, by a stand-in for python-evdev.

`Keypad` is the hand's end. `library` is what a simulated terminal's process takes for python-evdev,
whose real reading from a real device is tried where there is /dev/uinput.
Source: linux/input.h for the record, linux/input-event-codes.h for the codes.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final, Self

_EVENT: Final = struct.Struct("llHHi")
"""struct input_event: seconds, microseconds, type, code, value."""
_EV_SYN, _EV_KEY = 0x00, 0x01
_DOWN, _UP = 1, 0
_KEYS: Final = {
    **dict(zip("1234567890", range(2, 12), strict=True)),
    ".": 52,
    "\n": 28,  # Enter
    "\b": 14,  # Backspace
    "\x1b": 1,  # Esc
}


class Keypad:
    """Use as `with Keypad(path) as keypad`; the terminal is told `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pipe = -1

    def __enter__(self) -> Self:
        self.path.unlink(missing_ok=True)
        os.mkfifo(self.path, 0o600)
        # For both ends, so that it can be opened before anybody reads.
        self._pipe = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pipe)

    def press(self, keys: str) -> None:
        """Press and release each: digits, the point, newline, backspace, escape."""
        for key in keys:
            for value in (_DOWN, _UP):
                press = _EVENT.pack(0, 0, _EV_KEY, _KEYS[key], value)
                os.write(self._pipe, press + _EVENT.pack(0, 0, _EV_SYN, 0, 0))


@dataclass(frozen=True)
class Event:
    """evdev.InputEvent, as far as a terminal looks at it."""

    type: int
    code: int
    value: int


class InputDevice:
    """evdev.InputDevice, on the reading end of the pipe."""

    def __init__(self, path: str) -> None:
        self._pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def grab(self) -> None:
        """Nobody else reads it."""

    def close(self) -> None:
        """Give it back."""
        os.close(self._pipe)

    async def async_read_loop(self) -> AsyncIterator[Event]:
        """Each event as it comes."""
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._pipe, readable.set)
        try:
            while True:
                await readable.wait()
                readable.clear()
                with suppress(BlockingIOError):
                    for record in _EVENT.iter_unpack(os.read(self._pipe, 100 * _EVENT.size)):
                        yield Event(*record[2:])
        finally:
            loop.remove_reader(self._pipe)


def library() -> ModuleType:
    """What stands in for python-evdev."""
    module = ModuleType("evdev")
    module.InputDevice = InputDevice  # type: ignore[attr-defined]
    return module

"""The keypad itself: a Linux input device, read by python-evdev.

Answers for having its keys alone (a PIN must not end up on a console), and for taking it up again
when it was unplugged. What a key means is in `keypad`, what it does in `keypad_desk`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from taprail_common.errors import OperatorError
from taprail_terminal.keypad import Key, key_of

REOPEN_S: Final = 1.0
"""Between two looks for a keypad that is not there."""

_log = structlog.get_logger()


def check() -> None:
    """Raise OperatorError when no keypad can be read before a person changes something."""
    _library()


async def read_keys(path: Path, press: Callable[[Key], None]) -> None:
    """Hand on each key, until cancelled; a keypad that is lost is looked for again."""
    evdev = _library()
    is_lost = False
    while True:
        try:
            await _read(evdev.InputDevice(str(path)), press)
        except OSError as exc:
            if not is_lost:
                _log.error("the keypad does not work", device=str(path), reason=exc.strerror)
            is_lost = True
        else:
            is_lost = False
        await asyncio.sleep(REOPEN_S)


async def _read(device: Any, press: Callable[[Key], None]) -> None:
    try:
        device.grab()
        async for event in device.async_read_loop():
            key = key_of(event.type, event.code, event.value)
            if key is not None:
                press(key)
    finally:
        device.close()


def _library() -> Any:
    try:
        import evdev
    except ImportError as exc:
        raise OperatorError(
            "[keypad] needs python-evdev",
            fix="pip install 'taprail[keypad]', or Debian's python3-evdev",
        ) from exc
    return evdev

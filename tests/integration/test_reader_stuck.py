"""A driver whose calls never return stops nothing else, and in the end asks for a new process."""

from __future__ import annotations

import asyncio
import threading

import pytest

from taprail_terminal.readers import ladder, supervisor
from taprail_terminal.readers.base import Driver, FoundCard
from taprail_terminal.readers.supervisor import MAX_ABANDONED, Reader

QUICK_S = 0.05


class Stuck(Driver):
    """Never comes back from being opened, until the test is over."""

    over = threading.Event()

    def check(self) -> None: ...

    def open(self) -> str:
        self.over.wait()
        return "too late"

    def close(self) -> None: ...

    def ping(self) -> None: ...

    def wait_for_card(self) -> FoundCard | None:
        return None

    def look_again(self) -> FoundCard | None:
        return None

    def start_session(self, *, budget_s: float) -> None: ...

    def exchange(self, apdu: bytes) -> bytes:
        return apdu

    def still_answers(self) -> bool:
        return False

    def rest(self) -> None: ...


async def test_a_driver_that_hangs_is_reset_and_then_asks_for_a_new_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "OPEN_LIMIT_S", QUICK_S)
    monkeypatch.setattr(supervisor, "WATCH_EVERY_S", QUICK_S / 5)
    monkeypatch.setattr(ladder, "REOPEN_AFTER_S", (QUICK_S,))
    resets: list[None] = []
    reader = Reader(Stuck, lambda _report, _at_s: None, reset=lambda: resets.append(None))
    reader.start()
    try:
        async with asyncio.timeout(10):
            await reader.stuck.wait()  # the loop runs, whatever the driver does
    finally:
        Stuck.over.set()
        await reader.stop()
    assert len(resets) == 1
    assert reader.trouble == "reader: hangs"
    assert len([it for it in threading.enumerate() if it.name == "reader"]) <= MAX_ABANDONED

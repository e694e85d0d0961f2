"""What systemd is told, on a real socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest

from taprail_common.errors import PartError
from taprail_common.service import ServiceManager

LIMIT_S = 10.0


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        line.settimeout(LIMIT_S)
        yield line


def manager(listener: socket.socket, **environment: str) -> ServiceManager:
    return ServiceManager.named_in({"NOTIFY_SOCKET": listener.getsockname(), **environment})


def test_ready_and_stopping_are_told(listener: socket.socket) -> None:
    told = manager(listener)
    told.ready()
    told.stopping()
    assert [listener.recv(99) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]


async def test_the_watchdog_is_fed_after_each_check_and_starves_when_one_hangs(
    listener: socket.socket,
) -> None:
    checks = asyncio.Semaphore(3)
    watched = manager(listener, WATCHDOG_USEC="3000")
    feeding = asyncio.create_task(watched.feed(checks.acquire))
    for _ in range(3):
        assert await asyncio.to_thread(listener.recv, 99) == b"WATCHDOG=1"
    listener.setblocking(False)
    await asyncio.sleep(0.02)  # many of its turns
    with pytest.raises(BlockingIOError):
        listener.recv(99)
    feeding.cancel()


async def test_a_check_that_fails_once_is_made_again(listener: socket.socket) -> None:
    answers = chain([PartError("disk", "busy")], repeat(None))

    async def is_well() -> None:
        if (error := next(answers)) is not None:
            raise error

    feeding = asyncio.create_task(manager(listener, WATCHDOG_USEC="3000").feed(is_well))
    assert await asyncio.to_thread(listener.recv, 99) == b"WATCHDOG=1"
    feeding.cancel()


async def test_without_a_watchdog_nothing_is_checked(listener: socket.socket) -> None:
    async def never() -> None:
        raise AssertionError("nobody asked")

    for other in ({}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}):
        assert manager(listener, **other).watchdog_s is None
        await manager(listener, **other).feed(never)
    mine = manager(listener, WATCHDOG_USEC="5000000", WATCHDOG_PID=str(os.getpid()))
    assert mine.watchdog_s == 5.0


def test_without_systemd_nobody_is_told() -> None:
    ServiceManager.named_in({}).ready()
    ServiceManager.named_in({"NOTIFY_SOCKET": "/nowhere/at/all"}).ready()
    ServiceManager.named_in({"NOTIFY_SOCKET": "@nobody-listens"}).ready()

"""The agent under systemd, as far as a socket can play it: it says that it is ready, and lives."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
from pathlib import Path

import pytest

from tests.support.played_gateway import PlayedGateway
from tests.support.terminal_fixtures import TAPRAIL, make_key, started, write_config


async def test_it_is_ready_then_feeds_the_watchdog_and_says_that_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, port = pty.openpty()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20.0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "60000")
        async with PlayedGateway().serving() as gateway:
            config_file = write_config(tmp_path, gateway, os.ttyname(port))
            make_key(config_file)
            command = [str(TAPRAIL), "terminal", "run", "--config", str(config_file)]
            async with started(command, config_file):  # what systemd says is read at the import
                heard = [await asyncio.to_thread(systemd.recv, 99) for _ in range(4)]
        while heard[-1] == b"WATCHDOG=1":
            heard.append(await asyncio.to_thread(systemd.recv, 99))
    assert heard[0] == b"READY=1"
    assert heard[-1] == b"STOPPING=1"
    assert heard.count(b"WATCHDOG=1") >= 3
    os.close(reader)
    os.close(port)

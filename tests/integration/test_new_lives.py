"""The agent's process begins anew, or in safe mode: real processes before a simulated reader."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from taprail_hwsim.pads import Pn532Pad, pn532_pad
from taprail_terminal.safe_mode import BAD_STARTS
from tests.support.played_gateway import PlayedGateway
from tests.support.terminal_fixtures import agent, make_key, started, write_config


@pytest.fixture
def pad(tmp_path: Path) -> Iterator[Pn532Pad]:
    with pn532_pad(tmp_path) as plugged_in:
        yield plugged_in


@pytest.fixture
async def config_file(tmp_path: Path, pad: Pn532Pad) -> AsyncIterator[Path]:
    async with PlayedGateway().serving() as gateway:
        file = write_config(tmp_path, gateway, pad.port, timeout_ms=200)
        make_key(file)
        yield file


async def test_a_driver_that_hangs_for_ever_costs_the_process_and_nothing_else(
    tmp_path: Path, config_file: Path
) -> None:
    """The ladder's last rung: the same process id, a new program in it, and its reader works."""
    lives = tmp_path / "lives"
    command = [sys.executable, "-m", "tests.support.stuck_child", str(lives), str(config_file)]
    async with started(command, config_file) as running:
        pid = running.process.pid
        assert (await running.watcher.until("view"))["phase"] == "out_of_service"
        with pytest.raises(EOFError):  # a program that ends hangs up
            await running.watcher.until("nothing")
        await running.watch()
        status = await running.until_status(lambda it: bool(it["reader"]["ok"]))
        assert (status["pid"], status["phase"]) == (pid, "ready")
        assert lives.read_text() == "life\nlife\n"
        assert running.process.returncode is None


def _bad_starts(config_file: Path) -> str | None:
    file = config_file.with_name("state") / "bad-starts"
    return file.read_text().strip() if file.exists() else None


async def test_after_bad_starts_the_reader_is_left_alone_and_the_console_answers(
    pad: Pn532Pad, config_file: Path
) -> None:
    async with agent(config_file) as running:
        running.process.kill()
        await running.ended()
    assert _bad_starts(config_file) == "1"
    file = config_file.with_name("state") / "bad-starts"
    file.write_text(str(BAD_STARTS))
    async with agent(config_file) as running:
        status = await running.status()
        assert (status["phase"], status["reader"]["ok"]) == ("out_of_service", False)
        reader = await running.ask("reader info")
        assert "safe mode" in reader["data"]["detail"]
        assert not _holds(running.process.pid, pad.port)
    assert _bad_starts(config_file) is None  # it was told to stop
    async with agent(config_file) as running:
        await running.until_status(lambda it: bool(it["reader"]["ok"]))
        assert _holds(running.process.pid, pad.port)


def _holds(pid: int, port: str) -> bool:
    """Whether a process has this port open."""
    open_files = Path(f"/proc/{pid}/fd").iterdir()
    return os.path.realpath(port) in {os.path.realpath(file) for file in open_files}

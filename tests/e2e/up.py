"""A running `taprail-sim up`, as an app's developer has it: for tests that only use it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.process import die_with_parent
from tests.e2e.programs import command, run_warm

START_TIMEOUT_S = 60.0
INTERRUPT_LIMIT_S = 10.0
MODULES = Path(__file__).parents[2] / "build" / "app_day" / "node_modules"
"""What apps are made of; `.ci/setup app` brings it."""
FLOAT_UNITS = 100_000_000


@dataclass
class Up:
    """A running `taprail-sim up` and what it has said of itself."""

    process: asyncio.subprocess.Process
    where: dict[str, Any]

    def card(self, name: str) -> dict[str, Any]:
        """A card by its name."""
        return dict(next(card for card in self.where["cards"] if card["name"] == name))

    def bearer(self, user: str) -> dict[str, str]:
        """The header by which an app speaks for a user."""
        token = next(item["jwt"] for item in self.where["users"] if item["id"] == user)
        return {"Authorization": f"Bearer {token}"}

    @property
    def chain(self) -> DevChain:
        """Its chain, read from outside."""
        return DevChain.attach(self.where["rpcUrl"], self.where["token"])

    async def tap(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """`taprail-sim tap`: exit code and answer."""
        state = ("--state-dir", self.where["stateDir"], "--json")
        done = await asyncio.to_thread(run_warm, "taprail-sim", "tap", *arguments, *state)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    async def interrupt(self) -> None:
        """Ctrl-C: a terminal window sends SIGINT to everybody in it."""
        os.killpg(self.process.pid, signal.SIGINT)
        async with asyncio.timeout(INTERRUPT_LIMIT_S):
            assert await self.process.wait() == 0
        assert _members(self.process.pid) == []


@asynccontextmanager
async def running(state_dir: Path, *arguments: str) -> AsyncIterator[Up]:
    """`taprail-sim up --json` in a session of its own; whatever is left of it is killed."""
    process = await asyncio.create_subprocess_exec(
        *command("taprail-sim", "up", "--json", "--state-dir", str(state_dir), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await process.stdout.readline()
        assert line, "`up` has ended without a word; its error is on stderr"
        yield Up(process, json.loads(line))
        if process.returncode is None:
            process.terminate()
        assert await process.stdout.read() == b""  # one object, and nothing after it
        assert await process.wait() == 0
    finally:
        for pid in _members(process.pid):
            os.kill(pid, signal.SIGKILL)


def fill_float(up: Up) -> None:
    """Give the merchant an account that refunds are paid from, and money on it."""
    of = ("merchant", "float", up.where["merchants"][0]["id"], "--json")
    done = run_warm("taprail", "admin", "--config", up.where["config"], *of)
    assert done.returncode == 0, done.stderr
    up.chain.mint(json.loads(done.stdout)["account"], FLOAT_UNITS)


def _members(session: int) -> list[int]:
    """The processes of a session, zombies aside (proc(5): fields 3 and 6 of stat)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        if int(its_session) == session and state != "Z":
            found.append(int(folder.name))
    return found

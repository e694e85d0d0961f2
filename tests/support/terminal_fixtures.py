"""A terminal for tests: the agent as a process of its own, before a simulated reader."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from taprail_common.clock import Clock
from taprail_common.signing import public_key_text
from taprail_hwsim.process import Running
from taprail_terminal import checkout
from taprail_terminal.config import TerminalConfig, load_config
from taprail_terminal.identity import Identity
from taprail_terminal.sale import Event, ReaderBack
from taprail_terminal.till import Till
from taprail_terminal.timeline import Timeline
from tests.support import warm
from tests.support.played_gateway import PlayedGateway

TAPRAIL = Path(sys.executable).with_name("taprail")
EVENT_LIMIT_S = 20.0

_TOML = """
[terminal]
id = "t1"
merchant_id = "cafe"
currency = "USDC"
decimals = 6
state_dir = "state"
gateway_url = "{url}"
gateway_public_key = "{key}"
verdict_timeout_ms = {timeout_ms}
{mode}

[reader]
port = "{port}"

[lights]
driver = "none"

[display]
driver = "none"
"""


def write_config(
    folder: Path,
    gateway: PlayedGateway,
    reader_port: str,
    *,
    fixed_amount: str | None = "2.50",
    timeout_ms: int = 3000,
) -> Path:
    """A configuration file; its state folder lies beside it."""
    mode = 'mode = "till"'
    if fixed_amount is not None:
        mode = f'mode = "fixed"\nfixed_amount = "{fixed_amount}"'
    path = folder / "terminal.toml"
    path.write_text(
        _TOML.format(
            url=gateway.url,
            key=public_key_text(gateway.key.verify_key),
            port=reader_port,
            mode=mode,
            timeout_ms=timeout_ms,
        )
    )
    return path


class Counter:
    """A sale as the table has it, without hardware; the reader works."""

    def __init__(self, fixed_units: int | None = None) -> None:
        begun = checkout.begin(
            currency="USDC", decimals=6, fixed_units=fixed_units, verdict_timeout_s=3.0
        )
        self.state, _ = checkout.step(begun, ReaderBack(), 0.0)
        self.idle_text: str | None = None
        self.on_step: Callable[[], object] = bool  # nobody watches

    def apply(self, event: Event) -> None:
        self.state, _ = checkout.step(self.state, event, 0.0)
        self.on_step()

    def say_idle(self, text: str | None) -> None:
        self.idle_text = text


def make_till(counter: Counter, clock: Clock, offset_ms: int = 0) -> Till:
    """A till at this counter."""
    till = Till(
        "USDC",
        is_fixed=counter.state.fixed_units is not None,
        counter=counter,
        timeline=Timeline(clock),
        clock=clock,
        clock_offset_ms=lambda: offset_ms,
    )
    counter.on_step = till.stepped
    return till


class ControlLine:
    """One connection to the agent's control socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, config: TerminalConfig) -> Self:
        return cls(*await asyncio.open_unix_connection(str(config.control_socket)))

    def close(self) -> None:
        self._writer.close()

    async def ask(self, command: str, **details: Any) -> dict[str, Any]:
        await self.say(json.dumps({"command": command, **details}).encode() + b"\n")
        return await self.hear()

    async def say(self, line: bytes) -> None:
        self._writer.write(line)
        await self._writer.drain()

    async def hear(self) -> dict[str, Any]:
        line = await asyncio.wait_for(self._reader.readline(), EVENT_LIMIT_S)
        if not line:
            raise EOFError("the agent hung up")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def until(self, event: str, **details: Any) -> dict[str, Any]:
        """The next event of this name with these details."""
        while True:
            heard = await self.hear()
            if heard["event"] == event and details.items() <= heard.items():
                return heard


class AgentProcess:
    """`taprail terminal run`, with one line that watches it."""

    def __init__(self, process: Running, config: TerminalConfig) -> None:
        self.process = process
        self.config = config
        self.watcher: ControlLine

    async def status(self) -> dict[str, Any]:
        return await self.ask("status")

    async def arm(self, amount: str) -> dict[str, Any]:
        return await self.ask("arm", amount=amount)

    async def ask(self, command: str, **details: Any) -> dict[str, Any]:
        line = await ControlLine.open(self.config)
        try:
            return await line.ask(command, **details)
        finally:
            line.close()

    async def watch(self) -> None:
        """From here on; once more when the agent has begun anew."""
        self.watcher = await asyncio.wait_for(_watching(self), EVENT_LIMIT_S)

    async def until_status(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first status that fits, looked for at each event."""
        while not holds(status := await self.status()):
            await self.watcher.hear()
        return status

    async def ended(self) -> int:
        return await asyncio.wait_for(self.process.wait(), EVENT_LIMIT_S)


@asynccontextmanager
async def agent(config_file: Path, crash: str = "") -> AsyncIterator[AgentProcess]:
    """Start the agent, wait until it is reached, and end it."""
    command = [str(TAPRAIL), "terminal", "run", "--config", str(config_file)]
    process = await warm.spawn(command, {**os.environ, "TAPRAIL_CRASH": crash})
    async with _watched(AgentProcess(process, load_config(config_file))) as running:
        yield running


@asynccontextmanager
async def started(
    command: list[str], config_file: Path, crash: str = ""
) -> AsyncIterator[AgentProcess]:
    """The same, started by another command."""
    environment = {**os.environ, "TAPRAIL_CRASH": crash}
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    async with _watched(AgentProcess(process, load_config(config_file))) as running:
        yield running


@asynccontextmanager
async def _watched(running: AgentProcess) -> AsyncIterator[AgentProcess]:
    try:
        await running.watch()
        yield running
    finally:
        if running.process.returncode is None:
            running.process.terminate()
            await running.ended()


async def _watching(running: AgentProcess) -> ControlLine:
    while True:
        assert running.process.returncode is None, "the agent ended at its start"
        try:
            line = await ControlLine.open(running.config)
        except OSError:
            await asyncio.sleep(0.02)  # there is no event for a socket that does not exist yet
            continue
        assert (await line.ask("watch"))["ok"]
        return line


def make_key(config_file: Path) -> None:
    """What `taprail terminal init` does, without a process of its own."""
    config = load_config(config_file)
    Identity.create(config.terminal.id, config.key_file)


async def init(config_file: Path) -> dict[str, Any]:
    """`taprail terminal init --json`."""
    process = await asyncio.create_subprocess_exec(
        TAPRAIL,
        "terminal",
        "init",
        "--config",
        str(config_file),
        "--json",
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    facts: dict[str, Any] = json.loads(out)
    return facts

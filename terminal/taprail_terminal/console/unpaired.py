"""The console of a device that is nobody's terminal yet: enough to pair it over its cable.

Answers for telling an unpaired device from a configuration that is wrong, and for waiting with an
open console until it was paired, by a code that is typed there or by `taprail terminal pair`. The
code is the permission: nobody else's key is known yet.
"""

from __future__ import annotations

import asyncio
import platform
import shlex
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import structlog

from taprail_common.errors import ConfigError, InputError
from taprail_common.service import SERVICE_MANAGER
from taprail_terminal import pairing
from taprail_terminal.config import TerminalConfig, load_config
from taprail_terminal.console import net_test
from taprail_terminal.console.answers import (
    EXIT_NOT_OK,
    EXIT_OK,
    CommandResult,
    facts,
    judged,
    refused,
)
from taprail_terminal.console.commands import bounded
from taprail_terminal.console.look import row
from taprail_terminal.console.proof import Proof
from taprail_terminal.console.serial_port import SerialConsole
from taprail_terminal.console.socket_port import CONSOLE_SOCKET, SocketConsole
from taprail_terminal.only_agent import only_agent
from taprail_terminal.paired import Place, kept

# What pairing would say; stands where nothing else says anything, and is never used.
_NOBODY: Final = {
    "terminal.id": "unpaired",
    "terminal.merchant_id": "unpaired",
    "terminal.currency": "XXX",
    "terminal.decimals": 0,
    "terminal.gateway_public_key": "00" * 32,
}
_LIMIT_S: Final = 28.0
_ANSWER_LEAVES_S: Final = 0.5
_LOOK_EVERY_S: Final = 1.0
"""`taprail terminal pair` is another process; there is no event for a file that it writes."""

_log = structlog.get_logger()


def configured(path: Path, flags: dict[str, Any]) -> tuple[TerminalConfig, bool]:
    """The configuration, and whether it says whose terminal this is. Raises ConfigError when
    something else is wrong with it, or when it says half of that."""
    try:
        return load_config(path, flags=flags), True
    except ConfigError as exc:
        with suppress(ConfigError):
            config = load_config(path, flags=flags, defaults=_NOBODY)
            said = config.terminal.model_dump()
            if all(said[key.partition(".")[2]] == value for key, value in _NOBODY.items()):
                return config, False
        raise exc from None


async def wait_until_paired(config: TerminalConfig) -> None:
    """Serve the console until a pairing is kept."""
    _log.warning("this device is not paired", fix="have a code made, then: pair CODE")
    with only_agent(config.terminal.state_dir):
        await _serve(config)


async def _serve(config: TerminalConfig) -> None:
    state_dir = config.terminal.state_dir
    commands = UnpairedCommands(config)
    work = [
        SocketConsole(state_dir / CONSOLE_SOCKET, commands).run(),
        SERVICE_MANAGER.feed(_nothing_to_check),
    ]
    if config.console.port is not None:
        work.append(SerialConsole(config.console.port, commands).run())
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        while await asyncio.to_thread(kept, state_dir) is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await commands.paired.wait()
            for task in tasks:
                if task.done():
                    task.result()  # raises why it has ended
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _nothing_to_check() -> None:
    """The loop turns: there is nothing else here."""


class UnpairedCommands:
    """What can be asked of a device that is not paired."""

    def __init__(self, config: TerminalConfig) -> None:
        self._config = config
        self._one_pairing = asyncio.Lock()
        self.paired = asyncio.Event()
        """Set a moment after the answer that says so."""

    async def run(self, text: str) -> CommandResult:
        """Carry out what a person has typed."""
        try:
            words = shlex.split(text)
        except ValueError as exc:
            return refused(str(exc).lower(), "type help")
        return await self.carry_out(words)

    async def carry_out(self, words: Sequence[str], _proof: Proof | None = None) -> CommandResult:
        """Carry out a command; bounded in time, never raises but when cancelled."""
        table: dict[tuple[str, ...], Callable[[], Awaitable[CommandResult]]] = {
            ("help",): self._help,
            ("status",): self._status,
            ("version",): self._version,
            ("net", "test"): self._net,
        }
        match [word.lower() for word in words]:
            case ["pair", *_]:
                return await bounded("pair", _LIMIT_S, self._pair(words[1:]))
            case lowered if (run := table.get(tuple(lowered))) is not None:
                return await bounded(" ".join(lowered), _LIMIT_S, run())
        return refused("this device is not paired", "pair CODE; help lists what else there is")

    async def _help(self) -> CommandResult:
        known = {
            "help": "list the commands",
            "status": "whether it is paired",
            "version": "which software on which machine",
            "net test": "each stage to the gateway",
            "pair CODE": "make this a terminal of the gateway that has given the code",
        }
        lines = [f"{name:<11}{summary}" for name, summary in known.items()]
        return CommandResult(EXIT_OK, "\n".join(lines), {"commands": known})

    async def _status(self) -> CommandResult:
        told = {"phase": "unpaired", "whatToDo": "at the gateway: taprail admin terminal pair"}
        text = "this device is not paired -> at the gateway: taprail admin terminal pair"
        return CommandResult(EXIT_NOT_OK, text, told)

    async def _version(self) -> CommandResult:
        return facts({"taprail": version("taprail"), "machine": platform.machine()})

    async def _net(self) -> CommandResult:
        target = net_test.Target.of(self._config.terminal.gateway_url)
        looks = (net_test.network, net_test.dns, net_test.connect)
        return judged([row(await look(target)) for look in looks], {"host": target.host})

    async def _pair(self, args: Sequence[str]) -> CommandResult:
        if len(args) != 1:
            raise InputError("code", "is missing: pair CODE")
        table = self._config.terminal
        place = Place(table.gateway_url, table.state_dir, self._config.key_file)
        async with self._one_pairing:
            answer = await pairing.pair(place, args[0])
        asyncio.get_running_loop().call_later(_ANSWER_LEAVES_S, self.paired.set)
        return facts(pairing.paired_facts(answer))

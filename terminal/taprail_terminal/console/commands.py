"""The console's commands: one table, each bounded in time, each with text and data in its answer.

Answers for finding the command that is meant, for its time, and for never raising: whatever goes
wrong becomes an answer with an exit code. It knows no wire: the serial console and the control
socket both call `run`.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from taprail_common.errors import TapRailError
from taprail_terminal.console import bundle, look, queue, settings
from taprail_terminal.console.answers import EXIT_OK, CommandResult, refused
from taprail_terminal.console.desk import Desk
from taprail_terminal.console.selftest import SELFTEST_TIMEOUT_S

_QUICK_TIMEOUT_S: Final = 5.0
_GATEWAY_TIMEOUT_S: Final = 12.0
_NET_TIMEOUT_S: Final = 28.0
_MAX_SHOWN: Final = 40

Run = Callable[[Desk, Sequence[str]], Awaitable[CommandResult]]


@dataclass(frozen=True, slots=True)
class Command:
    """One line of the table; `words` shows what may follow the name."""

    summary: str
    run: Run
    timeout_s: float = _QUICK_TIMEOUT_S
    words: str = ""


class Commands:
    """Runs commands against the terminal's parts."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def run(self, text: str) -> CommandResult:
        """Carry out what a person has typed."""
        try:
            words = shlex.split(text)
        except ValueError as exc:
            return refused(str(exc).lower(), "type help")
        return await self.carry_out(words)

    async def carry_out(self, words: Sequence[str]) -> CommandResult:
        """Carry out a command; bounded in time, never raises but when cancelled."""
        found = find(words)
        if found is None:
            return refused(f"no command {' '.join(words)[:_MAX_SHOWN]!r}", "type help")
        name, args = found
        command = COMMANDS[name]
        try:
            async with asyncio.timeout(command.timeout_s):
                return await command.run(self._desk, args)
        except TimeoutError:
            return refused(f"{name}: no answer in {command.timeout_s:g} s", "try again")
        except TapRailError as exc:
            return refused(exc.message, exc.fix)
        except Exception:  # noqa: BLE001 - a command's bug must not end the console
            structlog.get_logger().exception("console.bug", command=name)
            return refused(f"{name}: failed inside the terminal", "see its log")


def find(words: Sequence[str]) -> tuple[str, Sequence[str]] | None:
    """The command that these words name, and the words that are left for it."""
    for length in (2, 1):
        name = " ".join(words[:length]).strip().lower()
        if len(words) >= length and name in COMMANDS:
            return name, words[length:]
    return None


async def _help(_desk: Desk, _args: Sequence[str]) -> CommandResult:
    shown = {f"{name} {each.words}".strip(): each.summary for name, each in COMMANDS.items()}
    width = max(map(len, shown)) + 2
    lines = [f"{name:<{width}}{summary}" for name, summary in shown.items()]
    data = {name: each.summary for name, each in COMMANDS.items()}
    return CommandResult(EXIT_OK, "\n".join(lines), {"commands": data})


COMMANDS: Final[dict[str, Command]] = {
    "help": Command("list the commands", _help),
    "status": Command("what the terminal does and how its parts are", look.status),
    "selftest": Command(
        "try every part, each ok or what to do", look.selftest, timeout_s=SELFTEST_TIMEOUT_S
    ),
    "last": Command("what became of the last tap, and why", look.last),
    "version": Command("which software on which machine", look.show_version),
    "reader info": Command("which card reader, and how it does", look.reader_info),
    "reader scan": Command("the ports of this machine, and who uses them", look.reader_scan),
    "reader watch": Command(
        "what the reader says for a while",
        look.reader_watch,
        look.MAX_WATCH_S + _QUICK_TIMEOUT_S,
        "[SECONDS]",
    ),
    "key fingerprint": Command("the terminal's key and the gateway's", look.key_fingerprint),
    "clock": Command("the time, against the gateway's", look.clock, _GATEWAY_TIMEOUT_S),
    "net test": Command("each stage to the gateway", look.net, _NET_TIMEOUT_S, "[ROUNDS]"),
    "log tail": Command("the log's last lines", look.log_tail, words="[LINES]"),
    "log level": Command("from which level on is logged", look.log_level),
    "config get": Command("the configuration that runs", settings.get, words="[KEY]"),
    "config diff": Command("what the next start would change", settings.diff),
    "queue list": Command("sales without an end", queue.show_list),
    "queue show": Command("one of them", queue.show_one, words="REQUEST"),
    "queue export": Command("all of them, as evidence", queue.export),
    "bundle": Command(
        "everything in one archive, without secrets", bundle.bundle, SELFTEST_TIMEOUT_S * 1.1
    ),
}

COMMAND_NAMES: Final = tuple(COMMANDS)

"""The console's commands: one table, each bounded in time, each with text and data in its answer.

Answers for finding the command that is meant, for its time, and for never raising: whatever goes
wrong becomes an answer with an exit code. It knows no wire: the serial console and the control
socket both call `run`.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from taprail_common.errors import InputError, TapRailError
from taprail_terminal.console import bundle, change, exposure, live, look, queue, seen, settings
from taprail_terminal.console.answers import EXIT_OK, CommandResult, facts, refused
from taprail_terminal.console.desk import Desk
from taprail_terminal.console.proof import Proof
from taprail_terminal.console.selftest import SELFTEST_TIMEOUT_S
from taprail_terminal.sale import Phase

_QUICK_TIMEOUT_S: Final = 5.0
_GATEWAY_TIMEOUT_S: Final = 12.0
_NET_TIMEOUT_S: Final = 28.0
_CHANGE_TIMEOUT_S: Final = 20.0
_MAX_SHOWN: Final = 40
_LET_PASS_S: Final = 2.0
_CUSTOMER_WAITS: Final = frozenset({Phase.READING, Phase.WAITING})


def _never(_args: Sequence[str]) -> bool:
    return False


def _always(_args: Sequence[str]) -> bool:
    return True


Run = Callable[[Desk, Sequence[str]], Awaitable[CommandResult]]


@dataclass(frozen=True, slots=True)
class Command:
    """One line of the table; `words` shows what may follow the name."""

    summary: str
    run: Run
    timeout_s: float = _QUICK_TIMEOUT_S
    words: str = ""
    changes: Callable[[Sequence[str]], bool] = _never
    """Whether it changes the terminal, given the words that follow its name."""
    is_heavy: bool = False
    """Whether it works disk or processor: it begins when no customer waits for an answer."""
    has_secret: bool = False
    """Whether its words are nobody else's: they are written down nowhere."""

    @property
    def most_words(self) -> int:
        """More than it takes are refused: a line that comes back by an echo, such as one of `help`,
        is no command."""
        return len(self.words.split())


class Commands:
    """Runs commands against the terminal's parts."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._one_change = asyncio.Lock()

    async def run(self, text: str) -> CommandResult:
        """Carry out what a person has typed."""
        try:
            words = shlex.split(text)
        except ValueError as exc:
            return refused(str(exc).lower(), "type help")
        return await self.carry_out(words)

    async def carry_out(self, words: Sequence[str], proof: Proof | None = None) -> CommandResult:
        """Carry out a command; bounded in time, never raises but when cancelled. What changes the
        terminal needs a technician's proof."""
        found = find(words)
        if found is None:
            return refused(f"no command {' '.join(words)[:_MAX_SHOWN]!r}", "type help")
        name, args = found
        command = COMMANDS[name]
        if len(args) > command.most_words:
            return refused(f"{name}: too many words", f"{name} {command.words}".rstrip())
        if command.changes(args):
            return await bounded(name, command.timeout_s, self._change(name, words, args, proof))
        return await bounded(name, command.timeout_s, self._look(command, args))

    async def _look(self, command: Command, args: Sequence[str]) -> CommandResult:
        if command.is_heavy:
            await _until_no_customer_waits(self._desk)
        return await command.run(self._desk, args)

    async def _change(
        self, name: str, words: Sequence[str], args: Sequence[str], proof: Proof | None
    ) -> CommandResult:
        """Written down before it is done, and what came of it after."""
        desk, command = self._desk, COMMANDS[name]
        who = await desk.technicians.admit(words, proof)
        # One at a time: two imports, or a mode and a reset, would work against each other.
        async with self._one_change:
            told = name if command.has_secret else settings.as_told(words)
            seq = await desk.journal.begin(who.name, told, desk.clock.now_ms())
            outcome = "failed"
            try:
                result = await command.run(desk, args)
                outcome = "done" if result.exit_code == EXIT_OK else result.text
            except TapRailError as exc:
                outcome = str(exc)
                raise
            finally:
                await desk.journal.end(seq, outcome)
        return result


async def _until_no_customer_waits(desk: Desk) -> None:
    """For a moment at most: in a shop with a queue there is always one."""
    with suppress(TimeoutError), desk.timeline.watch() as next_event:
        async with asyncio.timeout(_LET_PASS_S):
            while desk.agent.state.phase in _CUSTOMER_WAITS:
                await next_event()


async def bounded(name: str, limit_s: float, work: Awaitable[CommandResult]) -> CommandResult:
    """A command's answer within its time; never raises but when cancelled."""
    try:
        async with asyncio.timeout(limit_s):
            return await work
    except TimeoutError:
        return refused(f"{name}: no answer in {limit_s:g} s", "try again")
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


def _changes(summary: str, run: Run, words: str = "") -> Command:
    return Command(summary, run, _CHANGE_TIMEOUT_S, words, _always)


async def _help(_desk: Desk, args: Sequence[str]) -> CommandResult:
    """All commands, or those whose name begins so."""
    prefix = " ".join(args).lower()
    found = {name: each for name, each in COMMANDS.items() if name.startswith(prefix)}
    if not found:
        raise InputError("help", f"no command begins with {prefix[:_MAX_SHOWN]!r}")
    shown = {f"{name} {each.words}".strip(): each.summary for name, each in found.items()}
    width = max(map(len, shown)) + 2
    lines = [f"{name:<{width}}{summary}" for name, summary in shown.items()]
    data = {name: each.summary for name, each in found.items()}
    return CommandResult(EXIT_OK, "\n".join(lines), {"commands": data})


async def _log_level(desk: Desk, args: Sequence[str]) -> CommandResult:
    return await (change.log_level if args else look.log_level)(desk, args)


async def _challenge(desk: Desk, _args: Sequence[str]) -> CommandResult:
    nonce = desk.technicians.challenge()
    return facts({"terminalId": desk.config.terminal.id, "nonce": nonce})


COMMANDS: Final[dict[str, Command]] = {
    "help": Command("list the commands", _help, words="[COMMAND] [WORD]"),
    "status": Command("what the terminal does and how its parts are", look.status),
    "selftest": Command(
        "try every part, each ok or what to do",
        look.selftest,
        timeout_s=SELFTEST_TIMEOUT_S,
        is_heavy=True,
    ),
    "last": Command("what became of the last tap, and why", look.last),
    "live": Command("lights, display and last taps as they are this moment", live.live),
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
    "net test": Command(
        "each stage to the gateway", look.net, _NET_TIMEOUT_S, "[ROUNDS]", is_heavy=True
    ),
    "log tail": Command("the log's last lines", look.log_tail, words="[LINES]"),
    "log level": Command(
        "from which level on is logged", _log_level, words="[LEVEL]", changes=bool
    ),
    "config get": Command("the configuration that runs", settings.get, words="[KEY]"),
    "config diff": Command("what the next start would change", settings.diff),
    "queue list": Command("sales without an end", queue.show_list),
    "queue show": Command("one of them", queue.show_one, words="REQUEST"),
    "queue export": Command(
        "all of them, as evidence", queue.export, words="[FROM]", is_heavy=True
    ),
    "offline": Command("what is sold without the gateway, and was lost", exposure.show),
    "lights test": Command("light each lamp: did you see it?", seen.lights),
    "led test": Command("the same", seen.lights),
    "display test": Command("show a picture: did you see it?", seen.display),
    "buzzer test": Command("three tones: did you hear them?", seen.buzzer),
    "technicians": Command("who may change this terminal, and since when", seen.technicians),
    "changes": Command("what technicians changed", seen.changes, words="[LINES]"),
    "challenge": Command("what a technician's key signs next", _challenge),
    "reader reset": _changes("take the reader's power and open it again", change.reader_reset),
    "config set": _changes("one value, on trial", change.config_set, "KEY VALUE"),
    "config export": Command("the configuration's file", change.config_export),
    "config import": _changes("a whole file, on trial", change.config_import, "TOML"),
    "pair": Command(
        "make this a terminal of the gateway that has given the code",
        change.pair,
        _CHANGE_TIMEOUT_S,
        "CODE",
        _always,
        has_secret=True,
    ),
    "key rotate": _changes("make this terminal's next key", change.key_rotate),
    "queue retry": _changes("post what waits again, now", change.queue_retry),
    "mode": _changes("safe: take no cards; field: take them again", change.mode, "field|safe"),
    "reboot": _changes("start the machine anew", change.reboot),
    "factory-reset": _changes("forget everything, in two steps", change.factory_reset, "[CODE]"),
    "bundle": Command(
        "everything in one archive, without secrets",
        bundle.bundle,
        SELFTEST_TIMEOUT_S * 1.1,
        is_heavy=True,
    ),
}

COMMAND_NAMES: Final = tuple(COMMANDS)

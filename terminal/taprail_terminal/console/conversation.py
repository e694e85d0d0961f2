"""One item of a conversation in, the bytes of its answer out; alike on a serial line and a socket.

Answers for the difference between people and programs, and for never answering an answer: a line
that echoes brings our own words back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from taprail_common.errors import InputError
from taprail_terminal.console.answers import EXIT_REFUSED, CommandResult, refused
from taprail_terminal.console.frames import Frame, Garbled, Item, Line, encode
from taprail_terminal.console.proof import Proof

NOBODY: Final = "0"
"""Id of an answer to a request whose own id could not be read."""

# Lines that begin with this are never answered, so that two consoles, or one with a loop in its
# cable, do not talk without end.
_SAID_BY_CONSOLE: Final = "? "
_MAX_WORDS: Final = 16
_BUSY: Final = "busy"
_WAIT: Final = "wait for the answers before asking more"


class Carrying(Protocol):
    """Whoever carries out commands: bounded in time, and never raises but when cancelled."""

    async def run(self, text: str) -> CommandResult:
        """What a person has typed."""
        ...

    async def carry_out(self, words: Sequence[str], proof: Proof | None = None, /) -> CommandResult:
        """What a program has asked for."""
        ...


async def answer(commands: Carrying, item: Item) -> bytes:
    """The answer, empty when none is due."""
    match item:
        case Garbled(reason):
            return machine(NOBODY, {"exitCode": EXIT_REFUSED, "data": {"error": reason}})
        case Line(text):
            if text.startswith(_SAID_BY_CONSOLE):
                return b""
            return _human(await commands.run(text))
        case Frame(id=request_id, body={"command": str(name)} as body):
            words = [*name.split(), *_args(body)]
            if not all(map(_is_text, words)):
                return machine(request_id, refused("a word of it is no text").to_json(""))
            result = await commands.carry_out(words, Proof.of(body))
            return machine(request_id, result.to_json(name))
    return b""  # a frame without a command is an answer: ours, come back by an echo


def busy(item: Item) -> bytes:
    """What is said of an item that nobody has time for; empty for noise."""
    match item:
        case Line(text) if not text.startswith(_SAID_BY_CONSOLE):
            return _human(refused(_BUSY, _WAIT))
        case Frame(id=request_id, body={"command": str()}):
            data = {"error": _BUSY, "whatToDo": _WAIT}
            return machine(request_id, {"exitCode": EXIT_REFUSED, "data": data})
    return b""


def full() -> bytes:
    """What is said to whoever comes when all places are taken, a person or a program."""
    no = refused("too many consoles are open here", "close one of them")
    return _human(no) + machine(NOBODY, no.to_json(""))


def machine(request_id: str, body: dict[str, Any]) -> bytes:
    """A frame; what does not fit into one is refused as a whole."""
    try:
        return encode(Frame(request_id, body))
    except InputError as exc:
        error = {"exitCode": EXIT_REFUSED, "data": {"error": str(exc)}}
        return encode(Frame(request_id, error))


def _args(body: dict[str, Any]) -> list[str]:
    args = body.get("args")
    return [str(each) for each in args[:_MAX_WORDS]] if isinstance(args, list) else []


def _is_text(word: str) -> bool:
    """JSON can write halves of characters, which no file and no line can hold."""
    return not any("\ud800" <= character <= "\udfff" for character in word)


def _human(result: CommandResult) -> bytes:
    mark = _SAID_BY_CONSOLE if result.exit_code == EXIT_REFUSED else ""
    text = (mark + result.text).replace("\n", "\r\n")
    return f"{text}\r\n".encode()

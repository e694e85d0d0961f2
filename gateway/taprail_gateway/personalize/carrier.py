"""A reader in another process, here or on another machine: it carries commands and holds no key.

Answers for starting that process, for its lines and for time; what is said to a card is `session`'s
matter. The other end is `taprail terminal relay`, whose protocol is described there.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from taprail_common.errors import OperatorError, PartError
from taprail_gateway.personalize.chip import Conversation

MAX_LINE_BYTES: Final = 4_096
OPEN_S: Final = 20.0
"""Until the reader is open; ssh to a Pi takes some seconds by itself."""
ANSWER_S: Final = 10.0
STOP_S: Final = 5.0

_USUAL_DRIVER: Final = "pn532"
_THIS_PROGRAM: Final = (sys.executable, "-c", "from taprail_common.cli import main; main()")


@dataclass(frozen=True, slots=True)
class PresentCard:
    """A card on the reader. Its UID is never shown."""

    uid: bytes = field(repr=False)
    iso_dep: bool


class CardLeftError(PartError):
    """The card left or could not be understood; what was written stays written."""

    code = "card_left"


def command_of(reader: str) -> Sequence[str]:
    """The process for `tty:PORT` or `DRIVER:PORT`, a reader here, or `exec:` and a command that
    reaches one elsewhere."""
    kind, _, rest = reader.partition(":")
    try:
        words = shlex.split(rest) if kind == "exec" else [rest.strip()]
    except ValueError:  # a quote without its end
        words = []
    if not kind or not any(words):
        raise OperatorError(
            f"{reader!r} names no reader",
            fix="write tty:/dev/serial0, or"
            " exec:ssh till-1 taprail terminal relay --port /dev/serial0",
        )
    if kind == "exec":
        return words
    driver = _USUAL_DRIVER if kind == "tty" else kind
    return (*_THIS_PROGRAM, "terminal", "relay", "--driver", driver, "--port", words[0])


class Carrier:
    """The line to that process. Use `connected`."""

    def __init__(self, process: asyncio.subprocess.Process, description: str) -> None:
        self._process = process
        self.description = description
        self.carried = 0
        """Commands so far."""

    async def card(self, wait_s: int) -> PresentCard | None:
        """Wait for a card; None when none came."""
        answer = await _ask(self._process, {"do": "card", "wait_s": wait_s}, wait_s + ANSWER_S)
        match answer:
            case {"uid": None}:
                return None
            case {"uid": str(text), "iso_dep": bool(iso_dep)}:
                return PresentCard(_hex(text), iso_dep)
        raise _failure(answer)

    async def run(self, conversation: Conversation[int]) -> int:
        """Carry a conversation to its end; raises CardLeftError, or what the conversation says."""
        try:
            command = next(conversation)
            while True:
                command = conversation.send(await self._exchange(command))
        except StopIteration as end:
            result: int = end.value
            return result

    async def _exchange(self, command: bytes) -> bytes:
        answer = await _ask(self._process, {"do": "apdu", "apdu": command.hex()}, ANSWER_S)
        self.carried += 1
        match answer:
            case {"apdu": str(text)}:
                return _hex(text)
        raise _failure(answer)


@asynccontextmanager
async def connected(command: Sequence[str]) -> AsyncIterator[Carrier]:
    """Start the process and end it; what it has to say of itself goes to stderr."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
        )
    except OSError as exc:
        raise OperatorError(
            f"{command[0]} cannot be started ({exc.strerror})", fix="correct --reader"
        ) from exc
    try:
        match await _answer(process, OPEN_S):
            case {"reader": str(description)}:
                yield Carrier(process, description)
            case other:
                raise _failure(other)
    finally:
        await _stop(process)


async def _ask(
    process: asyncio.subprocess.Process, request: dict[str, Any], limit_s: float
) -> dict[str, Any]:
    if process.stdin is None:
        raise AssertionError("the process was started with a pipe")
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        await process.stdin.drain()
    except ConnectionError as exc:
        raise _hung_up() from exc
    return await _answer(process, limit_s)


async def _answer(process: asyncio.subprocess.Process, limit_s: float) -> dict[str, Any]:
    if process.stdout is None:
        raise AssertionError("the process was started with a pipe")
    try:
        async with asyncio.timeout(limit_s):
            line = await process.stdout.readline()
    except TimeoutError as exc:
        raise PartError("reader", "does not answer", fix="plug it in anew") from exc
    except ValueError as exc:  # longer than the limit
        raise _failure({}) from exc
    if not line:
        raise _hung_up()
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    return answer if isinstance(answer, dict) else {}


def _hung_up() -> PartError:
    return PartError("reader", "its program has ended", fix="see what it says above")


def _failure(answer: dict[str, Any]) -> PartError:
    match answer:
        case {"error": "card_silent" | "card_garbled"}:
            return CardLeftError("reader", "the card has left, or was held badly")
        case {"error": str(), "message": str(message)}:
            return PartError("reader", message[:200] if message.isprintable() else "failed")
    return PartError("reader", "answers in words that are not known here", fix="upgrade it")


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as exc:
        raise _failure({}) from exc


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()

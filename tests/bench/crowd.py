"""A thousand apps in a process of their own, so that what is measured is the gateway.

It reads a plan on stdin, one line of JSON; connects all users over web sockets, lets each follow
its card where the plan says so, and prints a line. Then it only listens: of each message about a
balance it keeps the text and the time, and looks at neither before all have come. They are printed
by their cursors, the times by the clock of `time.monotonic`, which all processes share (Linux:
clock_gettime(2), CLOCK_MONOTONIC). It stays connected until stdin is closed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

import aiohttp
import uvloop

_SOCKET: Final = "/nfc-ws/?EIO=4&transport=websocket"
_AT_ONCE: Final = 50
_BALANCE: Final = '42["balance:update",'
_STATUS: Final = '42["card:status:update",'
_LONGEST_LINE: Final = 16 * 1024 * 1024


class CrowdError(Exception):
    """A socket was refused or closed, or the process has failed."""


@dataclass(frozen=True)
class Plan:
    """Who connects where; `cards` are followed, one by each of the first users."""

    url: str
    tokens: Sequence[str]
    cards: Sequence[str] = ()
    balances: int = 0
    """Messages about balances after which it tells what it has heard."""


@dataclass(frozen=True)
class Heard:
    """A message about a balance: the place after it, and when it was read from its socket."""

    seq: int
    at_s: float


class Crowd:
    """The process, connected; `heard` returns when it has heard all that the plan waits for."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def heard(self) -> list[Heard]:
        """Each message about a balance, in the order in which they came."""
        return [Heard(*each) for each in await self.line()]

    async def line(self) -> Any:
        """The next thing that it says; raises CrowdError when it has ended instead."""
        line = await self._process.stdout.readline() if self._process.stdout else b""
        if not line:
            raise CrowdError("the crowd's process failed; its traceback is above")
        return json.loads(line)


@asynccontextmanager
async def connected(plan: Plan) -> AsyncIterator[Crowd]:
    """All of the plan's users are connected within the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.crowd"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(asdict(plan)).encode() + b"\n")
        crowd = Crowd(process)
        await crowd.line()
        yield crowd
        process.stdin.close()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# --- the process ----------------------------------------------------------------------------------


class _Listening:
    """What all of them have heard."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._told: list[tuple[float, str]] = []
        self._all = asyncio.Event()

    async def run(self) -> None:
        async with aiohttp.ClientSession(
            self._plan.url, connector=aiohttp.TCPConnector(limit=0)
        ) as http:
            sockets = []
            for at in range(0, len(self._plan.tokens), _AT_ONCE):
                some = self._plan.tokens[at : at + _AT_ONCE]
                sockets += await asyncio.gather(*(_connect(http, token) for token in some))
            for socket, card in zip(sockets, self._plan.cards, strict=False):
                await socket.send_str("42" + json.dumps(["subscribe:card", card]))
                await _until(socket, _STATUS)
            _say(len(sockets))
            listening = [asyncio.create_task(self._listen(socket)) for socket in sockets]
            ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
            if self._plan.balances:
                await self._all.wait()
                _say([[_seq(text), at_s] for at_s, text in self._told])
            await ended
            for task in listening:
                task.cancel()
            await asyncio.gather(*(socket.close() for socket in sockets))

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            text = await _until(socket, _BALANCE)
            self._told.append((time.monotonic(), text))
            if len(self._told) == self._plan.balances:
                self._all.set()


async def _connect(http: aiohttp.ClientSession, token: str) -> aiohttp.ClientWebSocketResponse:
    socket = await http.ws_connect(_SOCKET)
    await socket.send_str("40" + json.dumps({"token": token}))
    await _until(socket, '42["connected"')
    return socket


async def _until(socket: aiohttp.ClientWebSocketResponse, start: str) -> str:
    """The next message that begins like this; pings on the way are answered."""
    async for message in socket:
        text = str(message.data)
        if text.startswith(start):
            return text
        if text == "2":
            await socket.send_str("3")
        if text.startswith("44"):
            raise CrowdError(f"a socket was refused: {text}")
    raise CrowdError("a socket was closed by the gateway")


def _seq(text: str) -> int:
    return int(str(json.loads(text[2:])[1]["cursor"]).partition(".")[0])


def _say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_Listening(Plan(**json.loads(sys.stdin.readline()))).run())

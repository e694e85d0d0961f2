"""The local control socket: how a till, a technician or a simulator on this machine speaks to the
agent. One JSON object a line, each way.

    {"command": "arm", "amount": "12.50"}   {"command": "cancel"}   {"command": "status"}
    {"command": "watch"}    then one event a line until the watcher leaves
    {"command": "selftest"} and the other commands of the console

Answers for the wire and its bounds. The socket has mode 600: whoever may open it may sell here,
and nothing said here moves money without a card.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import structlog

from taprail_common.errors import IllegalTransitionError, InputError, TapRailError
from taprail_terminal.private_socket import bound
from taprail_terminal.timeline import MAX_WATCHERS, Timeline, WatcherLostError

MAX_LINE_BYTES: Final = 4096
MAX_CLIENTS: Final = 16
IDLE_LIMIT_S: Final = 300.0
"""A client that says nothing for so long is let go; a watcher is heard out for ever."""
WRITE_LIMIT_S: Final = 5.0

_log = structlog.get_logger()

Answer = dict[str, Any]
Handler = Callable[[dict[str, Any]], Awaitable[Answer]]


class BusyError(TapRailError):
    """The terminal is in the middle of something."""

    code = "terminal_busy"
    retryable = True


class ControlServer:
    """Serves the socket at `path`; `handlers` answer commands, the timeline feeds watchers."""

    def __init__(self, path: Path, handlers: dict[str, Handler], timeline: Timeline) -> None:
        self._path = path
        self._handlers = handlers
        self._timeline = timeline
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._watchers = 0

    async def start(self) -> None:
        """Listen. Raises OperatorError when the path cannot be used."""
        listener = bound(self._path, "control socket")
        self._server = await asyncio.start_unix_server(
            self._accept, sock=listener, limit=MAX_LINE_BYTES
        )

    async def stop(self) -> None:
        """Let all clients go and remove the socket."""
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that leaves in mid-sentence, or is too slow, ends its own connection only.
        with contextlib.suppress(OSError, TimeoutError, WatcherLostError):
            if len(self._clients) > MAX_CLIENTS:
                await _write(writer, _refusal("overloaded", "too many clients"))
            else:
                await self._converse(reader, writer)
        writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_LIMIT_S):
                    line = await reader.readline()
            except ValueError:
                await _write(writer, _refusal("bad_request", "the line is too long"))
                return
            if not line:
                return
            request = _parsed(line)
            if request is not None and request["command"] == "watch":
                await self._watch(reader, writer)
                return
            await _write(writer, await self._answer(request))

    async def _answer(self, request: dict[str, Any] | None) -> Answer:
        if request is None:
            return _refusal("bad_request", 'each line is an object like {"command": "status"}')
        handler = self._handlers.get(request["command"])
        if handler is None:
            return _refusal("bad_request", f"commands: {', '.join([*self._handlers, 'watch'])}")
        try:
            return {"ok": True, **await handler(request)}
        except IllegalTransitionError as exc:
            return _refusal(BusyError.code, str(exc))
        except TapRailError as exc:
            return _refusal(exc.code, str(exc))

    async def _watch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._watchers >= MAX_WATCHERS:
            await _write(writer, _refusal("overloaded", "too many watchers"))
            return
        self._watchers += 1
        left = asyncio.ensure_future(reader.read(1))
        try:
            with self._timeline.watch() as next_event:
                await _write(writer, {"ok": True})
                while not left.done():
                    event = asyncio.ensure_future(next_event())
                    await asyncio.wait({left, event}, return_when=asyncio.FIRST_COMPLETED)
                    if event.done():
                        await _write(writer, event.result())
                    else:
                        event.cancel()
        finally:
            left.cancel()
            self._watchers -= 1


def amount_text(request: dict[str, Any]) -> str:
    """The amount of an `arm`; raises InputError."""
    amount = request.get("amount")
    if not isinstance(amount, str):
        raise InputError("amount", 'must be text like "12.50"')
    return amount


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        return None
    return request


def _refusal(code: str, error: str) -> Answer:
    return {"ok": False, "code": code, "error": error}


async def _write(writer: asyncio.StreamWriter, answer: Answer) -> None:
    writer.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
    async with asyncio.timeout(WRITE_LIMIT_S):
        await writer.drain()

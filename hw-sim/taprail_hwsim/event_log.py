"""What a terminal says of itself, as it happens: the stages of each tap with their times.

Reads the terminal's local control socket. Every event is kept, so a waiter that comes late still
finds what it waits for; nothing here polls or sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LINE_BYTES = 64 * 1024
_CONNECT_ATTEMPTS = 200
_CONNECT_PAUSE_S = 0.05


class TerminalSilentError(Exception):
    """The terminal did not say in time what was waited for."""


@dataclass(frozen=True)
class Event:
    """One stage. `at_s` is the machine's monotonic clock, the same in every process."""

    name: str
    at_s: float
    fields: dict[str, Any]

    def get(self, field: str) -> Any:
        return self.fields.get(field)


class EventLog:
    """All events of one terminal since `follow`, and a way to wait for the next."""

    def __init__(self, control_socket: Path) -> None:
        self._socket = control_socket
        self._reader: asyncio.Task[None] | None = None
        self._grown = asyncio.Condition()
        self._listeners: list[Callable[[Event], None]] = []
        self.events: list[Event] = []

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call a function at each event, in the event loop."""
        self._listeners.append(listener)

    async def follow(self) -> None:
        """Begin to read; returns when the terminal has taken the subscription."""
        reader, writer = await _connect(self._socket)
        writer.write(b'{"command":"watch"}\n')
        await writer.drain()
        self._reader = asyncio.create_task(self._read(reader, writer), name="event-log")

    async def close(self) -> None:
        """Stop reading; what has been read stays."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    @property
    def position(self) -> int:
        """A mark: waiting `since` it looks only at what comes after."""
        return len(self.events)

    async def wait_for(
        self,
        *names: str,
        since: int = 0,
        where: Callable[[Event], bool] = lambda _: True,
        timeout_s: float = 20.0,
    ) -> Event:
        """The first event of one of these names after the mark; raises TerminalSilentError."""

        def found() -> Event | None:
            fitting = (e for e in self.events[since:] if e.name in names and where(e))
            return next(fitting, None)

        try:
            async with asyncio.timeout(timeout_s), self._grown:
                await self._grown.wait_for(lambda: found() is not None)
        except TimeoutError:
            seen = ", ".join(event.name for event in self.events[since:]) or "nothing"
            raise TerminalSilentError(
                f"no {' or '.join(names)} within {timeout_s:.0f} s; the terminal said: {seen}"
            ) from None
        event = found()
        assert event is not None  # noqa: S101 - the condition above has just held
        return event

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                message = json.loads(line)
                if "event" in message:
                    await self._add(message)
        except ConnectionError:
            pass  # the terminal was killed; whoever waits is told by the timeout
        finally:
            writer.close()

    async def _add(self, message: dict[str, Any]) -> None:
        event = Event(message.pop("event"), message.pop("at_s"), message)
        self.events.append(event)
        for listener in self._listeners:
            listener(event)
        async with self._grown:
            self._grown.notify_all()


async def command(control_socket: Path, **request: Any) -> dict[str, Any]:
    """Ask a terminal something over its control socket; gives its answer."""
    reader, writer = await _connect(control_socket)
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        await writer.drain()
        line = await reader.readline()
    finally:
        writer.close()
    if not line:
        raise TerminalSilentError("the terminal closed the control socket without an answer")
    answer: dict[str, Any] = json.loads(line)
    return answer


async def _connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    # A terminal that has just been started makes its socket a moment later.
    for _ in range(_CONNECT_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return await asyncio.open_unix_connection(path, limit=_LINE_BYTES)
        await asyncio.sleep(_CONNECT_PAUSE_S)
    raise TerminalSilentError(f"no terminal answers at {path}")

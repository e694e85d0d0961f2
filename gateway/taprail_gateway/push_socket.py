"""One socket's way out: what waits for its client, and how it leaves.

python-engineio has a queue, two tasks and a timer for each web socket, and frames a message for
each client anew: that costs more than the message. Here a message is framed once for all and put
onto the web socket's transport, which sends it when it can; nobody waits. How much lies there
unread says who is behind. Whoever polls has a queue with a bound of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, Final

import structlog
from aiohttp import WSMsgType, web
from engineio.async_drivers import aiohttp as driver
from engineio.async_socket import AsyncSocket
from engineio.exceptions import SocketIsClosedError, UnknownPacketError
from engineio.packet import CLOSE, MESSAGE, NOOP
from engineio.packet import Packet as Frame

MAX_WAITING: Final = 256
"""Messages for one socket that polls; a terminal's sync makes a hundred at once."""

MAX_UNREAD_BYTES: Final = 256 * 1024
"""For one web socket, beside what the system keeps; all that a subscriber may be told at once is
under 150 kB. Who reads nothing at all is found out by the library's pings, within 45 s."""

MAX_MESSAGE_BYTES: Final = 32 * 1024
"""A sync of 100 request ids is under 7 kB."""

UPGRADE_S: Final = 5.0
"""From polling to a web socket: two round trips."""

GOODBYE_S: Final = 2.0

_FINAL_TEXT: Final = b"\x81"
"""RFC 6455 section 5.2: the last frame of a message, and it is text; a server masks nothing."""

_PROBE, _PROBED, _UPGRADE = "2probe", "3probe", "5"  # Engine.IO protocol 4, "Upgrade"

_NO_PACKET: Final = (ValueError, IndexError, RecursionError)
"""What the library makes of texts that are no packets, of unknown kinds, or nested too deeply."""

_log = structlog.get_logger("push")


def framed(text: str) -> bytes:
    """A text as it travels over a web socket (RFC 6455 section 5.2)."""
    data = text.encode()
    size = len(data)
    if size < 126:
        return _FINAL_TEXT + size.to_bytes(1, "big") + data
    if size < 2**16:
        return _FINAL_TEXT + b"\x7e" + size.to_bytes(2, "big") + data
    return _FINAL_TEXT + b"\x7f" + size.to_bytes(8, "big") + data


class Message(Frame):  # type: ignore[misc]  # the library is not typed
    """A Socket.IO packet, the same for everyone who gets it."""

    def __init__(self, text: str) -> None:
        super().__init__(MESSAGE, text)

    @cached_property
    def on_the_wire(self) -> bytes:
        """Made once, however many get it."""
        return framed(self.encode())


class Outgoing:
    """What waits for one socket, in the place of the library's queue; who adds to it never waits.

    A web socket takes everything at once; who polls gets it by `get`.
    """

    __slots__ = ("_polls", "_waiting", "_wire", "is_behind", "on_behind", "pause")

    def __init__(self) -> None:
        self.is_behind = False
        self.on_behind: Callable[[], None] = lambda: None
        self.pause: asyncio.TimerHandle | None = None
        """Until the next ping is due."""
        self._wire: WebSocket | None = None
        self._waiting: list[Frame | None] = []
        self._polls: list[asyncio.Future[None]] = []

    def add(self, frame: Frame) -> None:
        """Put it in; when there is no room, the socket is behind, and gets nothing any more."""
        if self.is_behind:
            return
        if self._wire is not None:
            self._wire.send(frame)
            is_full = self._wire.unread_bytes > MAX_UNREAD_BYTES
        else:
            is_full = len(self._waiting) >= MAX_WAITING
            if not is_full:
                self._wait(frame)
        if is_full:
            self.is_behind = True
            self.on_behind()

    def leave_by(self, wire: WebSocket) -> None:
        """From now on everything goes there, what waits first."""
        self._wire = wire
        for frame in self._waiting:
            if frame is not None:
                wire.send(frame)
        self._waiting.clear()

    def end(self) -> None:
        """Nothing comes any more: whoever waits for it or for a ping's turn need not."""
        if self.pause is not None:
            self.pause.cancel()
        if self._wire is not None:
            self._wire.end(at_once=self.is_behind)
            return
        if self.is_behind:
            self._waiting.clear()
        self._wait(Frame(CLOSE))  # tells a client that polls that it is over
        self._wait(None)

    def _wait(self, frame: Frame | None) -> None:
        self._waiting.append(frame)
        for poll in self._polls:
            if not poll.done():
                poll.set_result(None)

    # --- what the library asks of a queue ---------------------------------------------------------

    async def put(self, frame: Frame | None) -> None:
        if frame is not None:
            self.add(frame)

    async def get(self) -> Frame | None:
        while not self._waiting:
            poll: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._polls.append(poll)
            try:
                await poll
            finally:
                self._polls.remove(poll)
        return self._waiting.pop(0)

    def get_nowait(self) -> Frame | None:
        if not self._waiting:
            raise asyncio.QueueEmpty
        return self._waiting.pop(0)

    def put_nowait(self, frame: Frame | None) -> None:
        """Back again: the library found the end among what it has taken out."""
        self._wait(frame)

    def task_done(self) -> None:
        """Nobody joins it."""


class WebSocket(driver.WebSocket):  # type: ignore[misc]
    """A web socket of the library's, with our own loop around it.

    Nothing is compressed: messages are short, and a compressor takes 256 kB for each socket.
    """

    _sock: web.WebSocketResponse
    _transport: asyncio.Transport | None = None
    _goodbye: asyncio.Task[None] | None = None

    async def __call__(self, environ: Mapping[str, Any]) -> web.StreamResponse:
        """Serve until either end closes it."""
        request: web.Request = environ["aiohttp.request"]
        socket: AsyncSocket = self.handler.__self__
        if socket.upgrading:  # one is enough: they would count as one socket, however many came
            return web.Response(status=400, text="It is being upgraded already")
        self._sock = web.WebSocketResponse(
            max_msg_size=MAX_MESSAGE_BYTES, compress=False, timeout=GOODBYE_S
        )
        socket.upgrading = socket.connected
        try:
            await self._sock.prepare(request)
            self._transport = request.transport
            is_taken = not socket.connected or await self._take_over(socket)
        finally:
            socket.upgrading = False
        if is_taken:
            await self._serve(socket)
        else:
            await self._close()
        return self._sock

    @property
    def unread_bytes(self) -> int:
        """Of what was sent, what the system has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, frame: Frame) -> None:
        """Send it as soon as the client takes it; to nobody, when it is gone."""
        is_shared = isinstance(frame, Message)
        self._write(frame.on_the_wire if is_shared else framed(frame.encode()))

    def end(self, *, at_once: bool) -> None:
        """Close it: by a word to the client, or at once, for one that would not hear it."""
        if at_once and self._transport is not None:
            self._transport.abort()
        if self._goodbye is None:
            self._goodbye = asyncio.create_task(self._close())

    async def _serve(self, socket: AsyncSocket) -> None:
        socket.connected = socket.upgraded = True
        socket.queue.leave_by(self)
        try:
            while (said := await self._next()) is not None:
                if not await _heed(socket, said):
                    break
        finally:
            reason = socket.server.reason.TRANSPORT_CLOSE
            await socket.close(wait=False, abort=True, reason=reason)
            await (self._goodbye or self._close())  # whoever has closed it has begun already

    async def _take_over(self, socket: AsyncSocket) -> bool:
        """Engine.IO's upgrade: the web socket proves itself while the client still polls."""
        with suppress(TimeoutError):
            async with asyncio.timeout(UPGRADE_S):
                if await self._next() != _PROBE:
                    return False
                self._write(framed(_PROBED))
                socket.queue.add(Frame(NOOP))  # ends the poll that waits
                return await self._next() == _UPGRADE
        return False

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def _next(self) -> str | bytes | None:
        """What the client says; None when it says nothing any more."""
        message = await self._sock.receive()
        is_said = message.type in {WSMsgType.TEXT, WSMsgType.BINARY}
        return message.data if is_said else None

    async def _close(self) -> None:
        """Wait a little for the client's own goodbye, and for no reader of what is left."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._sock.close()
        if self.unread_bytes and self._transport is not None:
            self._transport.abort()


async def _heed(socket: AsyncSocket, said: str | bytes) -> bool:
    """Do what a client's packet asks for; False when the socket is to be closed."""
    try:
        await socket.receive(Frame(encoded_packet=said))
    except (SocketIsClosedError, UnknownPacketError, *_NO_PACKET) as exc:
        _log.debug("push.malformed", error=type(exc).__name__)
        return False
    return not socket.closed

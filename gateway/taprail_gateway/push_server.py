"""python-socketio's server with a bound for everything: what waits, how long, how many, how much.

The library keeps what it cannot send, waits for who does not read, and lets sockets stay that never
say who they are. Here a socket that is behind, silent or talks without end is closed, and it alone:
nobody else waits for it. What the messages are is not this module's business.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import engineio
import socketio
import structlog
from engineio.async_socket import AsyncSocket
from engineio.packet import PING
from engineio.packet import Packet as Frame
from socketio.packet import EVENT, Packet

from taprail_gateway.push_socket import (
    GOODBYE_S,
    MAX_MESSAGE_BYTES,
    Message,
    Outgoing,
    WebSocket,
)

MAX_SOCKETS: Final = 5_000
KEPT_FILES: Final = 300
"""Of those that the system lets this process open: for HTTP, nodes and the ledger."""

MAX_STRANGERS: Final = 500
"""Sockets that have not said who they are; the newest takes the place of the oldest."""

IDENTIFY_S: Final = 5.0
"""For saying it; the library's clients do so within a round trip."""

MAX_SAID: Final = 500
SAID_WITHIN_S: Final = 10.0
"""So many messages in so long: an app that comes back subscribes to a hundred things at once."""

_log = structlog.get_logger("push")

# The library prints what hostile bytes make of it; our own handlers say themselves what is wrong.
_quiet = logging.getLogger("taprail.push.library")
_quiet.setLevel(logging.CRITICAL + 1)


class _TextPacket(Packet):  # type: ignore[misc]  # the library is not typed
    """A packet without binary parts.

    The library gathers in memory as many parts as a packet announces, which may be ten billion; no
    message of ours has any.
    """

    def decode(self, encoded_packet: str) -> int:
        announced: int = super().decode(encoded_packet)
        if announced:
            raise ValueError("a message with binary parts")
        return announced


class _Sids(socketio.AsyncManager):  # type: ignore[misc]
    """Which socket has which id, and nothing more.

    The library gives each socket a room of its own as well, and looks through all rooms whenever
    one leaves: of a thousand that vanish together, each would cost the time of a thousand.
    """

    def basic_enter_room(
        self, sid: str, namespace: str, room: str | None, eio_sid: str | None = None
    ) -> None:
        if room is None:
            super().basic_enter_room(sid, namespace, None, eio_sid=eio_sid)

    def basic_disconnect(self, sid: str, namespace: str, **_: object) -> None:
        self.basic_leave_room(sid, namespace, None)
        for pending in (self.pending_connect, self.pending_disconnect):
            if sid in pending.get(namespace, ()):
                pending[namespace].remove(sid)
                if not pending[namespace]:
                    del pending[namespace]


class _Engine(engineio.AsyncServer):  # type: ignore[misc]
    """The layer of transports, with our queues and our web sockets."""

    _async: dict[str, Any]  # of the library, for all its servers

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._async = {**self._async, "websocket": WebSocket}

    def start_background_task(self, target: Any, *given: Any, **named: Any) -> Any:
        socket = getattr(target, "__self__", None)
        if not isinstance(socket, AsyncSocket):
            return super().start_background_task(target, *given, **named)
        # The pause before its next ping, of which the library would make a task that sleeps.
        loop = asyncio.get_running_loop()
        socket.queue.pause = loop.call_later(self.ping_interval, _ping, socket)
        return socket.queue.pause

    async def disconnect(self, sid: str | None = None) -> None:
        """Close a socket; the library would wait until its client has fetched all that waits."""
        socket = self.sockets.pop(sid, None)
        if socket is not None:
            await socket.close(wait=False, reason=self.reason.SERVER_DISCONNECT)

    def create_queue(self, *_: object, **__: object) -> Outgoing:
        return Outgoing()


def _ping(socket: AsyncSocket) -> None:
    if not socket.closing:
        socket.last_ping = time.time()  # the library's clock: it closes who does not answer
        socket.queue.add(Frame(PING))


class PushServer(socketio.AsyncServer):  # type: ignore[misc]
    """The server; `send_to` is how messages leave it."""

    def __init__(self, origins: Sequence[str] = ()) -> None:
        super().__init__(
            async_mode="aiohttp",
            client_manager=_Sids(),
            max_http_buffer_size=MAX_MESSAGE_BYTES,
            serializer=_TextPacket,
            cors_allowed_origins=list(origins) or None,
            # One after the other for each socket: nobody can start more work than they wait for.
            async_handlers=False,
            logger=_quiet,
            engineio_logger=_quiet,
        )
        self._strangers: dict[str, asyncio.TimerHandle] = {}
        self._said: dict[str, tuple[float, int]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._files = _allow_files(MAX_SOCKETS + KEPT_FILES)
        self.behind = 0
        """Sockets that were closed because they read too slowly."""

    def send_to(self, sids: Iterable[str], event: str, data: Mapping[str, object]) -> None:
        """Send one message to these sockets, without waiting for any of them."""
        message: Message | None = None
        for sid in sids:
            socket = self.eio.sockets.get(self.manager.eio_sid_from_sid(sid, "/"))
            if socket is not None and not socket.closed:
                message = message or _message(event, data)
                socket.queue.add(message)

    def is_open(self, sid: str) -> bool:
        """Whether a socket is there that can be told something."""
        socket = self.eio.sockets.get(self.manager.eio_sid_from_sid(sid, "/"))
        return socket is not None and not socket.closed

    def hang_up(self, sid: str, why: str) -> None:
        """Close a socket, without what still waits for it when it is behind."""
        eio_sid = self.manager.eio_sid_from_sid(sid, "/")
        if eio_sid is not None:
            self._hang_up(eio_sid, why)

    async def close_all(self) -> None:
        """Let everybody hear what waits for them, and close; whoever dawdles is left behind."""
        for eio_sid in list(self.environ):
            self._hang_up(eio_sid, "the gateway is closing")
        if self._closing:
            await asyncio.wait(self._closing, timeout=GOODBYE_S)
        await self.shutdown()

    def identified(self, sid: str) -> None:
        """Whoever is there may stay."""
        self._know(self.manager.eio_sid_from_sid(sid, "/"))

    def _hang_up(self, eio_sid: str, why: str) -> None:
        self._know(eio_sid)
        socket = self.eio.sockets.get(eio_sid)
        if socket is None or socket.closing:
            return
        _log.debug("push.closed", why=why)
        self.behind += socket.queue.is_behind
        task = asyncio.create_task(self._close(socket))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, socket: Any) -> None:
        await socket.close(wait=False, abort=True, reason=self.reason.SERVER_DISCONNECT)
        self.eio.sockets.pop(socket.sid, None)

    # --- what the library calls -----------------------------------------------------------------

    def _engineio_server_class(self) -> type[_Engine]:
        return _Engine

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> object:
        most = min(MAX_SOCKETS, self._files - KEPT_FILES)
        if len(self.environ) >= most:
            return "Too many connections"
        if len(self._strangers) >= MAX_STRANGERS:  # or whoever opens many would keep others out
            self._hang_up(next(iter(self._strangers)), "did not say who it is, and others come")
        await super()._handle_eio_connect(eio_sid, environ)
        self.eio.sockets[eio_sid].queue.on_behind = partial(self._hang_up, eio_sid, "behind")
        self._expect(eio_sid)
        return None

    async def _handle_eio_message(self, eio_sid: str, data: object) -> None:
        if eio_sid not in self.environ:  # it was closed, and talks on
            return
        if self._talks_too_much(eio_sid):
            self._hang_up(eio_sid, "too many messages")
            return
        try:
            await super()._handle_eio_message(eio_sid, data)
        except Exception as exc:  # noqa: BLE001 - whatever the library makes of hostile bytes
            _log.debug("push.malformed", error=type(exc).__name__)

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        await super()._handle_eio_disconnect(eio_sid, reason)
        socket = self.eio.sockets.get(eio_sid)
        if socket is not None:
            socket.queue.end()
        self._said.pop(eio_sid, None)
        self._know(eio_sid)

    async def _handle_disconnect(
        self, eio_sid: str, namespace: str, reason: str | None = None
    ) -> None:
        await super()._handle_disconnect(eio_sid, namespace, reason)
        if reason == self.reason.CLIENT_DISCONNECT:  # it is nobody now, and its transport is open
            self._expect(eio_sid)

    def _expect(self, eio_sid: str) -> None:
        """Wait a while for a socket to say who it is."""
        if eio_sid not in self._strangers:
            late = partial(self._hang_up, eio_sid, "did not say who it is")
            loop = asyncio.get_running_loop()
            self._strangers[eio_sid] = loop.call_later(IDENTIFY_S, late)

    def _know(self, eio_sid: str) -> None:
        timer = self._strangers.pop(eio_sid, None)
        if timer is not None:
            timer.cancel()

    def _talks_too_much(self, eio_sid: str) -> bool:
        now_s = time.monotonic()
        since_s, said = self._said.get(eio_sid, (now_s, 0))
        if now_s - since_s > SAID_WITHIN_S:
            since_s, said = now_s, 0
        self._said[eio_sid] = (since_s, said + 1)
        return said >= MAX_SAID


def _message(event: str, data: Mapping[str, object]) -> Message:
    """Without the library's look through all of it for bytes: ours has none."""
    return Message(_TextPacket(EVENT, data=[event, data], namespace="/", binary=False).encode())


def _allow_files(wanted: int) -> int:
    """Raise what this process may open to what is wanted, or as far as it goes; gives the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft

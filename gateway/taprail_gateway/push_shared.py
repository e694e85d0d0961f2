"""Several gateways with one Redis: each hears at once what another has done.

Redis is not needed for what happens to payments: every gateway follows the same event table and
tells its own sockets, so nothing of that goes through here, or each would be told as often as there
are gateways. What goes through is a ring, so that the others look at the table now and not within
their second, and what is said to a terminal that may be connected to any of them.

Redis is believed in nothing: a ring costs a look, and what is said to terminals is signed. When it
is gone, each gateway goes on alone, and joins again when it is back; nothing is lost but a second.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import socketio
import structlog
from redis import asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from taprail_gateway.wakeups import Listener

TERMINAL_ROOM: Final = "terminal:"
MAX_MESSAGE_BYTES: Final = 64 * 1024

_RING: Final = "ring"
_ANSWERS_WITHIN_S: Final = 1.0
_RETRY_S: Final = 1.0
_QUIET_S: Final = 5.0
"""After so long without a word Redis is asked whether it is still there."""

_GATHER_S: Final = 0.005
"""Rings of one burst are one, as in the pump."""

_LOST: Final = (RedisError, OSError, TimeoutError)

_log = structlog.get_logger("push")


class SharedRooms(socketio.AsyncRedisManager):  # type: ignore[misc]  # the library is not typed
    """python-socketio's rooms over Redis, with its way to speak and to listen replaced.

    Its own waits for a Redis that is silent, tries again after up to a minute, and does whatever
    it is told there: move sockets, close them, tell any room anything.
    """

    def __init__(self, url: str, gateway_id: str, on_ring: Callable[[], None]) -> None:
        super().__init__(url, channel=f"taprail/{gateway_id}/push")
        self._on_ring = on_ring
        self._client: redis.Redis | None = None
        self._was_alone = False

    async def pass_on(self, bell: Listener) -> None:
        """Ring for the other gateways whenever this bell rings, until cancelled."""
        while True:
            await bell.wait()
            await self._say({"method": _RING})
            await asyncio.sleep(_GATHER_S)

    async def close(self) -> None:
        """Hear and say nothing any more."""
        self.thread.cancel()
        with suppress(asyncio.CancelledError):
            await self.thread

    # --- what the library asks of a manager -------------------------------------------------------

    async def _publish(self, data: Mapping[str, Any]) -> None:
        if data["method"] == "emit" and _is_of_terminal(data.get("room")):
            await self._say(data)

    async def _listen(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            try:
                async with self._connection() as client, client.pubsub() as line:
                    await line.subscribe(self.channel)
                    self._has_joined(client)
                    async for message in _messages(client, line):
                        if message.get("host_id") == self.host_id:
                            continue
                        if message.get("method") == _RING:
                            self._on_ring()
                        elif _is_of_terminal(message.get("room")):
                            yield _emission(message)
            except _LOST as exc:
                self._is_alone(exc)
            finally:
                self._client = None
            await asyncio.sleep(_RETRY_S)

    # --- the line ---------------------------------------------------------------------------------

    async def _say(self, data: Mapping[str, Any]) -> None:
        if self._client is None:
            return
        text = json.dumps({**data, "host_id": self.host_id})
        try:
            await self._client.publish(self.channel, text)
        except _LOST as exc:  # whoever listens will notice as well, and join again
            _log.debug("push.not_shared", error=type(exc).__name__)

    def _connection(self) -> redis.Redis:
        return redis.Redis.from_url(
            self.redis_url,
            socket_timeout=_ANSWERS_WITHIN_S,
            socket_connect_timeout=_ANSWERS_WITHIN_S,
            retry=Retry(NoBackoff(), 0),
        )

    def _has_joined(self, client: redis.Redis) -> None:
        self._client = client
        _log.info("push.joined")
        self._was_alone = False
        self._on_ring()  # for what happened meanwhile

    def _is_alone(self, error: Exception) -> None:
        if not self._was_alone:
            # The error's words may hold the URL.
            _log.warning("push.alone", error=type(error).__name__)
        self._was_alone = True


async def _messages(client: redis.Redis, line: Any) -> AsyncIterator[dict[str, Any]]:
    """What is said on the line and can be read; raises when Redis does not answer any more."""
    while True:
        message = await line.get_message(ignore_subscribe_messages=True, timeout=_QUIET_S)
        if message is None:
            await client.ping()
        elif len(message["data"]) <= MAX_MESSAGE_BYTES:
            with suppress(ValueError, RecursionError):
                read = json.loads(message["data"])
                if isinstance(read, dict):
                    yield read


def _is_of_terminal(room: object) -> bool:
    return isinstance(room, str) and room.startswith(TERMINAL_ROOM)


def _emission(message: Mapping[str, Any]) -> dict[str, Any]:
    """As the library carries it out; nothing but the event, its data and the room is taken."""
    return {
        "method": "emit",
        "event": str(message.get("event"))[:64],
        "data": message.get("data"),
        "namespace": "/",
        "room": message["room"],
    }

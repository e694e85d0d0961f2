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

import structlog
from redis import asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from taprail_common.ids import new_id
from taprail_gateway.wakeups import Listener

MAX_MESSAGE_BYTES: Final = 64 * 1024

_LONGEST_NAME: Final = 64
_ANSWERS_WITHIN_S: Final = 1.0
_RETRY_S: Final = 1.0
_QUIET_S: Final = 5.0
"""After so long without a word Redis is asked whether it is still there."""

_GATHER_S: Final = 0.005
"""Rings of one burst are one, as in the pump."""

_LOST: Final = (RedisError, OSError, TimeoutError)

_log = structlog.get_logger("push")


class SharedLine:
    """One task, `run`, that listens; `pass_on` and `say` are heard by the other gateways.

    python-socketio's own Redis manager waits for a Redis that is silent, tries again after up to a
    minute, and does whatever it is told there: move sockets, close them, tell any room anything.
    """

    def __init__(
        self,
        url: str,
        gateway_id: str,
        on_ring: Callable[[], None],
        on_said: Callable[[str, str, Mapping[str, object]], None],
    ) -> None:
        self._url = url
        self._channel = f"taprail/{gateway_id}/push"
        self._me = new_id("process")
        self._on_ring = on_ring
        self._on_said = on_said
        self._client: redis.Redis | None = None
        self._was_alone = False

    async def run(self) -> None:
        """Until cancelled: listen, and join again a second after the line was cut."""
        while True:
            try:
                async with self._connection() as client, client.pubsub() as line:
                    await line.subscribe(self._channel)
                    self._has_joined(client)
                    async for message in _messages(client, line):
                        self._heed(message)
            except _LOST as exc:
                self._is_alone(exc)
            finally:
                self._client = None
            await asyncio.sleep(_RETRY_S)

    async def pass_on(self, bell: Listener) -> None:
        """Ring for the other gateways whenever this bell rings, until cancelled."""
        while True:
            await bell.wait()
            await self._publish({"ring": True})
            await asyncio.sleep(_GATHER_S)

    async def say(self, terminal_id: str, event: str, envelope: Mapping[str, object]) -> None:
        """Tell a terminal something where it is connected to another gateway."""
        said = {"body": envelope["body"], "signature": envelope["signature"]}
        await self._publish({"terminal": terminal_id, "event": event, "said": said})

    def _heed(self, message: Mapping[str, Any]) -> None:
        if message.get("from") == self._me:
            return
        terminal_id, event, said = (message.get(key) for key in ("terminal", "event", "said"))
        if message.get("ring"):
            self._on_ring()
        elif isinstance(terminal_id, str) and isinstance(event, str) and isinstance(said, dict):
            envelope = {"body": str(said.get("body")), "signature": str(said.get("signature"))}
            self._on_said(terminal_id, event[:_LONGEST_NAME], envelope)

    # --- the line ---------------------------------------------------------------------------------

    async def _publish(self, data: Mapping[str, object]) -> None:
        if self._client is None:
            return
        try:
            await self._client.publish(self._channel, json.dumps({**data, "from": self._me}))
        except _LOST as exc:  # whoever listens will notice as well, and join again
            _log.debug("push.not_shared", error=type(exc).__name__)

    def _connection(self) -> redis.Redis:
        return redis.Redis.from_url(
            self._url,
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

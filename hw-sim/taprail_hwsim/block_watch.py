"""When each block arrived here, by the clock of this machine: blocks themselves know only seconds.

Listens to the node's own announcements (`eth_subscribe newHeads`), so nothing is polled.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import TracebackType
from typing import Self

import aiohttp

_SUBSCRIBE = {"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}
_MESSAGE_BYTES = 1024 * 1024


class BlockWatch:
    """Use as `async with`; `arrived_s` maps block numbers to monotonic seconds."""

    def __init__(self, rpc_url: str) -> None:
        self._url = rpc_url
        self._task: asyncio.Task[None] | None = None
        self._new_block = asyncio.Condition()
        self.arrived_s: dict[int, float] = {}

    async def __aenter__(self) -> Self:
        listening = asyncio.Event()
        self._task = asyncio.create_task(self._listen(listening), name="block-watch")
        await listening.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def next_block(self, timeout_s: float = 30.0) -> int:
        """Wait for the next block; gives its number."""
        known = max(self.arrived_s, default=-1)
        async with asyncio.timeout(timeout_s), self._new_block:
            await self._new_block.wait_for(lambda: max(self.arrived_s, default=-1) > known)
        return max(self.arrived_s)

    async def _listen(self, listening: asyncio.Event) -> None:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(self._url, max_msg_size=_MESSAGE_BYTES) as socket,
            ):
                await socket.send_json(_SUBSCRIBE)
                await socket.receive_json()
                listening.set()
                async for message in socket:
                    await self._take(message.json())
        finally:
            listening.set()  # a node without websockets must not keep anybody waiting

    async def _take(self, message: dict[str, object]) -> None:
        params = message.get("params")
        if not isinstance(params, dict):
            return
        self.arrived_s[int(params["result"]["number"], 16)] = time.monotonic()
        async with self._new_block:
            self._new_block.notify_all()

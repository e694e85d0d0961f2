"""One broadcast beside whatever else is done, never two: so the nodes see nonces in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from taprail_gateway.settle.broadcast import Obstacle

T = TypeVar("T")


class Outbound(Generic[T]):
    """`async with`: what was put is out, or has failed, when the block is left."""

    def __init__(
        self, send: Callable[[Sequence[T]], Coroutine[None, None, Obstacle | None]]
    ) -> None:
        self._send = send
        self._task: asyncio.Task[Obstacle | None] | None = None
        self._obstacle: Obstacle | None = None

    def put(self, items: Sequence[T]) -> None:
        """Begin to send; RuntimeError unless what was put before is `settled`."""
        if self._task is not None:
            raise RuntimeError("something is on its way already")
        if items:
            self._task = asyncio.create_task(self._send(items))

    async def settled(self) -> Obstacle | None:
        """Wait for what is on its way; what stopped it, or anything before it, if anything did."""
        if self._task is not None:
            # Awaiting passes a cancellation on to it: nothing is left running behind.
            self._obstacle = await self._task
            self._task = None
        return self._obstacle

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is None:
            return
        if isinstance(error, asyncio.CancelledError):
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=error is not None)

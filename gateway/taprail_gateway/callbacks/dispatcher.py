"""The dispatcher: keeps the outbox's lease, and a loop for each of its queues.

One gateway dispatches for all on a ledger; when it ends, another takes the lease over. All that
matters is in the ledger, so a loop that was cut off anywhere goes on from there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random
from typing import Any, Final

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_common.errors import TapRailError
from taprail_gateway.backoff import Backoff
from taprail_gateway.callbacks.line import Line
from taprail_gateway.ledger import leases
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease, LeaseLostError
from taprail_gateway.wakeups import Listener, Wakeups

LEASE: Final = "callbacks"

RENEW_MS: Final = 3_000
"""Three times within a lease's life, so that one slow commit loses nothing."""

GATHER_S: Final = 0.02
"""Rows that end together are followed by one look."""

LOOK_EVERY_MS: Final = 1_000
"""The longest that a row waits when nobody rang: another gateway may have written it."""

_PAUSE: Final = Backoff(first_ms=100, longest_ms=5_000)

_log = structlog.get_logger("callbacks")


class Dispatcher:
    """One gateway's dispatcher. `start` and `stop`; tests turn it by `take_lease` and `tick`."""

    def __init__(
        self,
        ledger: Ledger,
        lines: Sequence[Line[Any]],
        clock: Clock,
        wakeups: Wakeups,
        random: Random,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._random = random
        self._bell = wakeups.callbacks
        self._owner = secrets.token_hex(8)
        self._lease: Lease | None = None
        self._lines = lines
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_ours(self) -> bool:
        """Whether this gateway dispatches, as far as it knows."""
        return self._lease is not None

    async def start(self) -> None:
        """Begin, unless there is nobody to be told."""
        if not self._lines:
            return
        loops: dict[str, Callable[[], Awaitable[None]]] = {LEASE: self._keep_lease}
        for line in self._lines:
            loops[line.name] = partial(self._serve, line, self._bell.listen())
        self._tasks = [
            asyncio.create_task(self._supervise(loop, step)) for loop, step in loops.items()
        ]

    async def stop(self) -> None:
        """End wherever it is; what was being handed on is handed on again by whoever is next."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for line in self._lines:
            await line.stop()
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            await self._ledger.write(partial(leases.release, lease=lease))
        except TapRailError as exc:
            # Another's already, or the storage is away: then it ends by itself.
            _log.warning("callbacks.lease_kept", reason=str(exc))

    async def take_lease(self) -> bool:
        """Take or renew the right to dispatch; False while another gateway has it."""
        if self._lease is None:
            self._lease = await self._ledger.write(self._acquire)
            if self._lease is not None:
                _log.info("callbacks.lease_taken", fence=self._lease.fence)
                self._bell.ring()
            return self._lease is not None
        renew = partial(leases.renew, lease=self._lease, now_ms=self._clock.now_ms())
        try:
            await self._ledger.write(renew)
        except LeaseLostError:
            self._lose()
        return self._lease is not None

    async def tick(self) -> None:
        """Hand on what is due, a batch of each queue; nothing while another gateway dispatches."""
        for line in self._lines:
            await self._under_lease(line.tick)

    def _acquire(self, connection: Connection) -> Lease | None:
        now_ms, takeover = self._clock.now_ms(), self._ledger.is_exclusive
        return leases.acquire(connection, LEASE, self._owner, now_ms, takeover=takeover)

    def _lose(self) -> None:
        self._lease = None
        _log.error("callbacks.lease_lost")

    async def _under_lease(self, step: Callable[[Lease], Awaitable[int | None]]) -> int:
        """One step of a line; how long it may rest then, in ms."""
        lease = self._lease
        if lease is None:
            return LOOK_EVERY_MS
        try:
            next_ms = await step(lease)
        except LeaseLostError:
            if self._lease is lease:
                self._lose()
            return LOOK_EVERY_MS
        return LOOK_EVERY_MS if next_ms is None else min(next_ms, LOOK_EVERY_MS)

    async def _keep_lease(self) -> None:
        await self.take_lease()
        await asyncio.sleep(RENEW_MS / 1000)

    async def _serve(self, line: Line[Any], bell: Listener) -> None:
        bell.clear()  # before looking: what comes meanwhile rings again
        await bell.wait(await self._under_lease(partial(line.begin, on_end=bell.ring)))
        await asyncio.sleep(GATHER_S)

    async def _supervise(self, loop: str, step: Callable[[], Awaitable[None]]) -> None:
        """Call for ever; after an error pause, ever longer."""
        failures = 0
        while True:
            try:
                await step()
            except TapRailError as exc:
                _log.warning("callbacks.hindered", loop=loop, reason=str(exc))
            except Exception:  # noqa: BLE001 - a supervised loop: nobody else would hear of it
                _log.exception("callbacks.bug", loop=loop)
            else:
                failures = 0
                continue
            failures += 1
            await asyncio.sleep(_PAUSE.wait_ms(failures, self._random) / 1000)

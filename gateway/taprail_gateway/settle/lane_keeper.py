"""Which lanes this gateway may send from: takes their leases, renews them, gives them back.

A lane whose lease is lost is out of `leases` at once; what was begun for it fails at its next
write, because every write is guarded (see `ledger.leases`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_gateway.ledger import leases, queries
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease, LeaseLostError, lane_lease
from taprail_gateway.ledger.queries import Lane

RENEW_MS: Final = 3_000
"""Three times within a lease's life, so that one slow commit loses nothing."""

_log = structlog.get_logger("settle.lanes")


class LaneKeeper:
    """The leases of one gateway's lanes; those that it may not take are left to others."""

    def __init__(
        self, ledger: Ledger, clock: Clock, owner: str, may_take: Callable[[Lane], bool]
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._owner = owner
        self._may_take = may_take
        self._leases: dict[str, Lease] = {}
        self._purposes: dict[str, str] = {}
        self._has_looked = False

    @property
    def leases(self) -> Mapping[str, Lease]:
        """Lane address → lease, of the lanes that are ours now."""
        return self._leases

    @property
    def purposes(self) -> Mapping[str, str]:
        """Lane address → purpose, of the same lanes."""
        return {address: self._purposes[address] for address in self._leases}

    async def look(self) -> None:
        """Renew what is ours and take what is free; raises StorageError."""
        for address, lease in list(self._leases.items()):
            try:
                await self._ledger.write(
                    partial(leases.renew, lease=lease, now_ms=self._clock.now_ms())
                )
            except LeaseLostError:
                self.lose(address)
        await self._take_free()
        self._has_looked = True

    def lose(self, address: str) -> None:
        """Forget a lane that another gateway has taken."""
        if self._leases.pop(address, None) is not None:
            _log.error("settle.lane_lost", lane=address)

    async def give_back(self) -> None:
        """Let others have our lanes at once, instead of when the leases end."""
        while self._leases:
            _address, lease = self._leases.popitem()
            try:
                await self._ledger.write(partial(leases.release, lease=lease))
            except LeaseLostError:
                continue  # it is another's already

    async def _take_free(self) -> None:
        lanes = await self._ledger.read(queries.all_lanes)
        for lane in lanes:
            if lane.address not in self._leases and self._may_take(lane):
                lease = await self._ledger.write(partial(self._acquire, address=lane.address))
                if lease is not None:
                    self._leases[lane.address] = lease
                    self._purposes[lane.address] = lane.purpose
                    _log.debug("settle.lane_taken", lane=lane.address, fence=lease.fence)

    def _acquire(self, connection: Connection, *, address: str) -> Lease | None:
        return leases.acquire(
            connection,
            lane_lease(address),
            self._owner,
            self._clock.now_ms(),
            # At the start of the only process on a file, whoever else has a lease is dead.
            takeover=self._ledger.is_exclusive and not self._has_looked,
        )

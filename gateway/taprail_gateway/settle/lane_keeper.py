"""Which lanes this gateway may send from: takes their leases, renews them, gives them back.

Gateways on one ledger share its lanes alike: who has more than its share gives some back, and who
has less takes what is free. Beside them there is the one lease of whoever follows the accounts'
balances for all. What is lost is out of `leases` at once; what was begun for it fails at its next
write, because every write is guarded (see `ledger.leases`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import structlog

from taprail_common.clock import Clock
from taprail_gateway.ledger import leases, presence, queries
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease, LeaseLostError, lane_lease
from taprail_gateway.ledger.queries import Lane

RENEW_MS: Final = 3_000
"""Three times within a lease's life, so that one slow commit loses nothing."""

ACCOUNTS: Final = "accounts"
"""The lease of the gateway that follows the accounts (see `accounts`)."""

_log = structlog.get_logger("settle.lanes")


class LaneKeeper:
    """The leases of one gateway; lanes that it may not take are left to others."""

    def __init__(
        self, ledger: Ledger, clock: Clock, owner: str, may_take: Callable[[Lane], bool]
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._owner = owner
        self._may_take = may_take
        self._leases: dict[str, Lease] = {}
        self._purposes: dict[str, str] = {}
        self._accounts: Lease | None = None
        self._has_looked = False

    @property
    def leases(self) -> Mapping[str, Lease]:
        """Lane address → lease, of the lanes that are ours now."""
        return self._leases

    @property
    def purposes(self) -> Mapping[str, str]:
        """Lane address → purpose, of the same lanes."""
        return {address: self._purposes[address] for address in self._leases}

    @property
    def accounts(self) -> Lease | None:
        """The right to follow the accounts; None while another gateway has it."""
        return self._accounts

    async def look(self) -> None:
        """Renew what is ours and take what is free; raises StorageError."""
        for address, lease in list(self._leases.items()):
            if not await self._renew(lease):
                self.lose(address)
        if self._accounts is None:
            self._accounts = await self._acquire(ACCOUNTS)
        elif not await self._renew(self._accounts):
            self.lose_accounts()
        lanes = [it for it in await self._ledger.read(queries.all_lanes) if self._may_take(it)]
        gateways = await self._gateways()
        for purpose in sorted({lane.purpose for lane in lanes}):
            alike = [lane for lane in lanes if lane.purpose == purpose]
            share = math.ceil(len(alike) / gateways)
            await self._give_up_surplus(purpose, share)
            await self._take_free(alike, share)
        self._has_looked = True

    def lose(self, address: str) -> None:
        """Forget a lane that another gateway has taken."""
        if self._leases.pop(address, None) is not None:
            _log.error("settle.lane_lost", lane=address)

    def lose_accounts(self) -> None:
        """Forget the accounts, which another gateway follows now."""
        if self._accounts is not None:
            self._accounts = None
            _log.warning("settle.accounts_lost")

    async def give_back(self) -> None:
        """Let others have what is ours at once, instead of when the leases end."""
        given = [*self._leases.values(), *([self._accounts] if self._accounts else [])]
        self._leases.clear()
        self._accounts = None
        for lease in given:
            await self._release(lease)
        await self._ledger.write(partial(presence.leave, owner=self._owner))

    async def _gateways(self) -> int:
        """How many there are now to share the lanes."""
        if self._ledger.is_exclusive:
            return 1
        now_ms = self._clock.now_ms()
        return await self._ledger.write(partial(presence.attend, owner=self._owner, now_ms=now_ms))

    async def _give_up_surplus(self, purpose: str, share: int) -> None:
        held = [it for it in self._leases if self._purposes[it] == purpose]
        for address in held[share:]:
            # A step that is under way fails at its next write; what it has stored is sent again.
            lease = self._leases.pop(address)
            await self._release(lease)
            _log.info("settle.lane_shared", lane=address)

    async def _take_free(self, lanes: Sequence[Lane], share: int) -> None:
        for lane in lanes:
            if sum(it.address in self._leases for it in lanes) >= share:
                return
            if lane.address not in self._leases:
                lease = await self._acquire(lane_lease(lane.address))
                if lease is not None:
                    self._leases[lane.address] = lease
                    self._purposes[lane.address] = lane.purpose
                    _log.debug("settle.lane_taken", lane=lane.address, fence=lease.fence)

    async def _release(self, lease: Lease) -> None:
        with contextlib.suppress(LeaseLostError):  # it is another's already
            await self._ledger.write(partial(leases.release, lease=lease))

    async def _renew(self, lease: Lease) -> bool:
        now_ms = self._clock.now_ms()
        try:
            await self._ledger.write(partial(leases.renew, lease=lease, now_ms=now_ms))
        except LeaseLostError:
            return False
        return True

    async def _acquire(self, name: str) -> Lease | None:
        return await self._ledger.write(
            partial(
                leases.acquire,
                name=name,
                owner=self._owner,
                now_ms=self._clock.now_ms(),
                # At the start of the only process on a file, whoever else has a lease is dead.
                takeover=self._ledger.is_exclusive and not self._has_looked,
            )
        )

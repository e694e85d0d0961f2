"""Lets refunds go on that have waited for money, once their merchants' floats cover them.

It goes by the balances that `accounts` keeps, and is that gateway's business which keeps them. A
balance that has grown is the only thing that can help, so it looks after every look at the chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_gateway.ledger import floats, leases
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease, LeaseLostError
from taprail_gateway.settle.lane_keeper import LaneKeeper
from taprail_gateway.wakeups import Wakeups

_log = structlog.get_logger("settle.floats")


@dataclass(frozen=True, slots=True)
class FloatWatch:
    """Funds refunds for one confirmer."""

    ledger: Ledger
    clock: Clock
    keeper: LaneKeeper
    wakeups: Wakeups

    async def look(self) -> None:
        """Fund what is covered; where nothing waits it is one small question."""
        lease = self.keeper.accounts
        if lease is None or not await self.ledger.read(floats.want_attention):
            return
        try:
            covered = await self.ledger.write(partial(_fund, lease, self.clock.now_ms()))
        except LeaseLostError:
            self.keeper.lose_accounts()
            return
        if covered:
            _log.info("settle.refunds_covered", refunds=covered)
            self.wakeups.pending.ring()


def _fund(lease: Lease, at_ms: int, connection: Connection) -> list[str]:
    leases.guard(connection, lease)
    return floats.fund(connection, at_ms)

"""What all lanes of a gateway share: its ledger, its chain, its keys, the newest block."""

from __future__ import annotations

from dataclasses import dataclass, field

from taprail_common.clock import Clock
from taprail_gateway.custody import Custody
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.broadcast import Broadcaster
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.fee_watch import FeeWatch
from taprail_gateway.settle.heads import LatestHead
from taprail_gateway.settle.lane_keeper import LaneKeeper
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.settle.replies import Block


@dataclass(frozen=True, slots=True)
class Office:
    """One gateway's; every part is safe to be used by all loops at once."""

    ledger: Ledger
    chain: Chain
    custody: Custody
    live: LiveSettings
    clock: Clock
    broadcaster: Broadcaster
    keeper: LaneKeeper
    fee_watch: FeeWatch
    head: LatestHead = field(default_factory=LatestHead)

    async def current_head(self, age_s: float) -> Block:
        """A head that was seen within that time; asks a node only when no loop has seen one."""
        known = self.head.not_older_than(age_s, self.clock.monotonic_s())
        if known is not None:
            return known
        head = await self.chain.head()
        self.head.saw(head, self.clock.monotonic_s())
        return head

    async def final_block(self, head: Block) -> Block | None:
        """The newest block that counts as final by the settings; None on too short a chain."""
        return await self.chain.final_block(head, self.live.now.confirmations)

"""Notices that a block is gone on which the ledger was built, and takes back what stood in it.

At `confirmations = 1` the head itself counts as final, and chains do replace their head now and
then. What was completed in a block that is gone is `sent` again with its funds held, and its
transaction is open again: without the stored bytes the lane would wait for ever for a nonce that
nobody sends. It is an alarm, because a merchant was told that the money is there.

One block is compared in each pass, the one that the last pass was built on: whatever is in the
ledger stands in it or in its ancestors. When it is gone, and for a lane that is new to this process
(after a start, or from another gateway), every block is compared on which anything of the lane
stands, from the newest down, until a whole batch of them is still there.

A node may also be behind what the ledger stands on: it lags, or a new branch has still to grow. Or
it has lied about our nonces, and what the ledger calls final was never mined: that is sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_gateway.ledger import leases
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease, LeaseLostError
from taprail_gateway.ledger.standings import (
    Standing,
    is_finished,
    reopen_from,
    standings_below,
    take_back,
)
from taprail_gateway.settle.chain import MAX_BATCH, Chain
from taprail_gateway.settle.lane_keeper import LaneKeeper
from taprail_gateway.settle.replies import Block
from taprail_gateway.settle.view import HeldLane
from taprail_gateway.wakeups import Wakeups

_NO_END: Final = 2**62
# More than reorgs are deep that are not somebody's attack: six blocks and one to be seen.
_MAX_BLOCKS_BELOW: Final = 7

_log = structlog.get_logger("settle.reorgs")


@dataclass
class ReorgWatch:
    """Compares the chain with what it was. `look` comes first in every pass."""

    ledger: Ledger
    chain: Chain
    clock: Clock
    wakeups: Wakeups
    keeper: LaneKeeper
    is_behind: bool = field(default=False, init=False)
    """Whether the last look saw less of the chain than the ledger stands on. Then nothing may be
    concluded: a balance on a branch that has still to grow could be taken for the other branch's.
    """
    _anchor: Block | None = field(default=None, init=False)
    _below_from: int | None = field(default=None, init=False)
    """The lowest block since all that was seen is lower than the anchor."""
    _compared: set[str] = field(default_factory=set, init=False)
    """Lanes all of whose blocks were compared since they came to us."""

    async def look(self, block: Block, lanes: Sequence[HeldLane]) -> bool:
        """Whether the chain is another than at the last look, up to this confirmed block.

        If so, the ledger has followed it when this returns. Raises ChainError or StorageError;
        what was not taken back by then is found by the next look.
        """
        self._compared &= {held.lane.address for held in lanes}
        self.is_behind = self._is_below_anchor(block)
        if self.is_behind:
            return False  # a node that lags, or a new branch that has still to grow
        is_other = await self._is_other(block)
        if is_other:
            self._compared.clear()
        for held in lanes:
            try:
                if held.lane.address not in self._compared:
                    self.is_behind |= not await self._compare(held.lane.address, held.lease)
                await self._reopen_unused(held)
            except LeaseLostError:
                self.keeper.lose(held.lane.address)
        # Before anything is concluded at this block: what the pass writes stands in it.
        self._anchor = block
        return is_other

    def _is_below_anchor(self, block: Block) -> bool:
        if self._anchor is None or block.number >= self._anchor.number:
            self._below_from = None
            return False
        if self._below_from is None or block.number < self._below_from:
            self._below_from = block.number
        if block.number - self._below_from < _MAX_BLOCKS_BELOW:
            return True
        # It grows, and is still lower: a node had invented that block, or the depth was raised.
        self._anchor = self._below_from = None
        self._compared.clear()
        return False

    async def _is_other(self, block: Block) -> bool:
        anchor = self._anchor
        if anchor is None or await self._holds(anchor, block):
            return False
        # Another chain would look just like this, and everything would be taken back.
        self.chain.check_again()
        return not await self._holds(anchor, await self.chain.block(block.number))

    async def _holds(self, anchor: Block, block: Block) -> bool:
        """Whether a block is this one or an ancestor of it."""
        if anchor.number == block.number:
            return anchor.block_hash == block.block_hash
        if anchor.number == block.number - 1 and block.parent_hash:
            return anchor.block_hash == block.parent_hash
        return (await self.chain.block(anchor.number)).block_hash == anchor.block_hash

    async def _reopen_unused(self, held: HeldLane) -> None:
        """What is final has used up its nonce: else a node has lied, and the lane would wait for
        ever behind a transaction that nobody sends."""
        lane, nonce = held.lane.address, held.mined_at_head
        if not await self.ledger.read(partial(is_finished, lane=lane, nonce=nonce)):
            return

        def work(connection: Connection) -> None:
            leases.guard(connection, held.lease)
            reopen_from(connection, lane, nonce)

        await self.ledger.write(work)
        _log.error("settle.reopened", lane=lane, nonce=nonce)

    async def _compare(self, lane: str, lease: Lease) -> bool:
        """Whether the node has all blocks that the lane stands on, now that it stands on no other
        branch's."""
        below, all_known = _NO_END, True
        while True:
            standings = await self.ledger.read(
                partial(standings_below, lane=lane, below=below, limit=MAX_BATCH)
            )
            numbers = sorted({standing.number for standing in standings})
            found = dict(zip(numbers, await self.chain.blocks(numbers), strict=True))
            crash("confirm.standings_read")
            # A block that the node does not have yet may be there again tomorrow, or never.
            all_known &= None not in found.values()
            gone = [each for each in standings if _is_gone(each, found[each.number])]
            if gone:
                await self._take_back(lane, lease, gone)
            if not gone or len(standings) < MAX_BATCH:
                break
            below = numbers[0]
        if all_known:
            self._compared.add(lane)
        return all_known

    async def _take_back(self, lane: str, lease: Lease, gone: Sequence[Standing]) -> None:
        at_ms = self.clock.now_ms()

        def work(connection: Connection) -> list[str]:
            leases.guard(connection, lease)
            return take_back(connection, lane, gone, at_ms)

        lost = await self.ledger.write(work)
        crash("confirm.taken_back")
        _log.error(
            "settle.reorg",
            lane=lane,
            blocks=[gone[-1].number, gone[0].number],
            payments=len(lost),
            first=lost[:1],
        )
        self.wakeups.events.ring()


def _is_gone(standing: Standing, now: Block | None) -> bool:
    return now is not None and now.block_hash != standing.block_hash

"""The confirm loop's one step: what has the chain made of our payments?

One pass for each new block, over all lanes of this gateway. The number of its calls follows what
was mined, not what is in flight. Facts are read at the confirmed block (`confirmations`), so a
shallower reorg is never noticed here; a deeper one is taken back first (see `reorgs`). Every pass
starts from the ledger: nothing that matters is kept in memory. A call that fails ends its stage
before a conclusion is drawn from what it could not read; the next pass takes all up again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_common.errors import TapRailError
from taprail_gateway.ledger import queries, under_way
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease, LeaseLostError
from taprail_gateway.settle.accounts import AccountWatch
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.errors import ChainError
from taprail_gateway.settle.fates import FateReader
from taprail_gateway.settle.floats import FloatWatch
from taprail_gateway.settle.heads import BlockRhythm, Health, LatestHead
from taprail_gateway.settle.lane_keeper import LaneKeeper
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.settle.mined import MinedReader
from taprail_gateway.settle.payment_cargo import PaymentCargo
from taprail_gateway.settle.record import Recorder
from taprail_gateway.settle.reorgs import ReorgWatch
from taprail_gateway.settle.replies import Block
from taprail_gateway.settle.reviews import Reviewer
from taprail_gateway.settle.settler import Settler
from taprail_gateway.settle.stuck import Rescuer
from taprail_gateway.settle.view import HeldLane, View
from taprail_gateway.wakeups import Wakeups

# Nodes that are no archives keep the state of 128 blocks (geth and those that follow it).
_STATE_KEPT_BLOCKS: Final = 128
# After so many stages that failed the nodes or the disk are at fault: the others need not try.
_MAX_FAILED_STAGES: Final = 2


class Confirmer:
    """A gateway's confirmer. `tick` looks once; `rhythm` says when the next look is worth it."""

    def __init__(
        self,
        ledger: Ledger,
        chain: Chain,
        live: LiveSettings,
        clock: Clock,
        rescuer: Rescuer,
        head: LatestHead,
        wakeups: Wakeups,
        keeper: LaneKeeper,
    ) -> None:
        self._ledger = ledger
        self._chain = chain
        self._live = live
        self._keeper = keeper
        self._clock = clock
        self._rescuer = rescuer
        self._head = head
        record = Recorder(ledger, chain, clock, wakeups, keeper)
        fates = FateReader(ledger, chain)
        self._settler = Settler(ledger, chain, live, keeper, fates, record, MinedReader(chain))
        self._reviewer = Reviewer(ledger, chain, live, fates, record)
        self._accounts = AccountWatch(ledger, chain, keeper)
        self._floats = FloatWatch(ledger, clock, keeper, wakeups)
        self._reorgs = ReorgWatch(ledger, chain, clock, wakeups, keeper)
        self._health = Health()
        self.rhythm = BlockRhythm(lambda: self._longest_s)
        self._done_for: str | None = None
        self._done_at_s = 0.0

    async def tick(self) -> bool:
        """Look at the head, and do a pass if it is new or the last one is long ago.

        True: something is under way, so the next block is worth watching for. Raises ChainError or
        StorageError; nothing is lost by that.
        """
        try:
            head = await self._chain.head()
            crash("confirm.head_read")
            now_s = self._clock.monotonic_s()
            self._head.saw(head, now_s)
            if head.block_hash == self._done_for and now_s - self._done_at_s < self._longest_s:
                return True
            if head.block_hash != self._done_for:
                self.rhythm.saw(head, now_s)
            await self._pass(head)
            self._done_for, self._done_at_s = head.block_hash, self._clock.monotonic_s()
            self._health.worked(self._clock.now_ms(), self._clock.monotonic_s())
        except BaseException:
            self._health.failed()
            raise
        return await self._ledger.read(partial(under_way.is_any_open, lanes=list(self._leases)))

    @property
    def _leases(self) -> dict[str, Lease]:
        """Of our lanes that carry payments."""
        purposes = self._keeper.purposes
        return {
            address: lease
            for address, lease in self._keeper.leases.items()
            if purposes[address] == PaymentCargo.purpose
        }

    @property
    def _longest_s(self) -> float:
        return self._live.now.confirmation_interval_ms / 1000

    # --- one pass -----------------------------------------------------------------------------

    async def _pass(self, head: Block) -> None:
        block = await self._chain.final_block(head, self._live.now.confirmations)
        if block is None:
            return
        view = await self._look(head, block)
        if await self._reorgs.look(block, view.lanes):
            self._accounts.forget()
            self._settler.forget()
        if self._reorgs.is_behind:
            await self._rescue(view)
            return
        now_s = self._clock.monotonic_s()
        await _each_in_turn(
            [
                partial(self._settler.settle, view, now_s),
                partial(self._rescue, view),
                partial(self._reviewer.given_up, view, now_s),
                partial(self._reviewer.refused, view, now_s),
                lambda: self._accounts.look(block, self._settler.refreshed, now_s),
                self._floats.look,
            ]
        )
        # Only when all went well: nobody is late in a pass that could not see everything.
        await self._give_up_overdue(view, now_s)

    async def _look(self, head: Block, block: Block) -> View:
        """What is mined of the lanes that are ours, in one batch."""
        leases = self._leases
        counts: list[list[int]] = []
        if leases:
            try:
                counts = await self._chain.watermarks(
                    list(leases), sorted({head.number, block.number})
                )
            except ChainError as exc:
                raise _with_advice(exc, head.number - block.number) from exc
        crash("confirm.watermarks_read")
        # The chain before the ledger: what is mined by now was stored before, so that our own
        # newest transactions are never taken for a stranger's.
        rows = await self._ledger.read(queries.all_lanes)
        lanes = {lane.address: lane for lane in rows}
        held = [
            HeldLane(lanes[address], lease, mined_at_head=mined[-1], mined=mined[0])
            for (address, lease), mined in zip(leases.items(), counts, strict=True)
            if address in lanes
        ]
        return View(head, block, held)

    async def _rescue(self, view: View) -> None:
        """Help what the chain does not take, lane by lane: one's trouble is not another's."""

        async def look(held: HeldLane) -> None:
            try:
                await self._rescuer.look(held.lane, held.lease, view.head, held.mined_at_head)
            except LeaseLostError:
                self._keeper.lose(held.lane.address)

        await _each_in_turn([partial(look, held) for held in view.lanes], stop_after=None)

    async def _give_up_overdue(self, view: View, now_s: float) -> None:
        """Only after the chain was seen for as long: no payment is late while nodes are away."""
        now_ms = self._clock.now_ms()
        if self._health.lasted_s(now_ms, now_s) >= self._live.now.confirmation_timeout_s:
            await self._reviewer.overdue(view, now_ms)


async def _each_in_turn(
    steps: Sequence[Callable[[], Awaitable[None]]], stop_after: int | None = _MAX_FAILED_STAGES
) -> None:
    """Take all steps though some fail; then raise the first error, or the second at once."""
    failures: list[TapRailError] = []
    for step in steps:
        try:
            await step()
        except TapRailError as exc:
            failures.append(exc)
            if len(failures) == stop_after:
                break
    if failures:
        raise failures[0]


def _with_advice(exc: ChainError, depth: int) -> ChainError:
    """Say what may be wrong when a question about the state of an old block is refused."""
    if depth <= _STATE_KEPT_BLOCKS:
        return exc
    return ChainError(
        exc.message,
        fix=f"the confirmed block is {depth} deep, and most nodes have forgotten its state: "
        "use an archive node, or fewer confirmations",
        reply=exc.reply,
    )

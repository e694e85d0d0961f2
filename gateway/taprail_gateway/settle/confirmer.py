"""The confirm loop's one step: what has the chain made of our payments?

One pass for each new block, over all lanes of this gateway. The number of its calls follows what
was mined, not what is in flight. Facts are read at the confirmed block (`confirmations`), so a
shallower reorg is never noticed here; a deeper one is taken back first (see `reorgs`). Every pass
starts from the ledger: nothing that matters is kept in memory. A call that fails ends its stage
before a conclusion is drawn from what it could not read; the next pass takes all up again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_common.errors import TapRailError
from taprail_gateway.ledger import queries, under_way
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import LeaseLostError
from taprail_gateway.ledger.queries import BoundPayment
from taprail_gateway.settle import judge
from taprail_gateway.settle.accounts import AccountWatch
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.errors import ChainError
from taprail_gateway.settle.executions import Place, Transfer, executed
from taprail_gateway.settle.fates import FateReader, one_more_left_out
from taprail_gateway.settle.heads import BlockRhythm, Health, LatestHead
from taprail_gateway.settle.judge import Judgement, Step, transfer_of
from taprail_gateway.settle.lane_keeper import LaneKeeper
from taprail_gateway.settle.lanes import PauseCause, pause
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.settle.mined import AtHand, Landed, MinedReader, is_explained
from taprail_gateway.settle.record import Outcome, Recorder
from taprail_gateway.settle.reorgs import ReorgWatch
from taprail_gateway.settle.replies import Block
from taprail_gateway.settle.reviews import Reviewer
from taprail_gateway.settle.stuck import Rescuer
from taprail_gateway.settle.view import HeldLane, View
from taprail_gateway.wakeups import Wakeups

# Rounds of `confirmation_batch_size` transactions in one pass; the rest is for the next.
_MAX_ROUNDS: Final = 50
# A node's receipts may lag behind its nonces. Only after this many blocks without one is the nonce
# taken for a stranger's.
_BLOCKS_WITHOUT_RECEIPT: Final = 3
# Nodes that are no archives keep the state of 128 blocks (geth and those that follow it).
_STATE_KEPT_BLOCKS: Final = 128
# After so many stages that failed the nodes or the disk are at fault: the others need not try.
_MAX_FAILED_STAGES: Final = 2

_log = structlog.get_logger("settle.confirmer")


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
        self._record = Recorder(ledger, chain, clock, wakeups, keeper)
        self._mined = MinedReader(chain)
        self._fates = FateReader(ledger, chain)
        self._reviewer = Reviewer(ledger, chain, live, self._fates, self._record)
        self._accounts = AccountWatch(ledger, chain, keeper)
        self._reorgs = ReorgWatch(ledger, chain, clock, wakeups, keeper)
        self._health = Health()
        self.rhythm = BlockRhythm(lambda: self._longest_s)
        self._done_for: str | None = None
        self._done_at_s = 0.0
        self._refreshed: set[str] = set()
        self._without_receipt: dict[int, int] = {}

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
        return await self._ledger.read(
            partial(under_way.is_any_open, lanes=list(self._keeper.leases))
        )

    @property
    def _longest_s(self) -> float:
        return self._live.now.confirmation_interval_ms / 1000

    # --- one pass -----------------------------------------------------------------------------

    async def _pass(self, head: Block) -> None:
        block = await self._confirmed(head)
        if block is None:
            return
        view = await self._look(head, block)
        if await self._reorgs.look(block, view.lanes):
            self._accounts.forget()
            self._mined.forget()
            self._without_receipt.clear()
        if self._reorgs.is_behind:
            await self._rescue(view)
            return
        self._refreshed = set()
        now_s = self._clock.monotonic_s()
        await _each_in_turn(
            [
                partial(self._settle, view, now_s),
                partial(self._rescue, view),
                partial(self._reviewer.given_up, view, now_s),
                partial(self._reviewer.refused, view, now_s),
                lambda: self._accounts.look(block, self._refreshed, now_s),
            ]
        )
        # Only when all went well: nobody is late in a pass that could not see everything.
        await self._give_up_overdue(view, now_s)

    async def _confirmed(self, head: Block) -> Block | None:
        """The newest block that counts as final; None while the chain is too short."""
        wanted = self._live.now.confirmations
        if isinstance(wanted, str):
            final = await self._chain.head(wanted)
            return final if final.number < head.number else head  # a block may have come between
        number = head.number - wanted + 1
        if number < 0:
            return None
        return head if number == head.number else await self._chain.block(number)

    async def _look(self, head: Block, block: Block) -> View:
        """What is mined of the lanes that are ours, in one batch."""
        leases = dict(self._keeper.leases)
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
        lanes = {lane.address: lane for lane in rows if lane.purpose == "payments"}
        held = [
            HeldLane(lanes[address], lease, mined_at_head=mined[-1], mined=mined[0])
            for (address, lease), mined in zip(leases.items(), counts, strict=True)
            if address in lanes
        ]
        return View(head, block, held)

    async def _rescue(self, view: View) -> None:
        """Help what the chain does not take."""

        async def look(held: HeldLane) -> None:
            await self._rescuer.look(held.lane, held.lease, view.head, held.mined_at_head)

        await self._for_each_lane(view, look)

    async def _give_up_overdue(self, view: View, now_s: float) -> None:
        """Only after the chain was seen for as long: no payment is late while nodes are away."""
        now_ms = self._clock.now_ms()
        if self._health.lasted_s(now_ms, now_s) >= self._live.now.confirmation_timeout_s:
            await self._reviewer.overdue(view, now_ms)

    async def _for_each_lane(self, view: View, work: Callable[[HeldLane], Awaitable[None]]) -> None:
        """One lane's trouble is not another's: all have their turn, then the first error."""

        async def one(held: HeldLane) -> None:
            try:
                await work(held)
            except LeaseLostError:
                self._keeper.lose(held.lane.address)

        await _each_in_turn([partial(one, held) for held in view.lanes], stop_after=None)

    # --- transactions that are mined ----------------------------------------------------------

    async def _settle(self, view: View, now_s: float) -> None:
        await self._for_each_lane(view, self._pause_for_strangers)
        nonces = dict.fromkeys((held.lane.address for held in view.lanes), 0)
        for _ in range(_MAX_ROUNDS):
            at_hand = await self._ledger.read(
                partial(_at_hand, view=view, first_nonces=nonces, limit=self._limit)
            )
            if not at_hand:
                self._mined.done(view.block)
                return
            await self._settle_some(at_hand, view.block, now_s)
            for item in at_hand:
                nonces[item.transaction.lane] = item.transaction.nonce + 1

    @property
    def _limit(self) -> int:
        return self._live.now.confirmation_batch_size

    async def _pause_for_strangers(self, held: HeldLane) -> None:
        lane = held.lane
        if lane.next_nonce is not None and held.mined > lane.next_nonce:
            text = f"{held.mined} transactions are mined, only {lane.next_nonce} are ours"
            await pause(self._ledger, lane, PauseCause.FOREIGN_NONCE, text, lease=held.lease)

    async def _settle_some(self, at_hand: Sequence[AtHand], block: Block, now_s: float) -> None:
        """Complete at once what the logs show as paid; then find out about the rest."""
        moved = await self._mined.paid(at_hand, block, now_s)
        outcomes = _Outcomes(block)
        rest = []
        for item in at_hand:
            missing = outcomes.take_paid(item, moved)
            if is_explained(item, moved):
                self._without_receipt.pop(item.transaction.id, None)
                outcomes.of(item).finished.append(item.transaction.id)
            else:
                rest.append(AtHand(item.held, item.transaction, missing, item.versions))
        await self._write(outcomes)
        if rest:
            await self._settle_by_receipts(rest, block, now_s)

    async def _settle_by_receipts(
        self, at_hand: Sequence[AtHand], block: Block, now_s: float
    ) -> None:
        receipts = await self._mined.landed(at_hand, block)
        logs = [log for receipt in receipts.values() for log in receipt.logs]
        moved = executed(self._chain.token.address, logs)
        outcomes, left_out = _Outcomes(block), []
        for item in at_hand:
            missing = outcomes.take_paid(item, moved)
            receipt = receipts.get(item.transaction.id)
            if receipt is None and not await self._is_strangers(item, block):
                continue
            self._without_receipt.pop(item.transaction.id, None)
            if missing:
                rest = AtHand(item.held, item.transaction, missing, item.versions)
                left_out.append(Landed(rest, receipt))
            else:
                outcomes.of(item).finished.append(item.transaction.id)
        await self._write(outcomes)
        if left_out:
            await self._settle_left_out(left_out, block, now_s)

    async def _is_strangers(self, item: AtHand, block: Block) -> bool:
        """Whether a nonce without any receipt of ours must be a stranger's; raises the alarm."""
        first = self._without_receipt.setdefault(item.transaction.id, block.number)
        if block.number - first < _BLOCKS_WITHOUT_RECEIPT:
            return False
        text = f"nonce {item.transaction.nonce} was used by a transaction that is not ours"
        held = item.held
        try:
            await pause(self._ledger, held.lane, PauseCause.FOREIGN_NONCE, text, lease=held.lease)
        except LeaseLostError:
            self._keeper.lose(held.lane.address)
            return False
        return True

    async def _settle_left_out(
        self, left_out: Sequence[Landed], block: Block, now_s: float
    ) -> None:
        payments = [payment for item in left_out for payment in item.at_hand.payments]
        facts = await self._fates.read(payments, block, now_s)
        payers = sorted({payment.payer for payment in payments})
        balances = await self._chain.balances(payers, block.number)
        outcomes = _Outcomes(block)
        for item in left_out:
            outcome = outcomes.of(item.at_hand)
            for payment in item.at_hand.payments:
                known = facts[payment.id]
                if item.had_its_chance:
                    known = one_more_left_out(known)
                why = judge.why_left_out(payment, outcome=item.outcome, balances=balances)
                outcome.verdicts.add(payment, judge.left_out(payment, known, why))
            if outcome.verdicts.waiting.isdisjoint(each.id for each in item.at_hand.payments):
                outcome.finished.append(item.at_hand.transaction.id)
        await self._write(outcomes)

    async def _write(self, outcomes: _Outcomes) -> None:
        self._refreshed |= await self._record.write(outcomes.all())


class _Outcomes:
    """What is to be written, a commit for each lane."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._of: dict[str, Outcome] = {}

    def all(self) -> list[Outcome]:
        return list(self._of.values())

    def of(self, item: AtHand) -> Outcome:
        address = item.held.lane.address
        if address not in self._of:
            self._of[address] = Outcome(self._block, item.held.lease)
        return self._of[address]

    def take_paid(self, item: AtHand, moved: Mapping[Transfer, Place]) -> list[BoundPayment]:
        """File those of its payments that were paid; gives the others."""
        missing = []
        for payment in item.payments:
            place = moved.get(transfer_of(payment))
            if place is None:
                missing.append(payment)
            else:
                self.of(item).verdicts.add(payment, Judgement(Step.CONFIRM, place=place))
        return missing


def _at_hand(
    connection: Connection, *, view: View, first_nonces: Mapping[str, int], limit: int
) -> list[AtHand]:
    """The next transactions that are mined at the confirmed block, fairly from all lanes."""
    each = max(1, limit // max(1, len(view.lanes)))
    mined = [
        (held, item)
        for held in view.lanes
        for item in under_way.open_transactions_between(
            connection, held.lane.address, first_nonces[held.lane.address], held.mined, each
        )
    ]
    ids = [item.id for _, item in mined]
    if not ids:
        return []
    payments = under_way.unsettled(connection, ids)
    versions = under_way.versions(connection, ids)
    return [AtHand(held, item, payments[item.id], versions[item.id]) for held, item in mined]


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

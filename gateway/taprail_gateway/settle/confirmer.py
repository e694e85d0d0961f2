"""The confirm loop's one step: what has the chain made of our payments?

For each new block a bounded number of calls, however many payments are under way. Facts are read
at the confirmed block (`confirmations` deep), so a shallower reorg is never noticed here; a deeper
one is taken back first (see `reorgs`). Every pass starts from the ledger: nothing that matters is
kept in memory. Any call that fails ends the
pass before a conclusion is drawn from what it could not read; the next pass takes all up again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_common.payment_state import SETTLED, PaymentState
from taprail_gateway.ledger import queries
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.queries import BoundPayment, Lane, OpenTransaction, RawAttempt
from taprail_gateway.settle import judge
from taprail_gateway.settle.accounts import AccountWatch
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.executions import executed
from taprail_gateway.settle.fates import read_fates
from taprail_gateway.settle.heads import BlockRhythm, LatestHead
from taprail_gateway.settle.judge import Judgement, Step, Verdicts, transfer_of
from taprail_gateway.settle.lane_keeper import LaneKeeper
from taprail_gateway.settle.lanes import PauseCause, pause, the_lane
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.settle.record import Outcome, Recorder
from taprail_gateway.settle.reorgs import ReorgWatch
from taprail_gateway.settle.replies import Block, Receipt
from taprail_gateway.settle.stuck import Rescuer
from taprail_gateway.wakeups import Wakeups

# Bounds of one pass; what exceeds them is for the next, which follows at once.
_MAX_TRANSACTIONS: Final = 200
_MAX_REVIEWED: Final = 500
# A node's receipts may lag behind its nonces. Only after this many blocks without one is the nonce
# taken for a stranger's.
_BLOCKS_WITHOUT_RECEIPT: Final = 3

_log = structlog.get_logger("settle.confirmer")


@dataclass(frozen=True, slots=True)
class _Mined:
    """A transaction whose nonce is mined at the confirmed block, and what travelled in it."""

    transaction: OpenTransaction
    receipt: Receipt | None
    payments: list[BoundPayment]

    @property
    def outer_ran(self) -> bool:
        return self.receipt is not None and self.receipt.succeeded


class Confirmer:
    """One lane's confirmer. `tick` looks once; `rhythm` says when the next look is worth it."""

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
        self._record = Recorder(ledger, chain, clock, wakeups)
        self._accounts = AccountWatch(ledger, chain)
        self._reorgs = ReorgWatch(ledger, chain, clock, wakeups)
        self.rhythm = BlockRhythm(live.now.confirmation_interval_ms / 1000)
        self._done_for: str | None = None
        self._done_at_s = 0.0
        self._healthy_since_ms: int | None = None
        self._first_block_without_receipt: dict[int, int] = {}

    async def tick(self) -> bool:
        """Look at the head, and do a pass if it is new or the last one is long ago.

        True: something is under way, so the next block is worth watching for. Raises ChainError or
        StorageError; nothing is lost by that.
        """
        try:
            head = await self._chain.head()
            now_s = self._clock.monotonic_s()
            self._head.saw(head, now_s)
            age_s = now_s - self._done_at_s
            if head.block_hash == self._done_for and age_s < self._longest_s:
                return True
            if head.block_hash != self._done_for:
                self.rhythm.saw(head, now_s)
            under_way = await self._pass(head)
        except BaseException:
            self._healthy_since_ms = None
            raise
        self._done_for, self._done_at_s = head.block_hash, self._clock.monotonic_s()
        if self._healthy_since_ms is None:
            self._healthy_since_ms = self._clock.now_ms()
        return under_way

    @property
    def _longest_s(self) -> float:
        return self._live.now.confirmation_interval_ms / 1000

    async def _confirmed(self, head: Block) -> Block | None:
        """The newest block that counts as final; None while the chain is too short."""
        wanted = self._live.now.confirmations
        if isinstance(wanted, str):
            return await self._chain.head(wanted)
        number = head.number - wanted + 1
        if number < 0:
            return None
        return head if number == head.number else await self._chain.block(number)

    async def _pass(self, head: Block) -> bool:
        block = await self._confirmed(head)
        if block is None:
            return True
        number = block.number
        if await self._reorgs.look(block):
            self._accounts.forget()
        lane = await self._ledger.read(the_lane)
        # The chain before the ledger: what is mined by now was stored before, so that our own
        # newest transactions are never taken for a stranger's.
        mined_at_head, mined = await self._chain.transaction_counts(
            lane.address, [head.number, number]
        )
        under_way = await self._settle_mined(block, mined)
        await self._review(block)
        await self._give_up_overdue(block)
        await self._rescue(head, mined_at_head)
        await self._accounts.look(block)
        return under_way

    # --- transactions that are mined ----------------------------------------------------------

    async def _settle_mined(self, block: Block, mined: int) -> bool:
        lane, open_ones = await self._ledger.read(_lane_and_open)
        if lane.next_nonce is not None and mined > lane.next_nonce:
            text = f"{mined} transactions are mined, only {lane.next_nonce} are ours"
            await pause(self._ledger, lane, PauseCause.FOREIGN_NONCE, text)
        final = [item for item in open_ones if item.nonce < mined][:_MAX_TRANSACTIONS]
        if not final:
            return bool(open_ones)
        known = await self._read_receipts(lane, final, block)
        await self._settle(known, block)
        return True

    async def _read_receipts(
        self, lane: Lane, final: Sequence[OpenTransaction], block: Block
    ) -> list[_Mined]:
        """Those of the transactions whose outcome is certain at this block."""
        versions, payments = await self._ledger.read(
            partial(_travellers, ids=[item.id for item in final])
        )
        hashes = [version.tx_hash for each in versions.values() for version in each]
        receipts = await self._chain.receipts(hashes)
        known = []
        for item in final:
            landed = [receipts[v.tx_hash] for v in versions[item.id] if v.tx_hash in receipts]
            receipt = landed[0] if landed else None
            if receipt is not None and receipt.block_number > block.number:
                continue
            if receipt is None and not await self._is_foreign(lane, item, block):
                continue
            self._first_block_without_receipt.pop(item.id, None)
            known.append(_Mined(item, receipt, payments[item.id]))
        return known

    async def _is_foreign(self, lane: Lane, item: OpenTransaction, block: Block) -> bool:
        """Whether a nonce without any receipt of ours must be a stranger's; raises the alarm."""
        first = self._first_block_without_receipt.setdefault(item.id, block.number)
        if block.number - first < _BLOCKS_WITHOUT_RECEIPT:
            return False
        text = f"nonce {item.nonce} was used by a transaction that is not ours"
        await pause(self._ledger, lane, PauseCause.FOREIGN_NONCE, text)
        return True

    async def _settle(self, known: Sequence[_Mined], block: Block) -> None:
        """Complete what was paid at once; then find out about the rest, and write that."""
        paid, rest = Outcome(block), []
        for item in known:
            missing = _take_paid(item, self._chain.token.address, paid.verdicts)
            if missing:
                rest.append(_Mined(item.transaction, item.receipt, missing))
            else:
                paid.finished.append(item.transaction.id)
        await self._record.write(paid)
        if rest:
            await self._settle_left_out(rest, block)

    async def _settle_left_out(self, rest: Sequence[_Mined], block: Block) -> None:
        payments = [payment for item in rest for payment in item.payments]
        facts = await read_fates(self._chain, payments, block)
        payers = sorted({payment.payer for payment in payments})
        balances = await self._chain.balances(payers, block.number)
        outcome = Outcome(block)
        for item in rest:
            for payment in item.payments:
                why = judge.why_left_out(payment, outer_ran=item.outer_ran, balances=balances)
                outcome.verdicts.add(payment, judge.left_out(payment, facts[payment.id], why))
            if outcome.verdicts.waiting.isdisjoint(payment.id for payment in item.payments):
                outcome.finished.append(item.transaction.id)
        await self._record.write(outcome)

    # --- what is given up, and what has been ---------------------------------------------------

    async def _review(self, block: Block) -> None:
        """Look again at the list for manual review: paid after all, to be sent again, or never?"""
        listed, ends_s = await self._ledger.read(partial(_given_up, before_ms=block.time_s * 1000))
        due = [payment for payment in listed if ends_s.get(payment.id, 0) < block.time_s]
        if not due:
            return
        facts = await read_fates(self._chain, due, block)
        outcome = Outcome(block)
        for payment in due:
            outcome.verdicts.add(payment, judge.expired(payment, facts[payment.id]))
        await self._record.write(outcome)

    async def _give_up_overdue(self, block: Block) -> None:
        """Put what is not confirmed by its deadline on the list; not while the nodes were away."""
        if self._healthy_since_ms is None:
            return
        timeout_ms = self._live.now.confirmation_timeout_s * 1000
        now_ms = self._clock.now_ms()
        if now_ms - self._healthy_since_ms < timeout_ms:
            return
        overdue = await self._ledger.read(partial(_overdue, before_ms=now_ms - timeout_ms))
        outcome = Outcome(block)
        reason = f"not confirmed within {self._live.now.confirmation_timeout_s} s"
        for payment in overdue:
            outcome.verdicts.add(payment, Judgement(Step.GIVE_UP, reason=reason))
        await self._record.write(outcome)

    async def _rescue(self, head: Block, mined: int) -> None:
        """Help what the chain does not take; a lane that another gateway has is left to it."""
        lane = await self._ledger.read(the_lane)
        lease = self._keeper.leases.get(lane.address)
        if lease is not None:
            await self._rescuer.look(lane, lease, head, mined)


def _take_paid(item: _Mined, token: str, verdicts: Verdicts) -> list[BoundPayment]:
    """File those payments that this very transaction paid; gives the others."""
    logs = item.receipt.logs if item.receipt is not None else ()
    moved = executed(token, logs)
    missing = []
    for payment in item.payments:
        place = moved.get(transfer_of(payment))
        if place is None:
            missing.append(payment)
        else:
            verdicts.add(payment, Judgement(Step.CONFIRM, place=place))
    return missing


def _lane_and_open(connection: Connection) -> tuple[Lane, list[OpenTransaction]]:
    lane = the_lane(connection)
    return lane, queries.open_transactions(connection, lane.address)


def _travellers(
    connection: Connection, *, ids: Sequence[int]
) -> tuple[dict[int, list[RawAttempt]], dict[int, list[BoundPayment]]]:
    """Every version of each transaction, and the payments in it that are not settled."""
    unsettled = {
        transaction: [payment for payment in payments if payment.state not in SETTLED]
        for transaction, payments in queries.payments_of(connection, ids).items()
    }
    return queries.raw_attempts(connection, ids), unsettled


def _given_up(
    connection: Connection, *, before_ms: int
) -> tuple[list[BoundPayment], dict[str, int]]:
    """The list for manual review, and until when each one's authorizations are valid."""
    listed = queries.bound_payments(
        connection, PaymentState.CONFIRMATION_FAILED, _MAX_REVIEWED, before_ms=before_ms
    )
    return listed, queries.valid_before_s(connection, [payment.id for payment in listed])


def _overdue(connection: Connection, *, before_ms: int) -> list[BoundPayment]:
    return [
        payment
        for state in sorted(judge.TRAVELLING)
        for payment in queries.bound_payments(connection, state, _MAX_REVIEWED, before_ms=before_ms)
    ]

"""Settles transactions that are mined at the confirmed block, and the payments in them.

Three steps, each for what the one before has left open: the token's logs, the receipts of every
version, the state of the authorizations. Whatever is concluded is written at once, a commit for
each lane; what a step could not read is left as it is for the next pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from sqlalchemy import Connection

from taprail_gateway.ledger import under_way
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import LeaseLostError
from taprail_gateway.ledger.queries import BoundPayment
from taprail_gateway.settle import judge
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.executions import Place, Transfer, executed
from taprail_gateway.settle.fates import FateReader, one_more_left_out
from taprail_gateway.settle.judge import Judgement, Step, transfer_of
from taprail_gateway.settle.lane_keeper import LaneKeeper
from taprail_gateway.settle.lanes import PauseCause, pause
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.settle.mined import AtHand, Landed, MinedReader, is_explained
from taprail_gateway.settle.record import Outcome, Recorder
from taprail_gateway.settle.replies import Block
from taprail_gateway.settle.view import HeldLane, View

# Rounds of `confirmation_batch_size` transactions in one pass; the rest is for the next.
_MAX_ROUNDS: Final = 50
# A node's receipts may lag behind its nonces. Only after this many blocks without one is the nonce
# taken for a stranger's.
_BLOCKS_WITHOUT_RECEIPT: Final = 3


@dataclass
class Settler:
    """Settles for one confirmer."""

    ledger: Ledger
    chain: Chain
    live: LiveSettings
    keeper: LaneKeeper
    fates: FateReader
    record: Recorder
    mined: MinedReader
    refreshed: set[str] = field(default_factory=set, init=False)
    """Accounts whose balances the last pass has brought up to its block."""
    _without_receipt: dict[int, int] = field(default_factory=dict, init=False)
    """Transaction → the block at which it was first missed."""

    def forget(self) -> None:
        """The blocks that were read are gone."""
        self.mined.forget()
        self._without_receipt.clear()

    async def settle(self, view: View, now_s: float) -> None:
        """Take up all that is mined, within a bound; raises ChainError or StorageError."""
        self.refreshed = set()
        for held in view.lanes:
            await self._pause_for_strangers(held)
        nonces = dict.fromkeys((held.lane.address for held in view.lanes), 0)
        for _ in range(_MAX_ROUNDS):
            limit = self.live.now.confirmation_batch_size
            at_hand = await self.ledger.read(
                partial(_at_hand, view=view, first_nonces=nonces, limit=limit)
            )
            if not at_hand:
                self.mined.done(view.block)
                return
            await self._settle_some(at_hand, view.block, now_s)
            for item in at_hand:
                nonces[item.transaction.lane] = item.transaction.nonce + 1

    async def _pause_for_strangers(self, held: HeldLane) -> None:
        lane = held.lane
        if lane.next_nonce is not None and held.mined > lane.next_nonce:
            text = f"{held.mined} transactions are mined, only {lane.next_nonce} are ours"
            await self._pause(held, text)

    async def _pause(self, held: HeldLane, text: str) -> bool:
        """Whether the lane was ours to be paused."""
        try:
            await pause(self.ledger, held.lane, PauseCause.FOREIGN_NONCE, text, lease=held.lease)
        except LeaseLostError:
            self.keeper.lose(held.lane.address)
            return False
        return True

    async def _settle_some(self, at_hand: Sequence[AtHand], block: Block, now_s: float) -> None:
        """Complete at once what the logs show as paid; then find out about the rest."""
        moved = await self.mined.paid(at_hand, block, now_s)
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
        receipts = await self.mined.landed(at_hand, block)
        logs = [log for receipt in receipts.values() for log in receipt.logs]
        moved = executed(self.chain.token.address, logs)
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
        return await self._pause(item.held, text)

    async def _settle_left_out(
        self, left_out: Sequence[Landed], block: Block, now_s: float
    ) -> None:
        payments = [payment for item in left_out for payment in item.at_hand.payments]
        facts = await self.fates.read(payments, block, now_s)
        payers = sorted({payment.payer for payment in payments})
        balances = await self.chain.balances(payers, block.number)
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
        self.refreshed |= await self.record.write(outcomes.all())


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

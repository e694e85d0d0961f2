"""The rewards lanes' confirmation: what has the chain made of our mints?

Like the payments' confirmer it looks once at each new block, at the confirmed depth, with calls
whose number follows what was mined and not what waits. It is simpler, because the contract skips
what it has minted before: a mint that its transaction did not make is sent again without proof.
What goes wrong here is bounded for each mint, told by an alert, and touches no payment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

import structlog
from sqlalchemy import Connection

from taprail_common.crash import crash
from taprail_common.payment_state import PaymentEvent
from taprail_gateway.backoff import Backoff
from taprail_gateway.ledger import leases, mints, queries, under_way
from taprail_gateway.ledger.alerts import clear_alert, raise_alert
from taprail_gateway.ledger.leases import Lease, LeaseLostError
from taprail_gateway.ledger.mints import Mint
from taprail_gateway.ledger.nonces import finish_transactions
from taprail_gateway.ledger.queries import Lane
from taprail_gateway.settle.lanes import PauseCause, pause
from taprail_gateway.settle.mined import AtHand, Landed, MinedReader
from taprail_gateway.settle.mint_calls import rewarded
from taprail_gateway.settle.office import Office
from taprail_gateway.settle.reorgs import ReorgWatch
from taprail_gateway.settle.replies import Block, Receipt
from taprail_gateway.settle.stuck import Rescuer
from taprail_gateway.settle.view import HeldLane
from taprail_gateway.wakeups import Wakeups

MAX_BINDINGS: Final = 6
"""Transactions for one mint: with the waits below a quarter of an hour passes on average."""

BACKOFF: Final = Backoff(first_ms=60_000, longest_ms=60 * 60_000)
"""After a transaction that did not mint: each costs gas, and what is wrong must be put right."""

HINDERED_ALERT: Final = "rewards_hindered"

_MAX_TRANSACTIONS: Final = 200
"""Of a lane, looked at in one pass; what exceeds them is for the next."""

_BLOCKS_WITHOUT_RECEIPT: Final = 3
"""A node's receipts may lag behind its nonces; then a nonce without any is a stranger's."""

_SHOWN: Final = 20
"""Ids in one line of the log."""

_log = structlog.get_logger("settle.rewards")


@dataclass(frozen=True, slots=True)
class _Judged:
    """A transaction that is done with: the mints that it made, and those that it did not."""

    landed: Landed
    made: list[str]
    left_out: list[Mint]


class RewardConfirmer:
    """Judges the mints of one gateway's rewards lanes. `tick` looks once."""

    def __init__(
        self,
        office: Office,
        contract: str,
        rescuer: Rescuer,
        wakeups: Wakeups,
    ) -> None:
        self._office = office
        self._ledger = office.ledger
        self._chain = office.chain
        self._clock = office.clock
        self._keeper = office.keeper
        self._contract = contract
        self._rescuer = rescuer
        self._random = Random()  # noqa: S311 - spreads retries; nobody is to be kept from guessing it
        self._mined = MinedReader(office.chain)
        self._reorgs = ReorgWatch(office.ledger, office.chain, office.clock, wakeups, office.keeper)
        self._first_without_receipt: dict[int, int] = {}
        self._done_for: str | None = None

    async def tick(self) -> None:
        """Look at the head, and do a pass if it is new.

        Raises ChainError or StorageError; nothing is lost by that.
        """
        if not await self._ledger.read(self._our_lanes):
            return
        head = await self._chain.head()
        if head.block_hash == self._done_for:
            return
        block = await self._office.final_block(head)
        if block is not None:
            await self._pass(head, block)
        self._done_for = head.block_hash

    async def _pass(self, head: Block, block: Block) -> None:
        lanes = await self._look(head, block)
        await self._reorgs.look(block, lanes)
        for held in lanes:
            try:
                await self._take_back(held)
                await self._settle(held, block)
                await self._rescuer.look(held.lane, held.lease, head, held.mined_at_head)
            except LeaseLostError:
                self._keeper.lose(held.lane.address)

    async def _look(self, head: Block, block: Block) -> list[HeldLane]:
        """What is mined of our lanes. The chain is asked before the ledger is read again: what is
        mined by then was stored before."""
        addresses = [lane.address for lane in await self._ledger.read(self._our_lanes)]
        numbers = sorted({block.number, head.number})
        counts = await self._chain.watermarks(addresses, numbers)
        mined = dict(zip(addresses, counts, strict=True))
        leases_now = dict(self._keeper.leases)
        return [
            HeldLane(
                lane,
                leases_now[lane.address],
                mined_at_head=mined[lane.address][-1],
                mined=mined[lane.address][0],
            )
            for lane in await self._ledger.read(self._our_lanes)
            if lane.address in mined and lane.address in leases_now
        ]

    def _our_lanes(self, connection: Connection) -> list[Lane]:
        return [
            lane
            for lane in queries.all_lanes(connection)
            if lane.purpose == "rewards" and lane.address in self._keeper.leases
        ]

    async def _take_back(self, held: HeldLane) -> None:
        """What was minted in a block that is gone is under way again, with its transaction."""
        lost = await self._ledger.read(partial(mints.completed_in_open, lane=held.lane.address))
        if not lost:
            return
        at_ms = self._clock.now_ms()

        def work(connection: Connection) -> None:
            leases.guard(connection, held.lease)
            mints.apply(connection, PaymentEvent.REORG, lost, at_ms)

        await self._ledger.write(work)
        _log.error("rewards.reorg", mints=len(lost), payments=lost[:_SHOWN])

    async def _settle(self, held: HeldLane, block: Block) -> None:
        at_hand, travelling = await self._ledger.read(partial(_at_hand, held=held))
        if not at_hand:
            return
        receipts = await self._mined.landed(at_hand, block)
        judged = [
            self._judge(Landed(item, receipt), travelling[item.transaction.id])
            for item in at_hand
            if (receipt := receipts.get(item.transaction.id)) is not None
            or await self._is_strangers(item, block)
        ]
        if judged:
            await self._ledger.write(partial(self._store, held.lease, block, judged))
            crash("rewards.judged")
            _tell(judged)

    def _judge(self, landed: Landed, travelling: Sequence[Mint]) -> _Judged:
        self._first_without_receipt.pop(landed.at_hand.transaction.id, None)
        logs = landed.receipt.logs if landed.receipt is not None else ()
        found = rewarded(self._contract, logs)
        return _Judged(
            landed,
            [mint.payment_id for mint in travelling if mint.payment_id in found],
            [mint for mint in travelling if mint.payment_id not in found],
        )

    async def _is_strangers(self, item: AtHand, block: Block) -> bool:
        """Whether a nonce without any receipt of ours must be a stranger's; raises the alarm."""
        first = self._first_without_receipt.setdefault(item.transaction.id, block.number)
        if block.number - first < _BLOCKS_WITHOUT_RECEIPT:
            return False
        text = f"nonce {item.transaction.nonce} was used by a transaction that is not ours"
        held = item.held
        await pause(self._ledger, held.lane, PauseCause.FOREIGN_NONCE, text, lease=held.lease)
        return True

    # --- one commit -----------------------------------------------------------------------------

    def _store(
        self, lease: Lease, block: Block, judged: Sequence[_Judged], connection: Connection
    ) -> None:
        leases.guard(connection, lease)
        at_ms = self._clock.now_ms()
        for item in judged:
            receipt, why = item.landed.receipt, item.landed.outcome
            if receipt is not None and item.made:
                _confirm(connection, item.made, receipt, at_ms)
                clear_alert(connection, HINDERED_ALERT, lease.lane, at_ms)
            if item.left_out:
                self._send_round_again(connection, item.left_out, at_ms, why)
                text = f"rewards of the lane {lease.lane} were not minted: {why}"
                raise_alert(connection, HINDERED_ALERT, lease.lane, "warning", text, at_ms)
            transaction = item.landed.at_hand.transaction.id
            finish_transactions(connection, [transaction], block.number, block.block_hash)

    def _send_round_again(
        self, connection: Connection, left_out: Sequence[Mint], at_ms: int, why: str
    ) -> None:
        """Later, those of a transaction together; what was tried too often is given up."""
        tries = min(mint.bindings for mint in left_out)
        mints.apply(
            connection,
            PaymentEvent.UNBIND,
            [mint.payment_id for mint in left_out],
            at_ms,
            due_at_ms=at_ms + BACKOFF.wait_ms(tries, self._random),
            failure_reason=why,
        )
        spent = [mint.payment_id for mint in left_out if mint.bindings >= MAX_BINDINGS]
        if spent:
            mints.fail(connection, spent, at_ms, f"tried {MAX_BINDINGS} times; at last {why}")


def _confirm(connection: Connection, made: Sequence[str], receipt: Receipt, at_ms: int) -> None:
    mints.apply(
        connection,
        PaymentEvent.CONFIRM,
        made,
        at_ms,
        tx_hash=receipt.tx_hash,
        block_number=receipt.block_number,
        block_hash=receipt.block_hash,
    )


def _at_hand(
    connection: Connection, *, held: HeldLane
) -> tuple[list[AtHand], Mapping[int, list[Mint]]]:
    """The lane's transactions that are mined, and the mints in each that are not settled."""
    mined = under_way.open_transactions_between(
        connection, held.lane.address, 0, held.mined, _MAX_TRANSACTIONS
    )
    ids = [item.id for item in mined]
    versions = under_way.versions(connection, ids)
    at_hand = [AtHand(held, item, [], versions[item.id]) for item in mined]
    return at_hand, mints.unsettled(connection, ids)


def _tell(judged: Sequence[_Judged]) -> None:
    for item in judged:
        nonce = item.landed.at_hand.transaction.nonce
        if item.made:
            _log.info("rewards.minted", mints=len(item.made), nonce=nonce)
        if item.left_out:
            why = item.landed.outcome
            _log.warning("rewards.not_minted", mints=len(item.left_out), nonce=nonce, reason=why)

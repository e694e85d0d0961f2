"""One lane's send loop: claim, sign, store, broadcast. It never waits for a receipt.

What is in the ledger comes first: transactions that were stored and not taken by a node are sent
again before anything new is signed, and after a start all that is not mined. What is new gets a
transaction, its nonce and its signed bytes in one commit, and only then do the bytes leave. While
one batch is on its way to the nodes, the next is claimed, tried out and stored; but there is never
more than one on its way, so the nodes see the nonces in their order.

A process may end at any of these points, and the next goes on from the ledger:

    settle.lane_started     the lane has its first nonce
    settle.claimed          payments have their lane, and the end of what is signed to try them out
    settle.tried_out        the nodes have said what would fail
    settle.put_off          what would fail waits
    settle.bound            transactions are stored with their nonces, nothing has left
    settle.sending          before each request with transactions
    settle.broadcast        the nodes have answered
    settle.noted_sent       the ledger knows what they took
    settle.lane_paused, settle.lane_resumed, settle.given_back
    settle.version_stored   a dearer version or a no-op is stored (see `stuck`)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from taprail_common.crash import crash
from taprail_gateway.ledger import leases, nonces, queries, transitions
from taprail_gateway.ledger.leases import Lease, LeaseLostError
from taprail_gateway.ledger.queries import Lane, OpenTransaction
from taprail_gateway.settle import replies
from taprail_gateway.settle.broadcast import Obstacle, StoredTransaction, stored_transactions
from taprail_gateway.settle.cargo import Cargo, Load
from taprail_gateway.settle.drafts import Draft, draft
from taprail_gateway.settle.errors import SendClass, WrongChainError
from taprail_gateway.settle.fees import Fees
from taprail_gateway.settle.lanes import PauseCause, cause_of, heed, pause, resume
from taprail_gateway.settle.live import QueueMode
from taprail_gateway.settle.office import Office
from taprail_gateway.settle.outbound import Outbound
from taprail_gateway.settle.replies import Block

# Base fee and time of the head are used within this: the fee doubles at worst in six blocks.
_HEAD_AGE_S: Final = 3.0

_BATCHES_PER_TICK: Final = 50
"""Then the loop draws breath: obstacles are told, settings and leases looked at."""

_AT_ONCE: Final = 200
"""Stored transactions read at a time: 5 MB of full ones."""

_NOT_HEARD: Final = frozenset({SendClass.AMBIGUOUS, SendClass.CAPACITY})
"""After these the node may know nothing of what was offered to it."""

_log = structlog.get_logger("settle.sender")


@dataclass(frozen=True, slots=True)
class Tick:
    """What a step came to. `obstacle`: what keeps it from going on; try again after a pause."""

    may_be_more: bool = False
    obstacle: str | None = None


@dataclass(frozen=True, slots=True)
class _Situation:
    """What the ledger holds for the lane, from one snapshot."""

    lane: Lane
    lowest_open: int | None
    """The lowest nonce that is not final; None: nothing is under way."""
    waiting: int
    oldest_ms: int | None
    under_way: int
    """Items bound and not settled; counted only where something waits."""


class LaneSender:
    """Sends from one lane. `tick` does one step; whoever calls it again need know nothing of it."""

    def __init__(self, office: Office, address: str, cargo: Cargo) -> None:
        self.address = address
        self._office = office
        self._cargo = cargo
        self._ledger = office.ledger
        self._live = office.live
        self._clock = office.clock
        self._begun_for: Lease | None = None
        self._again_from: int | None = None
        """From this nonce on all that is not mined has to be offered once more."""
        self._unsent_from = 0
        """Below this nonce nothing is left that no node has taken."""
        self._let_go_for: str | None = None

    async def tick(self) -> Tick:
        """Send what was interrupted, then what is new, batch by batch.

        Raises ChainError, StorageError, FeeCapError or TokenPausedError; nothing is lost by that.
        """
        lease = self._office.keeper.leases.get(self.address)
        if lease is None:
            return Tick()
        try:
            return await self._step(lease)
        except LeaseLostError:
            self._office.keeper.lose(self.address)
            return Tick()

    async def _step(self, lease: Lease) -> Tick:
        try:
            if lease != self._begun_for:
                await self._begin(lease)
            return await self._go_on(lease)
        except WrongChainError as exc:
            lane = await self._ledger.read(self._lane)
            await pause(self._ledger, lane, PauseCause.WRONG_CHAIN, str(exc), lease=lease)
            raise

    async def _go_on(self, lease: Lease) -> Tick:
        stored = await self._ledger.read(self._stored)
        found = await self._ledger.read(self._look)
        await self._let_go(found.lane, lease)
        if stored:
            return await self._offer(found.lane, lease, stored)
        if found.lane.paused_because is not None:
            return await self._wait_for_cure(found, lease)
        async with Outbound(partial(self._send, found.lane, lease)) as outbound:
            for _ in range(_BATCHES_PER_TICK):
                load = await self._take_on(found, lease, outbound)
                if load is None:
                    return _tick(await outbound.settled())
                found = await self._ledger.read(self._look)
            return _tick(await outbound.settled(), may_be_more=True)

    async def _take_on(
        self, found: _Situation, lease: Lease, outbound: Outbound[StoredTransaction]
    ) -> Load | None:
        """Store one more batch and see it off; None when there is nothing more to do now."""
        room = self._room(found)
        if room == 0:
            return None
        head = await self._current_head()
        ahead = found.under_way * self._cargo.gas_each() // head.gas_limit
        fees = await self._office.fee_watch.quote(head, ahead)  # first: it may be over the cap
        load = await self._cargo.prepare(lease, room, head)
        stored = await self._bind(found.lane, lease, load, fees)
        if await outbound.settled() is not None:
            return None  # what has been stored is sent when its elders have been taken
        outbound.put(stored)
        return load if load.claimed == room else None

    def _room(self, found: _Situation) -> int:
        """How many items to take on now."""
        settings = self._live.now
        if self._live.queue_mode is QueueMode.PAUSED or found.lane.paused_because is not None:
            return 0
        if not found.waiting or self._should_gather(found):
            return 0
        left = settings.max_in_flight_payments - found.under_way
        return max(0, min(settings.payment_batch_size, left))

    def _should_gather(self, found: _Situation) -> bool:
        """Whether a few payments wait for more, because a block has to be waited for anyway.

        With nothing under way a lone payment goes at once. While a transaction waits for its block,
        those that would not fill the next one wait with it, for one interval at most: together they
        cost half the gas. The confirmer rings as soon as the way is free.
        """
        settings = self._live.now
        if found.lowest_open is None or found.waiting >= settings.payments_per_transaction:
            return False
        oldest_ms = found.oldest_ms
        longest_ms = settings.payment_batch_interval_ms
        return oldest_ms is None or self._clock.now_ms() - oldest_ms < longest_ms

    # --- what is stored already ---------------------------------------------------------------

    async def _begin(self, lease: Lease) -> None:
        """After a start, or when a node misses lower nonces: all that is not mined is sent again.

        A new lane learns from the chain where its nonces begin.
        """
        lane = await self._ledger.read(self._lane)
        head = await self._current_head()
        (mined,) = await self._office.chain.transaction_counts(lane.address, [head.number])
        if lane.next_nonce is None:
            await self._ledger.write(
                partial(transitions.start_lane, lease=lease, first_nonce=mined)
            )
            crash("settle.lane_started")
            _log.info("settle.lane_started", lane=lane.address, first_nonce=mined)
        if lane.next_nonce is not None and mined > lane.next_nonce:
            text = f"{mined} transactions are mined, only {lane.next_nonce} are ours"
            await pause(self._ledger, lane, PauseCause.FOREIGN_NONCE, text, lease=lease)
        elif not await self._has_coin(head):
            # Before it takes what another lane could send: it may be new and not funded yet.
            text = "the wallet has not enough of the chain's coin for gas"
            await pause(self._ledger, lane, PauseCause.FUNDS, text, lease=lease)
        self._begun_for, self._again_from = lease, mined

    async def _has_coin(self, head: Block) -> bool:
        """Whether the wallet could pay for the gas of one item at all."""
        asked = [("eth_getBalance", [self.address, "latest"])]
        (wei,) = await self._office.chain.read(asked, replies.quantity)
        return wei >= self._cargo.gas_each() * head.base_fee_wei

    async def _offer(self, lane: Lane, lease: Lease, stored: Sequence[StoredTransaction]) -> Tick:
        """Send what is stored; what a node has refused for a reason is not offered to it again
        here (see `stuck`), what may not have reached it is."""
        obstacle = await self._send(lane, lease, stored)
        was_heard = obstacle is None or obstacle.outcome.meaning not in _NOT_HEARD
        if self._again_from is not None and was_heard:
            self._again_from = stored[-1].nonce + 1
        return _tick(obstacle, may_be_more=True)

    async def _send(
        self, lane: Lane, lease: Lease, transactions: Sequence[StoredTransaction]
    ) -> Obstacle | None:
        obstacle = await self._office.broadcaster.send(lane, lease, transactions)
        if obstacle is not None and obstacle.outcome.meaning is SendClass.NONCE_HIGH:
            self._begun_for = None  # a node that misses a nonce gets the lane from its head
        return obstacle

    async def _let_go(self, lane: Lane, lease: Lease) -> None:
        """Let other lanes have what a paused one has claimed: once for each pause."""
        if lane.paused_because is not None and self._let_go_for != lane.paused_because:
            await self._ledger.write(partial(self._give_back, lease=lease))
            crash("settle.given_back")
        self._let_go_for = lane.paused_because

    async def _wait_for_cure(self, found: _Situation, lease: Lease) -> Tick:
        """A paused lane with nothing to send: is the cause gone?"""
        cause = cause_of(found.lane)
        if cause is PauseCause.FOREIGN_NONCE:
            await self._step_over_strangers(found, lease)
        elif cause is PauseCause.WRONG_CHAIN:
            self._office.chain.check_again()
            await self._office.chain.head()  # an error as long as no node is on the right one
            await resume(self._ledger, found.lane, lease)
        elif found.lowest_open is None and await self._has_coin(await self._current_head()):
            # Nothing is left whose taking could tell that the cause is gone: try anew.
            await heed(self._ledger, found.lane, lease, None)
        return Tick(obstacle=f"the lane is paused ({found.lane.paused_because})")

    async def _step_over_strangers(self, found: _Situation, lease: Lease) -> None:
        """Go on behind nonces that strangers have used, once nothing more is under way.

        What counts as final must agree with the head: a nonce that a reorg gave free again would
        leave a gap that nothing of ours could fill.
        """
        if found.lowest_open is not None or found.lane.next_nonce is None:
            return
        head = await self._office.chain.head()
        final = await self._office.final_block(head)
        if final is None:
            return
        at_head, at_final = await self._office.chain.transaction_counts(
            self.address, [head.number, final.number]
        )
        if at_head == at_final and at_final >= found.lane.next_nonce:
            await resume(self._ledger, found.lane, lease, skip_to_nonce=at_final)

    # --- what is new --------------------------------------------------------------------------

    async def _bind(
        self, lane: Lane, lease: Lease, load: Load, fees: Fees
    ) -> list[StoredTransaction]:
        """Sign and store: after this commit the payments may be on chain."""
        first_nonce = lane.next_nonce
        if not load.parcels or first_nonce is None:
            return []
        key = self._office.custody.unwrap(lane.address, lane.wrapped_key)
        drafts = await asyncio.to_thread(
            draft, key, self._office.chain.token.chain_id, fees, load.parcels, first_nonce
        )
        at_ms = self._clock.now_ms()
        ids = await self._ledger.write(
            partial(self._store, lease=lease, drafts=drafts, at_ms=at_ms)
        )
        crash("settle.bound")
        self._office.broadcaster.wakeups.events.ring()
        for item in drafts:
            _log.info(
                "settle.bound", tx=item.signed.tx_hash, nonce=item.nonce, payments=item.parcel.ids
            )
        return [
            StoredTransaction(id_, item.nonce, item.signed)
            for id_, item in zip(ids, drafts, strict=True)
        ]

    async def _current_head(self) -> Block:
        return await self._office.current_head(_HEAD_AGE_S)

    # --- the ledger: each inside one snapshot or commit -----------------------------------------

    def _look(self, connection: Connection) -> _Situation:
        lane = self._lane(connection)
        now_ms, settings = self._clock.now_ms(), self._live.now
        limit = max(settings.payment_batch_size, settings.payments_per_transaction)
        waiting, oldest_ms = self._cargo.waiting(connection, self.address, limit, now_ms)
        most = settings.max_in_flight_payments
        return _Situation(
            lane=lane,
            lowest_open=nonces.lowest_open(connection, self.address),
            waiting=waiting,
            oldest_ms=oldest_ms,
            under_way=self._cargo.under_way(connection, self.address, most) if waiting else 0,
        )

    def _lane(self, connection: Connection) -> Lane:
        (lane,) = (it for it in queries.all_lanes(connection) if it.address == self.address)
        return lane

    def _stored(self, connection: Connection) -> list[StoredTransaction]:
        """What goes before anything new: the lowest nonces of it."""
        if self._again_from is not None:
            again = nonces.open_from(connection, self.address, self._again_from, _AT_ONCE)
            if again:
                return stored_transactions(connection, again)
            self._again_from = None
        return stored_transactions(connection, self._unsent(connection))

    def _unsent(self, connection: Connection) -> list[OpenTransaction]:
        """What was taken by no node yet: the oldest of it."""
        next_nonce = self._lane(connection).next_nonce
        unsent = nonces.open_from(
            connection, self.address, self._unsent_from, _AT_ONCE, status="signed"
        )
        if not unsent and next_nonce is not None:
            self._unsent_from = next_nonce
        return unsent

    def _store(
        self, connection: Connection, *, lease: Lease, drafts: Sequence[Draft], at_ms: int
    ) -> list[int]:
        return [
            self._cargo.store(connection, lease, it.nonce, it.parcel, it.attempt, at_ms)
            for it in drafts
        ]

    def _give_back(self, connection: Connection, *, lease: Lease) -> int:
        leases.guard(connection, lease)
        return self._cargo.give_back(connection, self.address)


def _tick(obstacle: Obstacle | None, *, may_be_more: bool = False) -> Tick:
    return Tick(may_be_more, None if obstacle is None else str(obstacle))

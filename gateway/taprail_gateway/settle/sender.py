"""The send loop's one step: claim, sign, store, broadcast. It never waits for a receipt.

What is in the ledger comes first: transactions that were stored and not taken by a node are sent
again before anything new is signed, and after a start all that is not mined. New payments get a
transaction, its nonce and its signed bytes in one commit, and only then do the bytes leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_common.eip3009 import TransferAuthorization
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import claims, leases, queries, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease
from taprail_gateway.ledger.queries import Lane, PendingPayment
from taprail_gateway.ledger.transitions import Attempt
from taprail_gateway.settle import calls, fees
from taprail_gateway.settle.accounts import wrapped_keys
from taprail_gateway.settle.broadcast import Broadcaster, StoredTransaction, stored_transactions
from taprail_gateway.settle.chain import Chain, TokenInfo
from taprail_gateway.settle.errors import SendClass
from taprail_gateway.settle.fees import Fees
from taprail_gateway.settle.heads import LatestHead
from taprail_gateway.settle.lane_keeper import LaneKeeper
from taprail_gateway.settle.lanes import PauseCause, heed, pause, the_lane
from taprail_gateway.settle.live import LiveSettings, QueueMode
from taprail_gateway.settle.replies import Block
from taprail_gateway.settle.signer import SignedTransaction, sign_authorization, sign_transaction

MAX_OPEN_BLOCKS: Final = 4
"""Under way at once, in full blocks: a fee of twice the base fee outlives five (EIP-1559: an eighth
more after each), and what a fee has outgrown waits until the chain is quiet again."""

# Base fee and time of the head are used within this: the fee doubles at worst in six blocks.
_HEAD_AGE_S: Final = 3.0

_log = structlog.get_logger("settle.sender")


@dataclass(frozen=True, slots=True)
class Tick:
    """What a step came to. `obstacle`: what keeps it from going on; try again after a pause."""

    may_be_more: bool = False
    obstacle: str | None = None


@dataclass(frozen=True, slots=True)
class _Situation:
    """What the ledger holds for the sender, from one snapshot."""

    lane: Lane
    open_count: int
    unsent: list[StoredTransaction]
    waiting: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class _Batch:
    """What a lane has claimed, with what it takes to sign it."""

    lane: Lane
    pending: list[PendingPayment]
    payer_keys: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _Draft:
    """A signed transaction that is about to be stored."""

    nonce: int
    payment_ids: list[str]
    signed: SignedTransaction
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Terms:
    """What all transactions of one step have in common."""

    token: TokenInfo
    multicall: str
    fees: Fees
    valid_before_s: int
    payments_per_transaction: int


class Sender:
    """One lane's sender. `tick` does one step; whoever calls it again need know nothing of it."""

    def __init__(
        self,
        ledger: Ledger,
        chain: Chain,
        custody: Custody,
        live: LiveSettings,
        clock: Clock,
        broadcaster: Broadcaster,
        head: LatestHead,
        keeper: LaneKeeper,
    ) -> None:
        self._ledger = ledger
        self._chain = chain
        self._custody = custody
        self._live = live
        self._keeper = keeper
        self._clock = clock
        self._broadcaster = broadcaster
        self._head = head
        self._must_resend_all = True

    async def tick(self) -> Tick:
        """Send what was interrupted, then one batch of what is new.

        Raises ChainError, StorageError or FeeCapError; nothing is lost by that.
        """
        if self._must_resend_all:
            await self._resume()
        situation = await self._ledger.read(self._look)
        if situation.unsent:
            obstacle = await self._send(situation.lane, situation.unsent)
            return Tick(may_be_more=True, obstacle=obstacle)
        if situation.lane.paused_because is not None:
            if not situation.open_count:
                # Nothing is left whose taking could tell that the wallet was topped up: try anew.
                await heed(self._ledger, situation.lane, None)
            return Tick(obstacle=f"the lane is paused ({situation.lane.paused_because})")
        if self._live.queue_mode is QueueMode.PAUSED:
            return Tick()
        if not situation.waiting or situation.open_count >= await self._open_limit():
            return Tick()
        if self._should_gather(situation):
            return Tick()
        if situation.lane.next_nonce is None:
            self._must_resend_all = True  # a new lane: the chain says where its nonces begin
            return Tick(may_be_more=True)
        batch = await self._claim(situation.lane)
        if not batch.pending:
            return Tick()
        stored = await self._bind(batch, situation.lane.next_nonce)
        obstacle = await self._send(situation.lane, stored)
        return Tick(
            may_be_more=len(batch.pending) == self._live.now.payment_batch_size,
            obstacle=obstacle,
        )

    def _should_gather(self, situation: _Situation) -> bool:
        """Whether a few payments wait for more, because a block has to be waited for anyway.

        With nothing under way a lone payment goes at once. While a transaction waits for its block,
        those that would not fill the next one wait with it, for one interval at most: together they
        cost half the gas. The confirmer rings as soon as the way is free.
        """
        settings = self._live.now
        if not situation.open_count or situation.waiting >= settings.payments_per_transaction:
            return False
        longest_ms = settings.payment_batch_interval_ms
        oldest_ms = situation.oldest_ms
        return oldest_ms is None or self._clock.now_ms() - oldest_ms < longest_ms

    # --- what is stored already ---------------------------------------------------------------

    async def _resume(self) -> None:
        """After a start, or when a node misses lower nonces: send again all that is not mined."""
        lane = await self._ledger.read(the_lane)
        head = await self._current_head()
        (mined,) = await self._chain.transaction_counts(lane.address, [head.number])
        if lane.next_nonce is None:
            await self._ledger.write(
                partial(_start_lane, lease=self._lease(lane), first_nonce=mined)
            )
            _log.info("settle.lane_started", lane=lane.address, first_nonce=mined)
        elif mined > lane.next_nonce:
            text = f"{mined} transactions are mined, only {lane.next_nonce} are ours"
            await pause(self._ledger, lane, PauseCause.FOREIGN_NONCE, text)
        open_ones = await self._ledger.read(partial(_open_from, lane=lane.address, nonce=mined))
        if open_ones:
            _log.info("settle.resending", lane=lane.address, transactions=len(open_ones))
        self._must_resend_all = False
        await self._send(lane, open_ones)

    def _look(self, connection: Connection) -> _Situation:
        lane = the_lane(connection)
        under_way = queries.open_transactions(connection, lane.address)
        limit = self._live.now.payment_batch_size
        waiting, oldest_ms = queries.pending_count(
            connection, lane.address, limit, self._clock.now_ms()
        )
        return _Situation(
            lane=lane,
            open_count=len(under_way),
            unsent=stored_transactions(
                connection, [item for item in under_way if item.status == "signed"]
            ),
            waiting=waiting,
            oldest_ms=oldest_ms,
        )

    async def _claim(self, lane: Lane) -> _Batch:
        limit, now_ms = self._live.now.payment_batch_size, self._clock.now_ms()
        lease = self._lease(lane)

        def work(connection: Connection) -> _Batch:
            leases.guard(connection, lease)
            pending = claims.claim(connection, lane.address, limit, now_ms)
            keys = wrapped_keys(connection, [item.payer for item in pending])
            return _Batch(lane, pending, keys)

        return await self._ledger.write(work)

    def _lease(self, lane: Lane) -> Lease:
        return self._keeper.leases[lane.address]

    async def _send(self, lane: Lane, transactions: Sequence[StoredTransaction]) -> str | None:
        outcome = await self._broadcaster.send(lane, transactions)
        if outcome is None:
            return None
        # A node that misses a nonce gets the lane again from its head.
        self._must_resend_all = outcome.meaning is SendClass.NONCE_HIGH
        return f"a transaction was not taken ({outcome.meaning}: {outcome.text})"

    # --- what is new --------------------------------------------------------------------------

    async def _bind(self, batch: _Batch, first_nonce: int) -> list[StoredTransaction]:
        """Sign and store a batch: after this commit the payments may be on chain."""
        terms = await self._terms()
        # In a thread: some milliseconds of signing must not hold up the answer to a tap.
        drafts = await asyncio.to_thread(draft, self._custody, terms, batch, first_nonce)
        at_ms = self._clock.now_ms()
        store = partial(_store, self._lease(batch.lane), drafts, terms.valid_before_s, at_ms)
        ids = await self._ledger.write(store)
        crash("settle.bound")
        self._broadcaster.wakeups.events.ring()
        for item in drafts:
            _log.info(
                "settle.bound", tx=item.signed.tx_hash, nonce=item.nonce, payments=item.payment_ids
            )
        return [
            StoredTransaction(id_, item.nonce, item.signed)
            for id_, item in zip(ids, drafts, strict=True)
        ]

    async def _terms(self) -> Terms:
        head = await self._current_head()
        settings = self._live.now
        # The token goes by its chain's time, which may be ahead of ours.
        now_s = max(self._clock.now_ms() // 1000, head.time_s)
        return Terms(
            token=self._chain.token,
            multicall=self._chain.multicall,
            fees=fees.quote(head.base_fee_wei, settings.priority_fee_wei, settings.max_fee_cap_wei),
            valid_before_s=now_s + settings.authorization_validity_s,
            payments_per_transaction=fees.payments_that_fit(
                settings.payments_per_transaction, head.gas_limit
            ),
        )

    async def _open_limit(self) -> int:
        """How many transactions may be under way at once."""
        head = await self._current_head()
        size = fees.payments_that_fit(self._live.now.payments_per_transaction, head.gas_limit)
        return max(1, MAX_OPEN_BLOCKS * head.gas_limit // fees.full_batch_gas(size))

    async def _current_head(self) -> Block:
        known = self._head.not_older_than(_HEAD_AGE_S, self._clock.monotonic_s())
        if known is not None:
            return known
        head = await self._chain.head()
        self._head.saw(head, self._clock.monotonic_s())
        return head


def draft(custody: Custody, terms: Terms, batch: _Batch, first_nonce: int) -> list[_Draft]:
    """Sign transactions for all pending payments, with the lane's next nonces."""
    lane = batch.lane
    lane_key = custody.unwrap(lane.address, lane.wrapped_key)
    size = terms.payments_per_transaction
    groups = [batch.pending[at : at + size] for at in range(0, len(batch.pending), size)]
    drafts = []
    for nonce, group in enumerate(groups, start=first_nonce):
        signed_calls = [_signed_call(custody, terms, batch, item) for item in group]
        to, data = _one_call(terms, signed_calls)
        gas = fees.gas_limit([item.payee for item in group])
        signed = sign_transaction(
            lane_key,
            chain_id=terms.token.chain_id,
            nonce=nonce,
            fees=terms.fees,
            gas=gas,
            to=to,
            data=data,
        )
        attempt = Attempt(signed.tx_hash, signed.raw, gas, *terms.fees)
        drafts.append(_Draft(nonce, [item.id for item in group], signed, attempt))
    return drafts


def _signed_call(custody: Custody, terms: Terms, batch: _Batch, payment: PendingPayment) -> bytes:
    authorization = TransferAuthorization(
        payer=payment.payer,
        payee=payment.payee,
        amount_units=payment.amount_units,
        valid_after_s=0,
        valid_before_s=terms.valid_before_s,
        nonce=bytes.fromhex(payment.id.removeprefix("0x")),
    )
    payer_key = custody.unwrap(payment.payer, batch.payer_keys[payment.payer])
    signature = sign_authorization(payer_key, authorization, terms.token.domain_separator)
    return calls.transfer_with_authorization(authorization, signature)


def _one_call(terms: Terms, signed_calls: Sequence[bytes]) -> tuple[str, bytes]:
    """Where the transaction goes and what it says: a lone payment straight to the token."""
    if len(signed_calls) == 1:
        return terms.token.address, signed_calls[0]
    return terms.multicall, calls.aggregate3([(terms.token.address, it) for it in signed_calls])


def _store(
    lease: Lease, drafts: Sequence[_Draft], valid_before_s: int, at_ms: int, connection: Connection
) -> list[int]:
    return [
        transitions.bind(
            connection,
            lease,
            nonce=item.nonce,
            payment_ids=item.payment_ids,
            attempt=item.attempt,
            valid_before_s=valid_before_s,
            at_ms=at_ms,
        )
        for item in drafts
    ]


def _start_lane(connection: Connection, *, lease: Lease, first_nonce: int) -> None:
    transitions.start_lane(connection, lease, first_nonce)


def _open_from(connection: Connection, *, lane: str, nonce: int) -> list[StoredTransaction]:
    under_way = queries.open_transactions(connection, lane)
    return stored_transactions(connection, [item for item in under_way if item.nonce >= nonce])

"""What is done about transactions that the chain does not take: a pure plan, and its execution.

The order of the means: the same bytes again, the lowest nonce first; the same call under the same
nonce for a higher fee; at last a transfer of nothing that only uses up the nonce. A no-op retires
our nonce, never the public authorizations inside the transaction that it replaces: what becomes of
the payments is up to the chain's logs, as ever. Every version is stored before it is sent, and none
is forgotten, because any of them may be the one that lands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection, func, select, update

from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import leases, nonces, queries, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease
from taprail_gateway.ledger.queries import Lane, OpenTransaction, RawAttempt
from taprail_gateway.ledger.schema import bindings, chain_transactions
from taprail_gateway.ledger.transitions import Attempt
from taprail_gateway.settle import fees
from taprail_gateway.settle.broadcast import Broadcaster, Obstacle, StoredTransaction
from taprail_gateway.settle.chain import MAX_BATCH
from taprail_gateway.settle.errors import FeeCapError, SendClass
from taprail_gateway.settle.fee_watch import FeeWatch
from taprail_gateway.settle.fees import Fees
from taprail_gateway.settle.heads import StallWatch
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.settle.replies import Block
from taprail_gateway.settle.signer import (
    NOOP_GAS,
    SignedTransaction,
    noop_instead,
    sign_transaction,
    with_other_fees,
)

PATIENCE_BLOCKS: Final = 5
"""Blocks for each version that the lowest transaction may miss, although its fee would do, before
it is bumped."""

MAX_VERSIONS: Final = 12
"""Of one call: eleven rises of an eighth make 3.6 times the first fee; what that does not bring
into a block is not held up by its price. A no-op in its place may rise as often again."""

_TOO_CHEAP: Final = frozenset({SendClass.UNDERPRICED, SendClass.FEE_LOW})

_log = structlog.get_logger("settle.stuck")


class Means(Enum):
    """What to do with one transaction."""

    RESEND = auto()
    BUMP = auto()
    NOOP = auto()


@dataclass(frozen=True, slots=True)
class Case:
    """One transaction that waits for its block, as the ledger and the head block show it."""

    is_lowest: bool
    is_noop: bool
    """Its newest version is a no-op already."""
    answer: SendClass | None
    """Why the nodes did not take its newest version the last time, if they did not."""
    versions: int
    missed_blocks: int
    """By the lowest transaction of the lane since it became the lowest."""
    priced_out: bool
    """Its fee does not reach what the next block wants."""
    expired: bool
    """Every authorization in it has ended: it would cost gas and move nothing."""
    asked: bool
    """An operator wants it to be sent anew."""


def plan(case: Case) -> Means:
    """The means for one transaction of a lane that does not move."""
    can_never_run = case.is_lowest and case.answer is SendClass.PERMANENT
    if not case.is_noop and (case.expired or can_never_run):
        return Means.NOOP
    is_late = case.is_lowest and case.missed_blocks >= PATIENCE_BLOCKS * case.versions
    is_too_cheap = case.priced_out or case.answer in _TOO_CHEAP
    if not (is_late or is_too_cheap or case.asked):
        return Means.RESEND
    if case.versions < MAX_VERSIONS * (2 if case.is_noop else 1):
        return Means.BUMP
    return Means.NOOP if is_late and not case.is_noop else Means.RESEND


@dataclass(frozen=True, slots=True)
class _Stuck:
    """A transaction with its versions, and until when it may move money (None: carries none)."""

    transaction: OpenTransaction
    versions: list[RawAttempt]
    valid_until_s: int | None

    @property
    def is_asked(self) -> bool:
        """Whether an operator wants it to be sent anew."""
        return self.transaction.rescue_asked_at_ms is not None


@dataclass(frozen=True, slots=True)
class _Moment:
    """What a look stands on."""

    head: Block
    lowest_nonce: int | None
    missed_blocks: int


@dataclass
class Rescuer:
    """Looks after the lanes of one gateway; `look` once in every pass for each of them."""

    ledger: Ledger
    custody: Custody
    live: LiveSettings
    clock: Clock
    broadcaster: Broadcaster
    fee_watch: FeeWatch
    _watches: dict[str, StallWatch] = field(default_factory=dict, init=False)
    _obstacles: dict[str, Obstacle] = field(default_factory=dict, init=False)
    """Lane → what was not taken the last time, and why."""

    async def look(self, lane: Lane, lease: Lease, head: Block, mined: int) -> None:
        """Help the lowest transactions that are not mined at the head, if the lane does not move,
        and those that an operator wants to be sent anew.

        `mined` is the lane's count of mined transactions at the head. Raises StorageError; what a
        node does is no error.
        """
        lowest, asked = await self.ledger.read(partial(_open_ones, lane=lane.address, nonce=mined))
        gap = await self.ledger.read(
            partial(nonces.gap_at, lane=lane.address, nonce=mined, limit=MAX_BATCH)
        )
        watch = self._watches.setdefault(lane.address, StallWatch())
        first = mined if gap else lowest[0].nonce if lowest else None
        is_stalled = watch.is_stalled(first, head.number)
        if gap and is_stalled:
            await self._fill_gap(lane, lease, head, gap)
        by_nonce = {item.nonce: item for item in [*(lowest if is_stalled else []), *asked]}
        if not by_nonce:
            self._obstacles.pop(lane.address, None)
            return
        cases = await self.ledger.read(
            partial(_read_cases, transactions=[by_nonce[nonce] for nonce in sorted(by_nonce)])
        )
        await self._send_again(lane, lease, [_newest(it, None) for it in cases if it.is_asked])
        missed = watch.missed_blocks(head.number)
        to_send = await self._prepare(lane, lease, cases, _Moment(head, first, missed))
        _log.warning(
            "settle.stalled",
            lane=lane.address,
            nonce=first,
            missed_blocks=missed,
            sent=len(to_send),
        )
        await self._send_again(lane, lease, to_send)

    async def _fill_gap(self, lane: Lane, lease: Lease, head: Block, gap: range) -> None:
        """Strangers' transactions that the lane went on behind were taken back with their blocks,
        and nothing else uses their nonces: without no-ops the lane would wait for ever."""
        price = await self._wanted(head)
        if price is None:
            return
        key = self.custody.unwrap(lane.address, lane.wrapped_key)
        signed = [
            sign_transaction(
                key,
                chain_id=self.broadcaster.chain.token.chain_id,
                nonce=nonce,
                fees=price,
                gas=NOOP_GAS,
                to=lane.address,
                data=b"",
            )
            for nonce in gap
        ]
        noops = {
            nonce: Attempt(it.tx_hash, it.raw, NOOP_GAS, *price, kind="noop")
            for nonce, it in zip(gap, signed, strict=True)
        }
        at_ms = self.clock.now_ms()
        rows = await self.ledger.write(
            partial(nonces.fill_gap, lease=lease, noops=noops, at_ms=at_ms)
        )
        crash("settle.version_stored")
        _log.warning("settle.gap_filled", lane=lane.address, nonce=gap.start, nonces=len(gap))
        stored = map(StoredTransaction, rows, gap, signed)
        await self._send_again(lane, lease, list(stored))

    async def _send_again(
        self, lane: Lane, lease: Lease, transactions: Sequence[StoredTransaction]
    ) -> None:
        obstacle = await self.broadcaster.send(lane, lease, transactions)
        self._obstacles.pop(lane.address, None)
        if obstacle is not None:
            self._obstacles[lane.address] = obstacle

    async def _prepare(
        self, lane: Lane, lease: Lease, cases: Sequence[_Stuck], now: _Moment
    ) -> list[StoredTransaction]:
        """The newest version of each, new ones signed and stored where the plan wants them."""
        new: dict[int, Attempt] = {}
        wanted = await self._wanted(now.head)
        obstacle = self._obstacles.get(lane.address)
        for stuck in cases:
            case = _case(stuck, now, obstacle)
            attempt = self._version(lane, stuck, plan(case), wanted)
            if attempt is not None:
                new[stuck.transaction.id] = attempt
        asked = [item.transaction.id for item in cases if item.is_asked]
        if new or asked:
            at_ms = self.clock.now_ms()
            await self.ledger.write(partial(_store, lease=lease, new=new, asked=asked, at_ms=at_ms))
            crash("settle.version_stored")
        return [_newest(stuck, new.get(stuck.transaction.id)) for stuck in cases]

    def _version(
        self, lane: Lane, stuck: _Stuck, means: Means, wanted: Fees | None
    ) -> Attempt | None:
        if means is Means.RESEND or wanted is None:
            return None
        newest = stuck.versions[-1]
        old = Fees(newest.max_fee_wei, newest.priority_fee_wei)
        price = fees.bumped(old, wanted, self.live.now.max_fee_cap_wei)
        if price is None:
            return None
        key = self.custody.unwrap(lane.address, lane.wrapped_key)
        noop = means is Means.NOOP or newest.kind == "noop"
        signed = (
            noop_instead(key, newest.raw, price, lane.address)
            if noop
            else with_other_fees(key, newest.raw, price)
        )
        _log.warning(
            "settle.noop" if noop else "settle.bumped",
            lane=lane.address,
            nonce=stuck.transaction.nonce,
            tx=signed.tx_hash,
            instead_of=newest.tx_hash,
            max_fee_wei=price.max_fee_wei,
        )
        gas = NOOP_GAS if noop else newest.gas_limit
        return Attempt(signed.tx_hash, signed.raw, gas, *price, kind="noop" if noop else "payload")

    async def _wanted(self, head: Block) -> Fees | None:
        """What the chain asks now; None when that is over the cap: then all has to wait."""
        try:
            return await self.fee_watch.quote(head)
        except FeeCapError:
            return None


def _case(stuck: _Stuck, now: _Moment, obstacle: Obstacle | None) -> Case:
    newest = stuck.versions[-1]
    until_s = stuck.valid_until_s
    said_of_it = obstacle is not None and obstacle.transaction.signed.tx_hash == newest.tx_hash
    return Case(
        is_lowest=stuck.transaction.nonce == now.lowest_nonce,
        is_noop=newest.kind == "noop",
        answer=obstacle.outcome.meaning if obstacle is not None and said_of_it else None,
        versions=len(stuck.versions),
        missed_blocks=now.missed_blocks,
        priced_out=newest.max_fee_wei < now.head.base_fee_wei + newest.priority_fee_wei,
        expired=until_s is not None and until_s <= now.head.time_s,
        asked=stuck.is_asked,
    )


def _newest(stuck: _Stuck, new: Attempt | None) -> StoredTransaction:
    version = new or stuck.versions[-1]
    signed = SignedTransaction(version.tx_hash, version.raw)
    return StoredTransaction(stuck.transaction.id, stuck.transaction.nonce, signed)


def _open_ones(
    connection: Connection, *, lane: str, nonce: int
) -> tuple[list[OpenTransaction], list[OpenTransaction]]:
    """The lowest that are not mined, and the lowest that an operator asks for."""
    return (
        nonces.open_from(connection, lane, nonce, MAX_BATCH),
        nonces.open_from(connection, lane, nonce, MAX_BATCH, rescue_asked=True),
    )


def _read_cases(connection: Connection, *, transactions: Sequence[OpenTransaction]) -> list[_Stuck]:
    ids = [item.id for item in transactions]
    versions = queries.raw_attempts(connection, ids)
    ends = _valid_until_s(connection, ids)
    return [_Stuck(item, versions[item.id], ends.get(item.id)) for item in transactions]


def _valid_until_s(connection: Connection, ids: Sequence[int]) -> dict[int, int]:
    """Until when any authorization of each transaction is valid; absent: it carries none."""
    b = bindings.c
    statement = (
        select(b.chain_transaction_id, func.max(b.valid_before_s))
        .where(b.chain_transaction_id.in_(ids))
        .group_by(b.chain_transaction_id)
    )
    return {int(row[0]): int(row[1]) for row in connection.execute(statement)}


def _store(
    connection: Connection,
    *,
    lease: Lease,
    new: Mapping[int, Attempt],
    asked: Sequence[int],
    at_ms: int,
) -> None:
    leases.guard(connection, lease)
    for transaction, attempt in new.items():
        transitions.add_attempt(connection, transaction, attempt, at_ms)
    t = chain_transactions.c
    connection.execute(
        update(chain_transactions).where(t.id.in_(asked)).values(rescue_asked_at_ms=None)
    )

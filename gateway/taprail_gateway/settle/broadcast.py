"""Stored transactions out to the nodes, and the note that they were taken.

What it sends is in the ledger already, so sending again is always safe: the same bytes can be mined
once. No answer, or one that nobody understands, leaves a transaction as it is, to be sent again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_gateway.ledger import leases, queries
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease
from taprail_gateway.ledger.queries import Lane, OpenTransaction
from taprail_gateway.settle import lanes
from taprail_gateway.settle.cargo import Cargo
from taprail_gateway.settle.chain import MAX_BATCH, Chain, SendOutcome
from taprail_gateway.settle.errors import IN_POOL, SendClass
from taprail_gateway.settle.signer import SignedTransaction
from taprail_gateway.settle.told import Told
from taprail_gateway.wakeups import Wakeups

# A nonce that is mined already leaves nothing to be sent, be it ours (a reply was lost) or a
# stranger's: which of them is the confirmer's to judge.
_OUT: Final = IN_POOL | {SendClass.NONCE_LOW}

MAX_BATCH_RAW_BYTES: Final = 400_000
"""Of one request, 0.8 MB as JSON: anvil refuses bodies over 2 MiB, and a transaction with fifty
payments has 24 kB, so that fifty of them would never be taken."""

_log = structlog.get_logger("settle.broadcast")


@dataclass(frozen=True, slots=True)
class StoredTransaction:
    """A transaction of the ledger with the bytes of its newest version."""

    id: int
    nonce: int
    signed: SignedTransaction


def stored_transactions(
    connection: Connection, transactions: Sequence[OpenTransaction]
) -> list[StoredTransaction]:
    """The bytes of transactions, in the order given."""
    versions = queries.raw_attempts(connection, [item.id for item in transactions])
    newest = [(item, versions[item.id][-1]) for item in transactions]
    return [
        StoredTransaction(item.id, item.nonce, SignedTransaction(version.tx_hash, version.raw))
        for item, version in newest
    ]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """The first transaction that was not taken, and why."""

    transaction: StoredTransaction
    outcome: SendOutcome

    def __str__(self) -> str:
        return f"a transaction was not taken ({self.outcome.meaning}: {self.outcome.text})"


@dataclass(frozen=True, slots=True)
class Broadcaster:
    """Sends for one gateway; all its loops may use it at once."""

    ledger: Ledger
    chain: Chain
    clock: Clock
    wakeups: Wakeups
    cargoes: Mapping[str, Cargo]
    """By the purpose of lanes."""
    _told: Told = field(default_factory=Told, init=False)

    async def send(
        self, lane: Lane, lease: Lease, transactions: Sequence[StoredTransaction]
    ) -> Obstacle | None:
        """Send in nonce order, as far as the nodes take them; gives what stopped it, if anything.

        Pauses or resumes the lane where the answers ask for it.
        """
        obstacle = None
        for batch in batches(transactions):
            obstacle = await self._send_batch(lane, lease, batch)
            if obstacle is not None:
                break
        if transactions:
            outcome = obstacle.outcome if obstacle is not None else None
            await lanes.heed(self.ledger, lane, lease, outcome)
        return obstacle

    async def _send_batch(
        self, lane: Lane, lease: Lease, batch: Sequence[StoredTransaction]
    ) -> Obstacle | None:
        crash("settle.sending")
        outcomes = await self.chain.send([item.signed for item in batch])
        crash("settle.broadcast")
        answered = list(zip(batch, outcomes, strict=True))
        taken = [item.id for item, outcome in answered if outcome.meaning in _OUT]
        await self._mark(lane, lease, taken)
        obstacles = [Obstacle(*each) for each in answered if each[1].meaning not in _OUT]
        if not obstacles:
            return None
        self._tell(lane, obstacles[0], others=len(obstacles) - 1)
        return obstacles[0]

    def _tell(self, lane: Lane, obstacle: Obstacle, others: int) -> None:
        """In the log: once, not at every try."""
        item, outcome = obstacle.transaction, obstacle.outcome
        if self._told.is_new((item.signed.tx_hash, outcome), self.clock.monotonic_s()):
            _log.warning(
                "settle.not_taken",
                lane=lane.address,
                tx=item.signed.tx_hash,
                nonce=item.nonce,
                meaning=outcome.meaning,
                said=outcome.text,
                others=others,
            )

    async def _mark(self, lane: Lane, lease: Lease, transaction_ids: Sequence[int]) -> None:
        if not transaction_ids:
            return
        cargo, at_ms = self.cargoes[lane.purpose], self.clock.now_ms()
        await self.ledger.write(
            partial(_mark, lease=lease, cargo=cargo, ids=transaction_ids, at_ms=at_ms)
        )
        crash("settle.noted_sent")
        self.wakeups.events.ring()
        self.wakeups.bound.ring()


def _mark(
    connection: Connection, *, lease: Lease, cargo: Cargo, ids: Sequence[int], at_ms: int
) -> None:
    leases.guard(connection, lease)
    cargo.mark_broadcast(connection, ids, at_ms)


def batches(transactions: Sequence[StoredTransaction]) -> Iterator[list[StoredTransaction]]:
    """Cut into requests that a node takes: by number and by size, in the order given."""
    batch: list[StoredTransaction] = []
    size = 0
    for item in transactions:
        size += len(item.signed.raw)
        if batch and (len(batch) == MAX_BATCH or size > MAX_BATCH_RAW_BYTES):
            yield batch
            batch, size = [], len(item.signed.raw)
        batch.append(item)
    if batch:
        yield batch

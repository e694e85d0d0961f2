"""Notices that a block is gone on which the ledger was built, and takes back what stood in it.

At `confirmations = 1` the head itself counts as final, and chains do replace their head now and
then. What was completed in a block that is gone is `sent` again with its funds held, and its
transaction is open again: the stored bytes are offered to the nodes as before, and without them the
lane would wait for ever for a nonce that nobody sends. It is an alarm, because a merchant was told
that the money is there.

One block is compared in each pass, the one that the last pass was built on: whatever is in the
ledger stands in it or in its ancestors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

import structlog
from sqlalchemy import Connection, select

from taprail_common.clock import Clock
from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_gateway.ledger import transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.schema import chain_transactions, payments
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.replies import Block
from taprail_gateway.wakeups import Wakeups

# Transactions that are looked at again after a reorg: more than eight full blocks of 30 M gas, and
# far more than any chain in use has ever taken back.
_TAKEN_BACK_AT_MOST: Final = 200

_log = structlog.get_logger("settle.reorgs")


class _Standing(NamedTuple):
    """A block on which something in the ledger stands."""

    number: int
    block_hash: str


class _Finished(NamedTuple):
    """A transaction of ours that is final, as of this block."""

    id: int
    block: _Standing


@dataclass
class ReorgWatch:
    """Compares the chain with what it was. `look` comes first in every pass."""

    ledger: Ledger
    chain: Chain
    clock: Clock
    wakeups: Wakeups
    _anchor: _Standing | None = field(default=None, init=False)
    _begun: bool = field(default=False, init=False)

    async def look(self, block: Block) -> bool:
        """Whether the chain is another than at the last look, up to this confirmed block.

        If so, the ledger has followed it when this returns. Raises ChainError or StorageError;
        then nothing has changed, and the next look finds the same.
        """
        if not self._begun:
            finished = await self.ledger.read(_newest_finished)
            self._anchor = max((item.block for item in finished), default=None)
            self._begun = True
        anchor = self._anchor
        if anchor is not None and block.number < anchor.number:
            return False  # a node that lags, or a new branch that has still to grow
        is_other = anchor is not None and bool(await self._gone([anchor], block))
        if is_other:
            await self._take_back(block)
        # Before anything is concluded at this block: what the pass writes stands in it.
        self._anchor = _Standing(block.number, block.block_hash)
        return is_other

    async def _take_back(self, block: Block) -> None:
        finished = await self.ledger.read(_newest_finished)
        gone = await self._gone((item.block for item in finished), block)
        reopened = [item.id for item in finished if item.block in gone]
        completed = await self.ledger.read(partial(_completed_in, transactions=reopened))
        gone_too = await self._gone(completed.values(), block)
        lost = [payment for payment, standing in completed.items() if standing in gone_too]
        at_ms = self.clock.now_ms()
        await self.ledger.write(partial(_reopen, transactions=reopened, lost=lost, at_ms=at_ms))
        _log.error("settle.reorg", block=block.number, transactions=len(reopened), payments=lost)
        self.wakeups.events.ring()

    async def _gone(self, standings: Iterable[_Standing], block: Block) -> set[_Standing]:
        """Those of the blocks that are not ancestors of this one, nor itself."""
        gone = set()
        for standing in sorted(set(standings), reverse=True):
            if not await self._is_gone(standing, block):
                break  # and so are those before it: they were compared when it was new
            gone.add(standing)
        return gone

    async def _is_gone(self, standing: _Standing, block: Block) -> bool:
        if standing.number > block.number:
            return True
        same = block if standing.number == block.number else await self.chain.block(standing.number)
        return same.block_hash != standing.block_hash


def _newest_finished(connection: Connection) -> list[_Finished]:
    t = chain_transactions.c
    # By id, which needs no index of its own; a lane's transactions become final in that order.
    statement = (
        select(t.id, t.block_number, t.block_hash)
        .where(t.status == "final", t.block_hash.is_not(None))
        .order_by(t.id.desc())
        .limit(_TAKEN_BACK_AT_MOST)
    )
    rows = connection.execute(statement)
    return [_Finished(id_, _Standing(number, hash_)) for id_, number, hash_ in rows]


def _completed_in(connection: Connection, *, transactions: Sequence[int]) -> dict[str, _Standing]:
    """The completed payments that travelled in these transactions, and where each was paid."""
    p = payments.c
    statement = select(p.id, p.block_number, p.block_hash).where(
        p.chain_transaction_id.in_(transactions), p.state == PaymentState.COMPLETED.value
    )
    return {id_: _Standing(number, hash_) for id_, number, hash_ in connection.execute(statement)}


def _reopen(
    connection: Connection, *, transactions: Sequence[int], lost: Sequence[str], at_ms: int
) -> None:
    for transaction in transactions:
        transitions.reopen_transaction(connection, transaction)
    transitions.apply(
        connection, PaymentEvent.REORG, lost, at_ms, detail="the block that held it is gone"
    )

"""What the transactions that are mined have paid: from one log query, and receipts for the rest.

A lane's count of mined transactions says which of them are done with; what they did is said by the
token's logs. One query over the new blocks explains a block of payments however many transactions
they came in. Receipts are asked only of what it does not explain: reverted or replaced, a payment
left out, older than the query reaches, or too many payers to ask for. A query that fails costs more
calls, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from taprail_common.crash import crash
from taprail_gateway.ledger.queries import BoundPayment, OpenTransaction
from taprail_gateway.ledger.under_way import Version
from taprail_gateway.settle.calls import TRANSFER_TOPIC, address_topic
from taprail_gateway.settle.chain import Chain, chunks
from taprail_gateway.settle.errors import ChainError
from taprail_gateway.settle.executions import SPENT_TOPICS, Place, Transfer, executed
from taprail_gateway.settle.judge import transfer_of
from taprail_gateway.settle.replies import Block, Log, Receipt
from taprail_gateway.settle.told import Told
from taprail_gateway.settle.view import HeldLane

# Topics that nodes take without complaint, and queries that one look may take.
_PAYERS_PER_QUERY: Final = 500
_MAX_QUERIES: Final = 4
# Blocks that one query reaches back. After a longer gap the receipts of what was in flight are
# fewer than the logs of all that the payers did.
_MAX_BLOCKS: Final = 100

_log = structlog.get_logger("settle.mined")


@dataclass(frozen=True, slots=True)
class AtHand:
    """A transaction whose nonce is used up at the confirmed block, with what travelled in it."""

    held: HeldLane
    transaction: OpenTransaction
    payments: list[BoundPayment]
    versions: list[Version]

    @property
    def hashes(self) -> list[str]:
        """Of every version that may have been mined."""
        return [version.tx_hash for version in self.versions]


@dataclass(frozen=True, slots=True)
class Landed:
    """What became of a transaction: its receipt; None when a stranger used its nonce."""

    at_hand: AtHand
    receipt: Receipt | None

    @property
    def had_its_chance(self) -> bool:
        """Whether what was mined is the transaction that carried the payments."""
        return self.receipt is not None and not self._is_noop

    @property
    def outcome(self) -> str:
        """For people: why a payment in it was not made."""
        if self.receipt is None:
            return "its nonce was used by a transaction that is not ours"
        if self._is_noop:
            return "its transaction was replaced by one that does nothing"
        if not self.receipt.succeeded:
            return "its transaction did not run"
        return "its call failed inside the transaction"

    @property
    def _is_noop(self) -> bool:
        mined = self.receipt.tx_hash if self.receipt is not None else ""
        kinds = {version.tx_hash: version.kind for version in self.at_hand.versions}
        return kinds.get(mined) == "noop"


@dataclass
class MinedReader:
    """Reads for one confirmer; remembers how far the logs were used."""

    chain: Chain
    _done_until: int | None = field(default=None, init=False)
    _told: Told = field(default_factory=Told, init=False)

    def forget(self) -> None:
        """The blocks that were read are gone."""
        self._done_until = None

    def done(self, block: Block) -> None:
        """All that is mined up to this block was taken up: the next query begins after it."""
        self._done_until = block.number

    async def paid(
        self, at_hand: Sequence[AtHand], block: Block, now_s: float
    ) -> Mapping[Transfer, Place]:
        """What the logs of the new blocks show as paid; nothing when they cannot be read."""
        payers = sorted({payment.payer for item in at_hand for payment in item.payments})
        if not payers or len(payers) > _PAYERS_PER_QUERY * _MAX_QUERIES:
            return {}
        first = max(0, block.number - _MAX_BLOCKS + 1, (self._done_until or 0) + 1)
        logs: list[Log] = []
        try:
            for part in chunks(payers, _PAYERS_PER_QUERY):
                topics = [[*SPENT_TOPICS, TRANSFER_TOPIC], [address_topic(each) for each in part]]
                # A block that was done is asked again when a reorg has brought payments back.
                logs += await self.chain.token_logs(topics, min(first, block.number), block.number)
            crash("confirm.logs_read")
            moved = executed(self.chain.token.address, logs)
            await self._check_blocks(
                [(p.block_number, p.block_hash) for p in moved.values()], block
            )
        except ChainError as exc:
            if self._told.is_new(exc.message, now_s):
                _log.warning("settle.receipts_instead_of_logs", reason=str(exc))
            return {}
        return moved

    async def landed(self, at_hand: Sequence[AtHand], block: Block) -> dict[int, Receipt]:
        """The receipts up to the confirmed block, by the row of the transaction."""
        receipts = await self.chain.receipts([each for item in at_hand for each in item.hashes])
        crash("confirm.receipts_read")
        final = {
            tx_hash: receipt
            for tx_hash, receipt in receipts.items()
            if receipt.block_number <= block.number
        }
        await self._check_blocks([(r.block_number, r.block_hash) for r in final.values()], block)
        return {
            item.transaction.id: final[tx_hash]
            for item in at_hand
            for tx_hash in item.hashes
            if tx_hash in final
        }

    async def _check_blocks(self, places: Sequence[tuple[int, str]], block: Block) -> None:
        """Raise ChainError unless these blocks are in the chain: another branch, or a lie."""
        named = set(places)
        others = sorted({number for number, _ in named if number != block.number})
        found = [*await self.chain.blocks(others), block] if others else [block]
        hashes = {each.number: each.block_hash for each in found if each is not None}
        if any(hashes.get(number) != block_hash for number, block_hash in named):
            raise ChainError("the node spoke of a block that is not in its chain")


def is_explained(item: AtHand, moved: Mapping[Transfer, Place]) -> bool:
    """Whether all payments of a transaction were paid, one of them by the transaction itself."""
    places = [moved.get(transfer_of(payment)) for payment in item.payments]
    own = set(item.hashes)
    return None not in places and any(place.tx_hash in own for place in places if place is not None)

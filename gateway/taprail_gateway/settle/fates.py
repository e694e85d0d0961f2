"""Reads from the chain what became of authorizations whose own transaction did not carry them out.

Anyone may carry out a public authorization, and its holder may use it up. The token's state says
whether it was spent; only the logs of the transaction that spent it say by what. Logs that cannot
be read leave the payments that they are about unclear, and nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import structlog

from taprail_common.crash import crash
from taprail_gateway.ledger import under_way
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.queries import BoundPayment
from taprail_gateway.settle.chain import Chain, chunks
from taprail_gateway.settle.errors import ChainError
from taprail_gateway.settle.executions import SPENT_TOPICS, fate
from taprail_gateway.settle.judge import Facts, transfer_of
from taprail_gateway.settle.replies import Block, Log
from taprail_gateway.settle.told import Told

# Nonces in the topics of one log query; 50 take a node 1 ms.
_NONCES_PER_QUERY: Final = 100
# Spent authorizations that one pass looks for: five queries of each range of blocks.
_MAX_SOUGHT: Final = 500
# Blocks of one log query: what public providers answer at the least.
_BLOCKS_PER_QUERY: Final = 500
# How far back is looked: twice the usual validity (600 s) at blocks of a quarter second, and within
# what providers answer. What is older stays unclear and waits for a person.
_LOOK_BACK_BLOCKS: Final = 5_000

_log = structlog.get_logger("settle.fates")


@dataclass
class FateReader:
    """Reads the facts for the confirmer's judgements."""

    ledger: Ledger
    chain: Chain
    _told: Told = field(default_factory=Told, init=False)

    async def read(
        self, payments: Sequence[BoundPayment], block: Block, now_s: float
    ) -> dict[str, Facts]:
        """The facts at a block for each payment, by its id; ChainError when states are not told."""
        if not payments:
            return {}
        pairs = [(payment.payer, payment.id) for payment in payments]
        states = await self.chain.authorizations_spent(pairs, block.number)
        crash("confirm.states_read")
        spent = [payment.id for payment, state in zip(payments, states, strict=True) if state]
        logs: list[Log] = []
        for nonces in chunks(spent[:_MAX_SOUGHT], _NONCES_PER_QUERY):
            logs += await self._logs_about(nonces, block, now_s)
        times = await self.ledger.read(
            partial(under_way.times_left_out, payment_ids=[payment.id for payment in payments])
        )
        token = self.chain.token.address
        facts = {
            payment.id: Facts(
                state, fate(transfer_of(payment), token, logs), times.get(payment.id, 0)
            )
            for payment, state in zip(payments, states, strict=True)
        }
        self._tell_unclear(facts, block, now_s)
        return facts

    async def _logs_about(self, nonces: Sequence[str], block: Block, now_s: float) -> list[Log]:
        """All logs of the transactions that spent these nonces; none when they cannot be read."""
        try:
            hashes = await self._spenders(nonces, block)
            receipts = await self.chain.receipts(sorted(hashes))
        except ChainError as exc:
            if self._told.is_new(exc.message, now_s):
                _log.warning("settle.logs_unread", authorizations=len(nonces), reason=str(exc))
            return []
        crash("confirm.fates_read")
        return [
            log
            for receipt in receipts.values()
            if receipt.block_number <= block.number
            for log in receipt.logs
        ]

    async def _spenders(self, nonces: Sequence[str], block: Block) -> set[str]:
        """The transactions that spent them, the newest blocks first, until each is found."""
        sought, found = set(nonces), set()
        end = block.number
        oldest = max(0, block.number - _LOOK_BACK_BLOCKS)
        while sought and end >= oldest:
            first = max(oldest, end - _BLOCKS_PER_QUERY + 1)
            topics = [SPENT_TOPICS, None, sorted(sought)]
            for log in await self.chain.token_logs(topics, first, end):
                if len(log.topics) == 3:
                    found.add(log.tx_hash)
                    # Another payer may have spent the same number: go on for the others only.
                    sought.discard(log.topics[2])
            end = first - 1
        return found

    def _tell_unclear(self, facts: dict[str, Facts], block: Block, now_s: float) -> None:
        for payment_id, known in facts.items():
            if known.is_unclear and self._told.is_new(payment_id, now_s):
                _log.error("settle.spent_but_where", payment=payment_id, block=block.number)


def one_more_left_out(facts: Facts) -> Facts:
    """The facts with the transaction counted that is being judged now."""
    return replace(facts, left_out=facts.left_out + 1)

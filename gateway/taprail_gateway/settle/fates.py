"""Reads from the chain what became of authorizations whose own transaction did not carry them out.

Anyone may carry out a public authorization, and its holder may use it up. The token's state says
whether it was spent; only the logs of the transaction that spent it say by what.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from taprail_gateway.ledger.queries import BoundPayment
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.executions import SPENT_TOPICS, fate
from taprail_gateway.settle.judge import Facts, transfer_of
from taprail_gateway.settle.replies import Block, Log

# Nonces in the topics of one log query; 50 take a node 1 ms.
_NONCES_PER_QUERY: Final = 100
# Blocks of one log query: what public providers answer at the least.
_BLOCKS_PER_QUERY: Final = 500
# How far back is looked: twice the usual validity (600 s) at blocks of a quarter second, and within
# what providers answer. What is older stays unclear and waits for a person.
_LOOK_BACK_BLOCKS: Final = 5_000

_log = structlog.get_logger("settle.fates")


async def read_fates(
    chain: Chain, payments: Sequence[BoundPayment], block: Block
) -> dict[str, Facts]:
    """The facts at a block for each payment, by its id; raises ChainError unless it has all."""
    states = await chain.authorizations_spent([(p.payer, p.id) for p in payments], block.number)
    spent = [payment.id for payment, state in zip(payments, states, strict=True) if state]
    logs: list[Log] = []
    for start in range(0, len(spent), _NONCES_PER_QUERY):
        logs += await _logs_about(chain, spent[start : start + _NONCES_PER_QUERY], block)
    facts = {
        payment.id: Facts(state, fate(transfer_of(payment), chain.token.address, logs))
        for payment, state in zip(payments, states, strict=True)
    }
    for payment_id, known in facts.items():
        if known.is_unclear:
            _log.error("settle.spent_but_where", payment=payment_id, block=block.number)
    return facts


async def _logs_about(chain: Chain, nonces: Sequence[str], block: Block) -> list[Log]:
    """All logs of the transactions that spent these nonces: event, and transfer beside it."""
    first = max(0, block.number - _LOOK_BACK_BLOCKS)
    events: list[Log] = []
    for start in range(first, block.number + 1, _BLOCKS_PER_QUERY):
        end = min(start + _BLOCKS_PER_QUERY - 1, block.number)
        events += await chain.token_logs([SPENT_TOPICS, None, nonces], start, end)
    receipts = await chain.receipts(sorted({log.tx_hash for log in events}))
    return [log for receipt in receipts.values() for log in receipt.logs]

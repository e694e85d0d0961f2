"""A past for a shop: completed payments in bulk, without the hours of living through it.

By the ledger's own functions, step by step as settlement takes them, so that its invariants hold.
Each old transaction is final in a block that is on the chain, because the reorg watch looks. Only
the chain does not know them: their hashes and bytes are random, of the length of real ones.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Connection

from taprail_gateway.ledger import transitions
from taprail_gateway.ledger.leases import Lease
from taprail_gateway.ledger.transitions import Attempt, Confirmed
from taprail_hwsim.dev_chain import DevChain
from tests.bench.stock import accept_in_turn
from tests.support.ledger_fixtures import lease_of
from tests.support.settle_shop import Shop

PER_TRANSACTION: Final = 50
"""As settlement's settings have it."""
_RAW_BYTES: Final = 24_000
"""Of a transaction with fifty payments."""
_GAS_LIMIT: Final = 2_500_000
_FEE_WEI: Final = 2 * 10**9
_VALIDITY_S: Final = 600
_PER_COMMIT: Final = 20
_BLOCKS_PER_CALL: Final = 200
"""Made or read at once: some hundred milliseconds of a node's."""


@dataclass(frozen=True, slots=True)
class _Past:
    """One transaction that was, and where it became final."""

    nonce: int
    turns: list[int]
    block_number: int
    block_hash: str


def blocks_for(payments: int) -> int:
    """How many blocks a past of so many payments takes: one for each transaction."""
    return -(-payments // PER_TRANSACTION)


def mine_past(chain: DevChain, payments: int) -> None:
    """Make the blocks for a past of so many payments."""
    left = blocks_for(payments)
    while left > 0:
        chain.mine(min(left, _BLOCKS_PER_CALL))
        left -= _BLOCKS_PER_CALL


async def live_through(shop: Shop, payments: int) -> None:
    """Give a lane that has sent nothing a past in the chain's first blocks.

    The accounts' balances must have been read behind these blocks: their holds are given back.
    """
    past = plan(payments, len(shop.registry.cards), _hashes(shop.chain, blocks_for(payments)))
    lease = await shop.ledger.write(partial(_begin, lane=shop.lane))
    for start in range(0, len(past), _PER_COMMIT):
        part = past[start : start + _PER_COMMIT]
        await shop.ledger.write(partial(_live, shop=shop, lease=lease, past=part))
    shop.chain.node.call("anvil_setNonce", shop.lane, hex(len(past)))


def plan(payments: int, cards: int, hashes: Sequence[str]) -> list[_Past]:
    """A transaction a block, full but for the last; cards in turn. `hashes` begin at block 1."""
    return [
        _Past(
            nonce,
            [turn % cards for turn in range(first, min(first + PER_TRANSACTION, payments))],
            nonce + 1,
            hashes[nonce],
        )
        for nonce, first in enumerate(range(0, payments, PER_TRANSACTION))
    ]


def _hashes(chain: DevChain, count: int) -> list[str]:
    """Of the blocks from 1 on."""
    hashes: list[str] = []
    for start in range(1, count + 1, _BLOCKS_PER_CALL):
        numbers = range(start, min(start + _BLOCKS_PER_CALL, count + 1))
        asked = [("eth_getBlockByNumber", [hex(number), False]) for number in numbers]
        hashes += [str(block["hash"]) for block in chain.node.batch(asked)]
    return hashes


def _begin(connection: Connection, *, lane: str) -> Lease:
    lease = lease_of(connection, lane)
    transitions.start_lane(connection, lease, first_nonce=0)
    return lease


def _live(connection: Connection, *, shop: Shop, lease: Lease, past: Sequence[_Past]) -> None:
    at_ms = shop.clock.now_ms()
    confirmed: list[Confirmed] = []
    for item in past:
        ids = accept_in_turn(connection, shop, item.turns)
        attempt = _attempt(len(ids))
        row = transitions.bind(
            connection,
            lease,
            nonce=item.nonce,
            payment_ids=ids,
            attempt=attempt,
            valid_before_s=at_ms // 1000 + _VALIDITY_S,
            at_ms=at_ms,
        )
        transitions.mark_broadcast(connection, [row], at_ms)
        transitions.finish_transactions(connection, [row], item.block_number, item.block_hash)
        place = (attempt.tx_hash, item.block_number, item.block_hash)
        confirmed += [Confirmed(each, *place) for each in ids]
    transitions.complete(connection, confirmed, {}, past[-1].block_number, at_ms)


def _attempt(payments: int) -> Attempt:
    raw = secrets.token_bytes(_RAW_BYTES * payments // PER_TRANSACTION)
    return Attempt("0x" + secrets.token_hex(32), raw, _GAS_LIMIT, _FEE_WEI, _FEE_WEI)

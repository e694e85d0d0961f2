"""A long queue of full transactions that the node has forgotten is offered to it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from taprail_gateway.ledger.database import Ledger
from taprail_hwsim.dev_chain import DevChain
from tests.support.settle_shop import open_shop

pytestmark = pytest.mark.chain

FULL_TRANSACTIONS = 50
"""Of fifty payments each: over 2 MiB as JSON, more than anvil takes in one request."""
BLOCK_GAS = 30_000_000
ROOMY_BLOCK_GAS = 2 * BLOCK_GAS
"""So many may be under way only where blocks hold more."""


async def test_a_restart_sends_a_long_queue_again(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    chain.node.call("evm_setIntervalMining", 0)
    chain.node.call("evm_setBlockGasLimit", hex(ROOMY_BLOCK_GAS))
    chain.mine()
    try:
        async with open_shop(chain, ledger, tmp_path / "master.key") as shop:
            await shop.sell(50 * FULL_TRANSACTIONS)
            sender = (await shop.settlement()).sender
            while (await sender.tick()).may_be_more:
                pass
            chain.node.call("anvil_dropAllTransactions")
            restarted = (await shop.settlement()).sender
            assert (await restarted.tick()).obstacle is None
            assert int(chain.node.call("txpool_status")["pending"], 16) == FULL_TRANSACTIONS
    finally:
        chain.node.call("evm_setBlockGasLimit", hex(BLOCK_GAS))
        chain.node.call("evm_setIntervalMining", 1)

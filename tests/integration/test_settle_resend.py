"""A long queue of full transactions that the node has forgotten is offered to it again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taprail_gateway.ledger.database import Ledger
from taprail_hwsim.dev_chain import DevChain
from tests.support.rpc_proxy import running_proxy
from tests.support.settle_shop import Shop, open_shop

pytestmark = pytest.mark.chain

FULL_TRANSACTIONS = 50
"""Of fifty payments each: over 2 MiB as JSON, more than anvil takes in one request."""
BLOCK_GAS = 30_000_000
ROOMY_BLOCK_GAS = 2 * BLOCK_GAS
"""So many may be under way only where blocks hold more."""


@pytest.fixture
def still(chain: DevChain) -> Iterator[DevChain]:
    """A chain that makes no block by itself."""
    chain.node.call("evm_setIntervalMining", 0)
    chain.node.call("evm_setBlockGasLimit", hex(ROOMY_BLOCK_GAS))
    chain.mine()
    yield chain
    chain.node.call("evm_setBlockGasLimit", hex(BLOCK_GAS))
    chain.node.call("evm_setIntervalMining", 1)


def in_pool(chain: DevChain) -> int:
    return int(chain.node.call("txpool_status")["pending"], 16)


async def send_and_forget(shop: Shop, payments: int) -> int:
    """Send so many, and let the node forget them all; how many transactions there are."""
    await shop.sell(payments)
    sender = (await shop.settlement()).sender
    while (await sender.tick()).may_be_more:
        pass
    shop.chain.node.call("anvil_dropAllTransactions")
    return len(shop.transactions())


async def test_a_restart_sends_a_long_queue_again(
    still: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(still, ledger, tmp_path / "master.key") as shop:
        assert await send_and_forget(shop, 50 * FULL_TRANSACTIONS) == FULL_TRANSACTIONS
        restarted = (await shop.settlement()).sender
        assert (await restarted.tick()).obstacle is None
        assert in_pool(still) == FULL_TRANSACTIONS


async def test_a_queue_of_many_is_read_and_sent_in_portions(
    still: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(
        still, ledger, tmp_path / "master.key", payments_per_transaction=1
    ) as shop:
        count = await send_and_forget(shop, 250)
        restarted = (await shop.settlement()).sender
        assert (await restarted.tick()).may_be_more
        assert in_pool(still) == 200
        await restarted.tick()
        assert in_pool(still) == count == 250


async def test_what_a_restart_could_not_send_again_is_sent_when_the_node_answers(
    still: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with (
        open_shop(still, ledger, tmp_path / "master.key", payments_per_transaction=1) as shop,
        running_proxy(still.rpc_url) as proxy,
    ):
        await send_and_forget(shop, 120)
        restarted = (await shop.settlement(await shop.connect(proxy.url))).sender
        proxy.answer(lambda _asked: 429, times=2)
        for meaning in ("capacity", "capacity"):
            assert meaning in ((await restarted.tick()).obstacle or "")
        assert in_pool(still) == 0
        assert (await restarted.tick()).obstacle is None
        assert in_pool(still) == 120

"""What counts as final: a depth, or the node's own word for it, also when it changes at work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from taprail_gateway.ledger import actions
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.engine import Settlement
from taprail_hwsim.dev_chain import DevChain
from tests.support.confirm_shop import assert_balances, rpc_calls_of, send_from_each, still_shop
from tests.support.settle_shop import Shop, blocks

pytestmark = pytest.mark.chain

# Anvil's epochs have one slot here: one block of it is safe, two are final.
BLOCKS_ON_TOP = {1: 0, 3: 2, "safe": 1, "finalized": 2}


@pytest_asyncio.fixture
async def shop(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Shop]:
    async with still_shop(
        chain, ledger, tmp_path / "master.key", lanes=2, payments_per_transaction=2
    ) as opened:
        yield opened


async def set_at_work(shop: Shop, settlement: Settlement, **values: object) -> None:
    by = By("test", 1)
    await shop.ledger.write(lambda connection: actions.set_values(connection, values, by))
    await settlement.follow_settings()


@pytest.mark.parametrize("confirmations", BLOCKS_ON_TOP)
@pytest.mark.parametrize("is_set_at_work", [False, True])
async def test_a_payment_is_final_with_so_many_blocks_on_top(
    shop: Shop, confirmations: int | str, is_set_at_work: bool
) -> None:
    at_start = 1 if is_set_at_work else confirmations
    settlement = await shop.settlement(confirmations=at_start)
    if is_set_at_work:
        await blocks(shop, settlement)
        await set_at_work(shop, settlement, confirmations=confirmations)
    ids = await send_from_each(shop, settlement)
    await blocks(shop, settlement)
    for _ in range(BLOCKS_ON_TOP[confirmations]):
        assert shop.states(ids) == {"sent": 4}
        await blocks(shop, settlement)
    assert shop.states(ids) == {"completed": 4}
    shop.assert_books_balance()


async def test_less_depth_takes_effect_at_the_next_look(shop: Shop) -> None:
    settlement = await shop.settlement(confirmations=20)
    ids = await send_from_each(shop, settlement)
    await blocks(shop, settlement, 2)
    assert shop.states(ids) == {"sent": 4}
    await set_at_work(shop, settlement, confirmations=1)
    await blocks(shop, settlement)
    assert shop.states(ids) == {"completed": 4}
    await assert_balances(shop)


async def test_more_depth_takes_nothing_back_and_counts_from_then_on(shop: Shop) -> None:
    settlement = await shop.settlement()
    first = await send_from_each(shop, settlement)
    await blocks(shop, settlement)
    await set_at_work(shop, settlement, confirmations=4)
    second = await send_from_each(shop, settlement)
    await blocks(shop, settlement, 3)
    assert shop.states(first) == {"completed": 4}
    assert shop.states(second) == {"sent": 4}
    # A reorg above the depth is nobody's business now.
    shop.chain.reorg(1)
    await blocks(shop, settlement)
    assert shop.states(first + second) == {"completed": 8}
    await assert_balances(shop, 4)
    shop.assert_books_balance()


async def test_the_batch_and_the_interval_are_what_they_were_last_set_to(shop: Shop) -> None:
    # Blocks by the test's hand alone: one that came between would be asked for as well.
    shop.chain.node.call("evm_setIntervalMining", 0)
    try:
        await _batch_and_interval(shop)
    finally:
        shop.chain.node.call("evm_setIntervalMining", 1)


async def _batch_and_interval(shop: Shop) -> None:
    settlement = await shop.settlement(confirmation_interval_ms=60_000)
    await blocks(shop, settlement)
    assert await rpc_calls_of(settlement) == 1, "the same head: nothing more is asked"
    shop.clock.ahead_ms += 1_000
    await set_at_work(shop, settlement, confirmation_interval_ms=500, confirmation_batch_size=1)
    assert await rpc_calls_of(settlement) > 1, "long enough ago by now"
    assert settlement.confirmer.rhythm.wait_s(shop.clock.monotonic_s() + 100) <= 0.5
    ids = await _three_each(shop, settlement)
    one_by_one = await rpc_calls_of(settlement)
    assert shop.states(ids) == {"completed": 12}
    await set_at_work(shop, settlement, confirmation_batch_size=200)
    more = await _three_each(shop, settlement)
    # By more than the one with which a look reads a few accounts that did not move.
    assert await rpc_calls_of(settlement) + 1 < one_by_one
    assert shop.states(more) == {"completed": 12}


async def _three_each(shop: Shop, settlement: Settlement) -> list[str]:
    """A block with three transactions of every lane; the ids of the payments in them."""
    ids = [each for _ in range(3) for each in await send_from_each(shop, settlement)]
    shop.chain.mine()
    return ids


async def test_the_deadline_is_what_it_was_last_set_to(shop: Shop) -> None:
    settlement = await shop.settlement(confirmation_timeout_s=300)
    ids = await send_from_each(shop, settlement)
    shop.chain.node.call("anvil_dropAllTransactions")
    shop.chain.fund(shop.lanes[0], 0)
    shop.chain.fund(shop.lanes[1], 0)
    await blocks(shop, settlement)
    shop.clock.ahead_ms += 20_000
    await blocks(shop, settlement)
    assert shop.states(ids) == {"sent": 4}
    await set_at_work(shop, settlement, confirmation_timeout_s=10)
    await blocks(shop, settlement)
    assert shop.states(ids) == {"confirmation_failed": 4}
    assert "not confirmed within 10 s" in str(shop.payment(ids[0]).failure_reason)

"""A reorg deeper than the chosen depth: noticed, taken back, and paid again by the same bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_gateway.ledger import queries
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.engine import Settlement
from taprail_hwsim.dev_chain import DevChain
from tests.support.settle_shop import BALANCE_UNITS, Shop, blocks, open_shop

pytestmark = pytest.mark.chain


@pytest_asyncio.fixture
async def shop(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop on a chain whose blocks come by the test's hand alone."""
    chain.node.call("evm_setIntervalMining", 0)
    async with open_shop(chain, ledger, tmp_path / "master.key") as opened:
        yield opened
    chain.node.call("evm_setIntervalMining", 1)  # no part of the state that the chain goes back to


async def sell_and_complete(shop: Shop, settlement: Settlement, *, amount_units: int) -> str:
    [payment] = await shop.sell(amount_units=amount_units)
    await settlement.sender.tick()
    await blocks(shop, settlement)
    assert shop.payment(payment).state is PaymentState.COMPLETED
    return payment


def events_of(shop: Shop, payment: str) -> list[str]:
    return [row.event for row in shop.ledger.read_now(lambda c: queries.history(c, payment))]


@pytest.mark.parametrize("restart", [False, True])
async def test_a_completed_payment_whose_block_is_gone_is_paid_again(
    shop: Shop, restart: bool
) -> None:
    settlement = await shop.settlement()
    payment = await sell_and_complete(shop, settlement, amount_units=250)
    shop.chain.reorg(1)
    assert shop.received_units() == 0
    if restart:
        settlement = await shop.settlement()
    await settlement.confirmer.tick()
    assert shop.payment(payment).state is PaymentState.SENT
    assert (shop.balance()[0], shop.balance()[2]) == (BALANCE_UNITS, 250)
    await blocks(shop, settlement, 3)
    assert shop.payment(payment).state is PaymentState.COMPLETED
    assert events_of(shop, payment).count(PaymentEvent.REORG) == 1
    assert shop.received_units() == 250
    shop.assert_books_balance()


async def test_the_lane_goes_on_after_a_reorg(shop: Shop) -> None:
    settlement = await shop.settlement()
    first = await sell_and_complete(shop, settlement, amount_units=250)
    shop.chain.reorg(1)
    [second] = await shop.sell(amount_units=100)
    for _ in range(4):
        await settlement.sender.tick()
        await blocks(shop, settlement)
    assert shop.states([first, second]) == {"completed": 2}
    assert shop.received_units() == 350
    shop.assert_books_balance()


async def test_only_what_stood_in_the_lost_blocks_is_taken_back(shop: Shop) -> None:
    settlement = await shop.settlement()
    early = await sell_and_complete(shop, settlement, amount_units=250)
    await blocks(shop, settlement, 2)
    late = await sell_and_complete(shop, settlement, amount_units=100)
    shop.chain.reorg(2)
    await settlement.confirmer.tick()
    assert shop.payment(early).state is PaymentState.COMPLETED
    assert shop.payment(late).state is PaymentState.SENT


async def test_a_reorg_that_changes_nothing_of_ours_costs_nothing(shop: Shop) -> None:
    settlement = await shop.settlement()
    payment = await sell_and_complete(shop, settlement, amount_units=250)
    await blocks(shop, settlement, 2)
    shop.chain.reorg(1)
    await blocks(shop, settlement, 2)
    assert PaymentEvent.REORG not in events_of(shop, payment)
    shop.assert_books_balance()


async def test_a_top_up_that_is_gone_is_not_spent(shop: Shop) -> None:
    settlement = await shop.settlement()
    await blocks(shop, settlement)
    shop.chain.mint(shop.account(), 500)
    await settlement.confirmer.tick()
    assert shop.balance()[0] == BALANCE_UNITS + 500
    shop.chain.reorg(shop.chain.block_number() - shop.balance()[1] + 1)
    await blocks(shop, settlement, 2)
    assert shop.balance()[0] == BALANCE_UNITS

"""Reorgs of every depth with several lanes: what is gone goes back, lands again, and is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_gateway.ledger.alerts import open_alerts
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.standings import REORG_ALERT
from taprail_hwsim.dev_chain import DevChain
from tests.support.confirm_shop import (
    assert_balances,
    send_from_each,
    settle_all,
    still_shop,
    told_of,
)
from tests.support.settle_shop import BALANCE_UNITS, Shop, blocks

pytestmark = pytest.mark.chain


@pytest_asyncio.fixture
async def shop(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Shop]:
    async with still_shop(
        chain, ledger, tmp_path / "master.key", lanes=3, payments_per_transaction=2
    ) as opened:
        yield opened


def reorg_alerts(shop: Shop) -> set[str]:
    every = shop.ledger.read_now(open_alerts)
    return {alert.subject for alert in every if alert.kind == REORG_ALERT}


@pytest.mark.parametrize("confirmations", [1, 3])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
async def test_what_is_gone_goes_back_and_lands_again(
    shop: Shop, depth: int, confirmations: int
) -> None:
    settlement = await shop.settlement(confirmations=confirmations)
    sold: list[str] = []
    for _ in range(depth + confirmations):  # what is completed in one block stays
        sold += await send_from_each(shop, settlement)
        await blocks(shop, settlement)
    completed = {each for each in sold if shop.payment(each).state is PaymentState.COMPLETED}
    assert len(completed) == 6 * (depth + 1)
    first_gone = shop.chain.block_number() - depth + 1
    gone = {each for each in completed if (shop.payment(each).block_number or 0) >= first_gone}
    assert len(gone) == 6 * max(0, depth - confirmations + 1)

    shop.chain.reorg(depth)
    await settlement.confirmer.tick()
    await assert_balances(shop, confirmations)
    assert shop.states(sorted(gone)) == ({"sent": len(gone)} if gone else {})
    assert shop.states(sorted(completed - gone)) == {"completed": len(completed - gone)}
    assert reorg_alerts(shop) == gone

    await settle_all(shop, settlement, sold, 12)
    await assert_balances(shop, confirmations)
    for each in sold:
        told = told_of(shop, each)
        assert told.count(PaymentEvent.REORG) == (each in gone)
        assert told.count(PaymentEvent.CONFIRM) == 1 + (each in gone)
    assert reorg_alerts(shop) == set()
    shop.assert_books_balance()


@pytest.mark.parametrize("restart", [False, True])
async def test_on_a_branch_that_is_still_shorter_nothing_is_concluded(
    shop: Shop, restart: bool
) -> None:
    """Payments of the lost branch, and others that land in the new one while it is still lower."""
    settlement = await shop.settlement()
    old = await send_from_each(shop, settlement)
    await blocks(shop, settlement, 6)
    assert shop.states(old) == {"completed": 6}
    shop.chain.node.call("anvil_rollback", 6)
    if restart:
        settlement = await shop.settlement()
    await blocks(shop, settlement)
    new = await send_from_each(shop, settlement)
    for _ in range(4):
        await blocks(shop, settlement)
        units, _, held = shop.balance()
        assert units - held <= BALANCE_UNITS - 2 * 200, "what all four payments want is reserved"
    assert shop.states(new)["completed"] == 0
    await settle_all(shop, settlement, old + new, 12)
    await assert_balances(shop)
    shop.assert_books_balance()


async def test_two_reorgs_one_after_the_other(shop: Shop) -> None:
    settlement = await shop.settlement()
    ids = await send_from_each(shop, settlement)
    await blocks(shop, settlement)
    for _ in range(2):
        shop.chain.reorg(1)
        await settlement.confirmer.tick()
        assert shop.states(ids) == {"sent": 6}
        await settle_all(shop, settlement, ids, 6)
    assert all(told_of(shop, each).count(PaymentEvent.REORG) == 2 for each in ids)
    await assert_balances(shop)
    shop.assert_books_balance()


async def test_a_payment_that_a_stranger_made_in_a_lost_block_is_made_by_us(shop: Shop) -> None:
    settlement = await shop.settlement()
    ids = await send_from_each(shop, settlement)
    shop.chain.node.call("anvil_dropAllTransactions")
    theirs = shop.execute(shop.authorization(ids[0], amount_units=100))
    await blocks(shop, settlement, 3)
    assert shop.states(ids) == {"completed": 6}
    assert shop.payment(ids[0]).tx_hash == theirs
    depth = shop.chain.block_number() - (shop.payment(ids[0]).block_number or 0) + 1
    shop.chain.reorg(depth)
    await settlement.confirmer.tick()
    assert shop.states(ids) == {"sent": 6}
    await settle_all(shop, settlement, ids, 8)
    assert shop.payment(ids[0]).tx_hash != theirs
    await assert_balances(shop)
    shop.assert_books_balance()

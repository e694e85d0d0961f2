"""What an operator sets takes effect on settlement that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import actions
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.live import QUEUE_MODE
from taprail_hwsim.dev_chain import DevChain
from tests.support.settle_shop import Shop, blocks, open_shop, until_settled

pytestmark = pytest.mark.chain


async def say(shop: Shop, **values: object) -> None:
    by = By("test", 1)
    await shop.ledger.write(lambda connection: actions.set_values(connection, values, by))


async def test_a_paused_queue_binds_nothing_and_finishes_what_is_bound(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(chain, ledger, tmp_path / "master.key") as shop:
        settlement = await shop.settlement()
        bound = await shop.sell(2)
        await settlement.sender.tick()
        await say(shop, **{QUEUE_MODE: "paused"})
        await settlement.follow_settings()
        waiting = await shop.sell(2)
        await settlement.sender.tick()
        await blocks(shop, settlement, 2)
        await settlement.sender.tick()
        assert shop.states(bound) == {"completed": 2}
        assert shop.states(waiting) == {"pending": 2}
        await say(shop, **{QUEUE_MODE: None})
        await settlement.follow_settings()
        await settlement.sender.tick()
        assert shop.states(waiting) == {"sent": 2}


async def test_a_new_size_of_transactions_holds_without_a_restart(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(chain, ledger, tmp_path / "master.key") as shop:
        settlement = await shop.settlement()
        await say(shop, payments_per_transaction=2)
        await settlement.follow_settings()
        await shop.sell(6)
        await settlement.sender.tick()
        assert len(shop.transactions()) == 3


async def test_a_running_settlement_sees_what_another_process_sets(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(chain, ledger, tmp_path / "master.key") as shop:
        await say(shop, **{QUEUE_MODE: "paused"})
        settlement = await shop.settlement()
        await settlement.start()
        try:
            ids = await shop.sell(1)
            await say(shop, **{QUEUE_MODE: None})
            await until_settled(shop, ids, PaymentState.COMPLETED)
        finally:
            await settlement.stop()

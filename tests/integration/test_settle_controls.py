"""What an operator sets takes effect on settlement that runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import actions
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.errors import FeeCapError
from taprail_gateway.settle.live import QUEUE_MODE
from taprail_hwsim.dev_chain import DevChain
from tests.support.settle_shop import Shop, blocks, open_shop, tick_all, until_settled

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


async def test_a_fee_cap_holds_from_the_next_batch_on(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(chain, ledger, tmp_path / "master.key") as shop:
        settlement = await shop.settlement()
        ids = await shop.sell(3)
        await say(shop, max_fee_cap_gwei=1e-9, priority_fee_gwei=0)
        await settlement.follow_settings()
        with pytest.raises(FeeCapError, match="max_fee_cap_gwei"):
            await settlement.sender.tick()
        assert shop.states(ids) == {"pending": 3}
        assert {shop.payment(each).signed_until_s for each in ids} == {0}, "nothing signed in vain"
        await say(shop, max_fee_cap_gwei=None, priority_fee_gwei=None)
        await settlement.follow_settings()
        await settlement.sender.tick()
        assert shop.states(ids) == {"sent": 3}


async def test_a_new_size_of_batches_and_of_what_may_be_under_way_reaches_every_lane(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(chain, ledger, tmp_path / "master.key", lanes=2) as shop:
        settlement = await shop.settlement()
        await tick_all(settlement)
        await say(shop, payment_batch_size=4, payments_per_transaction=4, max_in_flight_payments=6)
        await settlement.follow_settings()
        ids = await shop.sell(30)
        await tick_all(settlement)
        assert shop.states(ids) == {"sent": 12, "pending": 18}
        sizes = Counter(shop.payment(each).chain_transaction_id for each in ids)
        assert sorted(size for at, size in sizes.items() if at is not None) == [2, 2, 4, 4]

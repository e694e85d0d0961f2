"""Two settlements on one ledger: one has the lane, the other rests until it may take it."""

from __future__ import annotations

from pathlib import Path

import pytest

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger.database import Ledger
from taprail_hwsim.dev_chain import DevChain
from tests.support.settle_shop import open_shop, until_settled

pytestmark = pytest.mark.chain


async def test_who_has_lost_the_lane_binds_nothing_more(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(chain, ledger, tmp_path / "master.key") as shop:
        first = await shop.settlement()
        await first.sender.tick()
        second = await shop.settlement()
        ids = await shop.sell(2)
        await first.sender.tick()
        assert not first.keeper.leases
        assert shop.states(ids) == {"pending": 2}
        await second.sender.tick()
        assert shop.states(ids) == {"sent": 2}


async def test_one_without_the_lane_rests_and_the_other_settles(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(chain, ledger, tmp_path / "master.key") as shop:
        resting = await shop.settlement()
        await resting.start()
        working = await shop.settlement()  # takes the lane from the one before
        await working.start()
        try:
            await resting.keeper.look()
            ids = await shop.sell(3)
            await until_settled(shop, ids, PaymentState.COMPLETED)
        finally:
            await working.stop()
            await resting.stop()
        shop.assert_books_balance()

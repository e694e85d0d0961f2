"""Rewards on a real node: every completed payment is rewarded once, and none suffers for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import alerts
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.mints import retry_failed
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.lanes import PAUSED_ALERT
from taprail_gateway.settle.reward_confirmer import BACKOFF, HINDERED_ALERT, MAX_BINDINGS
from taprail_gateway.settle.rewards import (
    MINTS_PER_TRANSACTION,
    NO_CONTRACT_ALERT,
    NOT_MINTER_ALERT,
)
from taprail_hwsim.dev_chain import DevChain
from tests.support.reward_points import MINT_BATCH
from tests.support.reward_shop import RewardShop, open_reward_shop
from tests.support.settle_shop import blocks

pytestmark = pytest.mark.chain

AMOUNT_UNITS = 250
REWARD_UNITS = 25


@pytest_asyncio.fixture
async def rewarding(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[RewardShop]:
    """A shop on a chain whose blocks come by the test's hand alone."""
    chain.node.call("evm_setIntervalMining", 0)
    async with open_reward_shop(chain, ledger, tmp_path / "master.key") as opened:
        yield opened
    chain.node.call("evm_setIntervalMining", 1)  # no part of the state that the chain goes back to


async def sold(rewarding: RewardShop, settlement: Settlement, count: int) -> list[str]:
    """Payments that are completed, with their rewards in the queue."""
    shop = rewarding.shop
    ids = await shop.sell(count, amount_units=AMOUNT_UNITS)
    while shop.states(ids) != {"completed": count}:
        await settlement.senders[shop.lane].tick()
        await blocks(shop, settlement)
    await dispatch(rewarding)
    return ids


async def dispatch(rewarding: RewardShop) -> None:
    dispatcher = rewarding.dispatcher()
    assert await dispatcher.take_lease()
    await dispatcher.tick()


async def mint(rewarding: RewardShop, settlement: Settlement, rounds: int = 1) -> None:
    """Send what waits on the rewards lane, make a block, and judge it."""
    assert settlement.rewards is not None
    for _ in range(rounds):
        await settlement.senders[rewarding.lane].tick()
        rewarding.shop.chain.mine()
        await settlement.rewards.tick()


def open_alerts(rewarding: RewardShop) -> list[str]:
    return [alert.kind for alert in rewarding.shop.ledger.read_now(alerts.open_alerts)]


async def test_a_hundred_payments_are_a_hundred_mints(rewarding: RewardShop) -> None:
    settlement = await rewarding.settlement()
    ids = await sold(rewarding, settlement, 100)
    assert rewarding.mint_states() == {"pending": 100}
    await mint(rewarding, settlement, 3)
    assert rewarding.mint_states() == {"completed": 100}
    rewarding.assert_each_rewarded_once(ids, REWARD_UNITS)
    sent = [row for row in rewarding.shop.transactions() if row["lane"] == rewarding.lane]
    assert len(sent) == 100 // MINTS_PER_TRANSACTION
    rewarding.shop.assert_books_balance()


async def test_a_restart_in_the_middle_mints_nothing_twice(rewarding: RewardShop) -> None:
    settlement = await rewarding.settlement()
    ids = await sold(rewarding, settlement, 20)
    await settlement.senders[rewarding.lane].tick()
    assert rewarding.mint_states() == {"sent": 20}
    again = await rewarding.settlement()
    await dispatch(rewarding)
    await mint(rewarding, again, 2)
    assert rewarding.mint_states() == {"completed": 20}
    rewarding.assert_each_rewarded_once(ids, REWARD_UNITS)


async def test_a_wallet_that_may_not_mint_waits_with_an_alert_and_heals(
    rewarding: RewardShop,
) -> None:
    settlement = await rewarding.settlement()
    rewarding.points.grant(rewarding.lane, allowed=False)
    ids = await sold(rewarding, settlement, 5)
    await mint(rewarding, settlement, 3)
    assert rewarding.mint_states() == {"pending": 5}
    assert open_alerts(rewarding) == [NOT_MINTER_ALERT]
    more = await sold(rewarding, settlement, 5)
    assert rewarding.shop.states(ids + more) == {"completed": 10}
    rewarding.points.grant(rewarding.lane)
    await mint(rewarding, settlement, 2)
    assert rewarding.mint_states() == {"completed": 10}
    assert open_alerts(rewarding) == []
    rewarding.assert_each_rewarded_once(ids + more, REWARD_UNITS)
    rewarding.shop.assert_books_balance()


async def test_a_contract_that_is_gone_is_waited_for_with_an_alert(
    rewarding: RewardShop, chain: DevChain
) -> None:
    settlement = await rewarding.settlement()
    code = chain.node.call("eth_getCode", rewarding.points.address, "latest")
    chain.node.call("anvil_setCode", rewarding.points.address, "0x")
    ids = await sold(rewarding, settlement, 3)
    await mint(rewarding, settlement, 3)
    assert rewarding.mint_states() == {"pending": 3}
    assert open_alerts(rewarding) == [NO_CONTRACT_ALERT]
    chain.node.call("anvil_setCode", rewarding.points.address, code)
    await mint(rewarding, settlement, 2)
    assert open_alerts(rewarding) == []
    rewarding.assert_each_rewarded_once(ids, REWARD_UNITS)
    rewarding.shop.assert_books_balance()


async def test_a_contract_that_goes_while_mints_are_under_way_loses_none(
    rewarding: RewardShop, chain: DevChain
) -> None:
    settlement = await rewarding.settlement()
    ids = await sold(rewarding, settlement, 3)
    await settlement.senders[rewarding.lane].tick()
    code = chain.node.call("eth_getCode", rewarding.points.address, "latest")
    chain.node.call("anvil_setCode", rewarding.points.address, "0x")
    await mint(rewarding, settlement, 2)
    assert rewarding.mint_states() == {"pending": 3}, "mined, and nothing was minted by it"
    assert open_alerts(rewarding) == [HINDERED_ALERT]
    chain.node.call("anvil_setCode", rewarding.points.address, code)
    rewarding.shop.clock.ahead_ms += BACKOFF.longest_ms
    await mint(rewarding, settlement, 2)
    assert rewarding.mint_states() == {"completed": 3}
    rewarding.assert_each_rewarded_once(ids, REWARD_UNITS)


async def test_an_empty_wallet_stops_rewards_alone_and_heals(
    rewarding: RewardShop, chain: DevChain
) -> None:
    settlement = await rewarding.settlement()
    ids = await sold(rewarding, settlement, 3)
    chain.node.call("anvil_setBalance", rewarding.lane, "0x0")
    await mint(rewarding, settlement, 2)
    assert open_alerts(rewarding) == [PAUSED_ALERT]
    more = await sold(rewarding, settlement, 3)
    assert rewarding.shop.states(ids + more) == {"completed": 6}
    chain.fund(rewarding.lane, 10**18)
    await mint(rewarding, settlement, 4)
    assert rewarding.mint_states() == {"completed": 6}
    assert open_alerts(rewarding) == []
    rewarding.assert_each_rewarded_once(ids + more, REWARD_UNITS)
    rewarding.shop.assert_books_balance()


async def test_a_batch_that_reverts_is_tried_again_later(rewarding: RewardShop) -> None:
    settlement = await rewarding.settlement()
    ids = await sold(rewarding, settlement, 5)
    await settlement.senders[rewarding.lane].tick()
    await revert_what_is_sent(rewarding, settlement)
    assert rewarding.mint_states() == {"pending": 5}
    assert open_alerts(rewarding) == [HINDERED_ALERT]
    assert {row["bindings"] for row in rewarding.mints().values()} == {1}
    await mint(rewarding, settlement)
    assert rewarding.mint_states() == {"pending": 5}, "not before the wait is over"
    rewarding.shop.clock.ahead_ms += BACKOFF.longest_ms
    await mint(rewarding, settlement, 2)
    assert rewarding.mint_states() == {"completed": 5}
    assert open_alerts(rewarding) == []
    rewarding.assert_each_rewarded_once(ids, REWARD_UNITS)


async def test_what_reverts_again_and_again_is_given_up_and_payments_are_not(
    rewarding: RewardShop,
) -> None:
    settlement = await rewarding.settlement()
    ids = await sold(rewarding, settlement, 2)
    for _ in range(MAX_BINDINGS):
        await settlement.senders[rewarding.lane].tick()
        await revert_what_is_sent(rewarding, settlement)
        rewarding.shop.clock.ahead_ms += BACKOFF.longest_ms
    assert rewarding.mint_states() == {"failed": 2}
    assert sorted(open_alerts(rewarding)) == ["mint_failed", "mint_failed", HINDERED_ALERT]
    assert rewarding.points.minted() == []
    assert rewarding.shop.states(ids) == {"completed": 2}
    rewarding.shop.assert_books_balance()
    by = By("olga", rewarding.shop.clock.now_ms())
    assert rewarding.shop.ledger.write_now(partial(retry_failed, by=by, limit=9)) == 2
    await mint(rewarding, settlement, 2)
    rewarding.assert_each_rewarded_once(ids, REWARD_UNITS)
    assert open_alerts(rewarding) == []


async def test_what_somebody_else_has_minted_counts(rewarding: RewardShop, chain: DevChain) -> None:
    settlement = await rewarding.settlement()
    [payment] = await sold(rewarding, settlement, 1)
    other = chain.accounts[3]
    rewarding.points.grant(other)
    payer = rewarding.shop.payment(payment).payer
    rewarding.points.send(other, MINT_BATCH, [bytes.fromhex(payment[2:])], [payer], [REWARD_UNITS])
    await mint(rewarding, settlement, 2)
    assert rewarding.mint_states() == {"completed": 1}
    assert rewarding.points.skipped() == [payment]
    rewarding.assert_each_rewarded_once([payment], REWARD_UNITS)


async def test_a_reorg_of_the_payment_rewards_it_once(rewarding: RewardShop) -> None:
    settlement = await rewarding.settlement()
    shop = rewarding.shop
    [payment] = await shop.sell(amount_units=AMOUNT_UNITS)
    await settlement.senders[shop.lane].tick()
    await blocks(shop, settlement)
    shop.chain.reorg(1)
    await settlement.confirmer.tick()
    assert shop.payment(payment).state is PaymentState.SENT
    await dispatch(rewarding)
    await mint(rewarding, settlement, 2)
    assert rewarding.mint_states() == {"pending": 1}, "its payment is not completed"
    while shop.payment(payment).state is not PaymentState.COMPLETED:
        await blocks(shop, settlement)
    await dispatch(rewarding)
    await mint(rewarding, settlement, 2)
    assert rewarding.mint_states() == {"completed": 1}
    rewarding.assert_each_rewarded_once([payment], REWARD_UNITS)


async def test_a_reorg_of_the_mint_sends_it_again(rewarding: RewardShop) -> None:
    settlement = await rewarding.settlement()
    ids = await sold(rewarding, settlement, 3)
    await mint(rewarding, settlement)
    assert rewarding.mint_states() == {"completed": 3}
    rewarding.shop.chain.reorg(1)
    assert rewarding.points.minted() == []
    assert settlement.rewards is not None
    await settlement.rewards.tick()
    assert rewarding.mint_states() == {"sent": 3}
    await mint(rewarding, settlement, 4)
    assert rewarding.mint_states() == {"completed": 3}
    rewarding.assert_each_rewarded_once(ids, REWARD_UNITS)


async def revert_what_is_sent(rewarding: RewardShop, settlement: Settlement) -> None:
    """Take the right to mint away just before the block that the lane's transactions get into."""
    assert settlement.rewards is not None
    rewarding.revoke_first()
    await settlement.rewards.tick()
    rewarding.points.grant(rewarding.lane)
    await settlement.rewards.tick()

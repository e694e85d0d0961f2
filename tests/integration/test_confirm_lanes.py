"""One pass over several lanes: few calls, each lane its own, nothing without its lease."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import update

from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_gateway.ledger import leases, schema
from taprail_gateway.ledger.alerts import open_alerts
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import lane_lease
from taprail_gateway.settle.engine import Settlement
from taprail_hwsim.dev_chain import DevChain
from tests.support.confirm_shop import (
    assert_balances,
    rpc_calls_of,
    send_from_each,
    settle_all,
    still_shop,
    told_of,
)
from tests.support.ledger_fixtures import on_postgres
from tests.support.rpc_proxy import RpcProxy, running_proxy
from tests.support.settle_shop import Shop, blocks

pytestmark = pytest.mark.chain

STRANGER = "0x" + "57" * 20
IDLE_CALLS_OF_A_LANE = 1
"""Its count of mined transactions."""
IDLE_CALLS = 5
"""The head, the chain's id, two queries of the token's logs, a slice of the balances."""


@pytest_asyncio.fixture
async def shop(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Shop]:
    async with still_shop(chain, ledger, tmp_path / "master.key", lanes=3) as opened:
        yield opened


@pytest_asyncio.fixture
async def proxy(shop: Shop) -> AsyncIterator[RpcProxy]:
    async with running_proxy(shop.chain.rpc_url) as running:
        yield running


async def send_many(shop: Shop, settlement: Settlement, count: int) -> list[str]:
    """So many payments of all cards, by one lane or several, all sent."""
    each = -(-count // 3)
    ids = [payment for card in range(3) for payment in await shop.sell(each, card=card)]
    while shop.states(ids) != {"sent": len(ids)}:
        for sender in settlement.senders.values():
            assert (await sender.tick()).obstacle is None
    return ids


def take_over(shop: Shop, lane: str) -> None:
    """Another gateway takes the lane's lease."""
    name, now_ms = lane_lease(lane), shop.clock.now_ms()
    assert shop.ledger.write_now(lambda c: leases.acquire(c, name, "other", now_ms, takeover=True))


@pytest.mark.parametrize("lanes", [2, 3])
async def test_lanes_are_confirmed_in_one_pass(shop: Shop, lanes: int) -> None:
    del shop.lanes[lanes:]
    settlement = await shop.settlement(payments_per_transaction=4)
    ids = await send_from_each(shop, settlement, 4)
    shop.chain.mine()
    calls = await rpc_calls_of(settlement)
    assert shop.states(ids) == {"completed": 4 * lanes}
    assert len({shop.payment(each).lane for each in ids}) == lanes
    assert {item["status"] for item in shop.transactions()} == {"final"}
    assert calls <= 10 + lanes
    shop.assert_books_balance()


async def test_the_calls_of_a_pass_do_not_grow_with_what_is_in_flight(shop: Shop) -> None:
    settlement = await shop.settlement()
    await blocks(shop, settlement)
    waiting: dict[int, int] = {}
    mined: dict[int, int] = {}
    for count in (48, 999):
        ids = await send_many(shop, settlement, count)
        await blocks(shop, settlement, 0)
        raw = len(shop.transactions())
        shop.chain.node.call("anvil_dropAllTransactions")
        shop.chain.mine()
        waiting[count] = await rpc_calls_of(settlement)
        assert shop.states(ids) == {"sent": len(ids)}
        await blocks(shop, settlement, 1)  # they are offered to the node again
        shop.chain.mine()
        mined[count] = await rpc_calls_of(settlement)
        assert len(shop.transactions()) == raw
        await settle_all(shop, settlement, ids, 4)
    assert waiting[48] == waiting[999] <= IDLE_CALLS + 3 * IDLE_CALLS_OF_A_LANE
    assert mined[999] <= mined[48] + 2
    shop.assert_books_balance()


async def test_one_lane_with_a_stranger_on_its_key_does_not_hold_up_the_others(shop: Shop) -> None:
    settlement = await shop.settlement(payments_per_transaction=2)
    first = await send_from_each(shop, settlement)
    await blocks(shop, settlement)
    second = await send_from_each(shop, settlement)
    lane = shop.lanes[1]
    fields: Any = {
        "to": STRANGER,
        "value": 1,
        "gas": 21_000,
        "nonce": 1,
        "chainId": shop.chain.chain_id,
        "maxFeePerGas": 10**11,
        "maxPriorityFeePerGas": 10**10,
    }
    signed = shop.lane_holder(lane).sign_transaction(fields)
    shop.chain.node.call("eth_sendRawTransaction", "0x" + bytes(signed.raw_transaction).hex())
    await settle_all(shop, settlement, first + second, 8)
    assert [(it.kind, it.subject) for it in shop.ledger.read_now(open_alerts)] == [
        ("foreign_nonce", lane)
    ]
    shop.assert_books_balance()


async def test_payments_of_a_transaction_that_became_a_no_op_go_round_again(shop: Shop) -> None:
    settlement = await shop.settlement(payments_per_transaction=2)
    ids = await send_from_each(shop, settlement)
    shop.chain.node.call("anvil_dropAllTransactions")
    # Past the end of what they carry, a no-op takes their nonces; what is signed anew lives longer.
    shop.chain.advance_time(601)
    await settlement.confirmer.tick()
    await blocks(shop, settlement, 2)
    shop.clock.ahead_ms += 601_000
    assert {shop.payment(each).state for each in ids} <= {
        PaymentState.PENDING,
        PaymentState.SENT,
        PaymentState.PROCESSING,
    }
    await settle_all(shop, settlement, ids, 6)
    for each in ids:
        assert told_of(shop, each).count(PaymentEvent.UNBIND) == 1
        assert shop.payment(each).bindings == 2
    await assert_balances(shop)
    shop.assert_books_balance()


# --- without the lease ----------------------------------------------------------------------------


async def test_who_has_lost_one_lane_writes_nothing_about_it_and_goes_on_with_the_others(
    shop: Shop,
) -> None:
    settlement = await shop.settlement(payments_per_transaction=2)
    ids = await send_from_each(shop, settlement)
    take_over(shop, shop.lanes[1])
    await blocks(shop, settlement)
    lost = [each for each in ids if shop.payment(each).lane == shop.lanes[1]]
    assert shop.states(lost) == {"sent": 2}
    assert shop.states([each for each in ids if each not in lost]) == {"completed": 4}
    assert set(settlement.keeper.leases) == {shop.lanes[0], shop.lanes[2]}
    await blocks(shop, settlement, 2)
    assert shop.states(lost) == {"sent": 2}
    again = await shop.settlement()
    await blocks(shop, again)
    assert shop.states(ids) == {"completed": 6}
    shop.assert_books_balance()


@on_postgres
async def test_payments_of_lanes_that_nobody_holds_wait_for_the_next_owner(shop: Shop) -> None:
    asleep = await shop.settlement(payments_per_transaction=2, confirmation_timeout_s=10)
    awake = await shop.settlement(payments_per_transaction=2, confirmation_timeout_s=10)
    ids = await send_from_each(shop, asleep)
    shop.clock.ahead_ms += 11_000
    await blocks(shop, awake, 2)
    assert shop.states(ids) == {"sent": 6}
    await shop.ledger.write(lambda c: c.execute(update(schema.leases).values(until_ms=0)).close())
    await awake.take_lanes()
    assert set(awake.keeper.leases) == set(shop.lanes)
    await blocks(shop, awake)
    assert shop.states(ids) == {"completed": 6}
    await asleep.confirmer.tick()
    assert all(told_of(shop, each).count(PaymentEvent.CONFIRM) == 1 for each in ids)
    await assert_balances(shop)
    shop.assert_books_balance()


@pytest.mark.parametrize("method", ["eth_getTransactionCount", "eth_getLogs", "eth_call"])
async def test_a_lane_may_be_lost_in_the_middle_of_a_pass(
    shop: Shop, proxy: RpcProxy, method: str
) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url), payments_per_transaction=2)
    ids = await send_from_each(shop, settlement)
    lane = shop.lanes[2]

    def taken_meanwhile(given: Any) -> Any:
        take_over(shop, lane)
        return given

    shop.chain.mine()
    proxy.change(taken_meanwhile, method)
    await settlement.confirmer.tick()
    assert lane not in settlement.keeper.leases
    lost = [each for each in ids if shop.payment(each).lane == lane]
    assert shop.states(lost) == {"sent": 2}
    assert shop.states([each for each in ids if each not in lost]) == {"completed": 4}
    statuses = {(item["lane"] == lane, item["status"]) for item in shop.transactions()}
    assert statuses == {(True, "broadcast"), (False, "final")}


async def test_who_has_lost_the_lane_cannot_pause_it_give_up_take_back_or_reject(
    shop: Shop,
) -> None:
    """Everything else that a pass writes: strangers, deadlines, reorgs, the list for review."""
    settlement = await shop.settlement(payments_per_transaction=2, confirmation_timeout_s=10)
    done = await send_from_each(shop, settlement)
    await blocks(shop, settlement)
    assert shop.states(done) == {"completed": 6}
    late = await send_from_each(shop, settlement)
    shop.chain.node.call("anvil_dropAllTransactions")
    for lane in shop.lanes:
        take_over(shop, lane)
    before = shop.ledger.read_now(_all_that_is_settled)
    shop.clock.ahead_ms += 11_000
    shop.chain.reorg(1)
    for _ in range(3):
        await settlement.confirmer.tick()
        shop.chain.mine()
    assert settlement.keeper.leases == {}
    assert shop.ledger.read_now(_all_that_is_settled) == before
    again = await shop.settlement(payments_per_transaction=2)
    await settle_all(shop, again, done + late, 12)
    shop.assert_books_balance()


async def test_a_stranger_on_a_lane_that_is_lost_is_the_business_of_its_owner(
    shop: Shop, proxy: RpcProxy
) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url))
    for sender in settlement.senders.values():
        await sender.tick()
    lane = shop.lanes[0]
    ahead = update(schema.lanes).where(schema.lanes.c.address == lane).values(next_nonce=0)
    await shop.ledger.write(lambda c: c.execute(ahead).close())

    def used_by_a_stranger(given: Any) -> Any:
        take_over(shop, lane)
        return [
            {**item, "result": "0x5"} if item["id"] != given[0]["id"] else item for item in given
        ]

    proxy.change(used_by_a_stranger, "eth_getTransactionCount")
    shop.chain.mine()
    await settlement.confirmer.tick()
    assert shop.lane_row(lane).paused_because is None
    assert lane not in settlement.keeper.leases


def _all_that_is_settled(connection: Any) -> list[Any]:
    tables = (schema.payments, schema.chain_transactions, schema.payment_events, schema.lanes)
    return [connection.execute(table.select()).all() for table in tables]

"""Several lanes at once: each its own nonces, each payment one lane, each trouble its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import insert, update
from structlog.testing import capture_logs

from taprail_common.errors import OperatorError
from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import claims, leases, schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import lane_lease
from taprail_gateway.settle.errors import ChainError
from taprail_hwsim.dev_chain import DevChain
from tests.support.rpc_proxy import RpcProxy, running_proxy
from tests.support.settle_shop import (
    ETHER,
    WAIT_S,
    Shop,
    blocks,
    nonces,
    open_shop,
    tick_all,
    until_settled,
)

pytestmark = pytest.mark.chain


@pytest_asyncio.fixture
async def shop(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(chain, ledger, tmp_path / "master.key", lanes=3) as opened:
        yield opened


@pytest_asyncio.fixture
async def proxy(shop: Shop) -> AsyncIterator[RpcProxy]:
    async with running_proxy(shop.chain.rpc_url) as running:
        yield running


async def test_lanes_share_the_work_and_keep_their_nonces(shop: Shop) -> None:
    ids = await shop.sell(150) + await shop.sell(150, card=1)
    settlement = await shop.settlement()
    assert set(settlement.senders) == set(shop.lanes)
    await tick_all(settlement)
    assert shop.states(ids) == {"sent": 300}
    used = nonces(shop)
    assert len(used) > 1
    assert all(each == list(range(len(each))) for each in used.values())
    assert sum(map(len, used.values())) == 6, "full transactions, whoever sends them"
    await blocks(shop, settlement, 2)
    assert shop.states(ids) == {"completed": 300}
    shop.assert_books_balance()


async def test_a_few_payments_are_not_scattered(shop: Shop) -> None:
    ids = await shop.sell(20)
    settlement = await shop.settlement()
    await tick_all(settlement)
    assert shop.states(ids) == {"sent": 20}
    assert len(shop.transactions()) == 1


async def test_running_lanes_settle_and_a_new_one_is_taken_while_they_run(shop: Shop) -> None:
    settlement = await shop.settlement()
    await settlement.start()
    try:
        first = await shop.sell(120)
        await until_settled(shop, first, PaymentState.COMPLETED)
        address, wrapped = shop.custody.new_key()
        row = {"address": address, "wrapped_key": wrapped, "created_at_ms": 1}
        await shop.ledger.write(lambda c: c.execute(insert(schema.lanes).values(row)).close())
        shop.chain.fund(address, ETHER)
        await settlement.take_lanes()
        assert address in settlement.senders
        await pause_by_hand(shop, *shop.lanes)
        more = await shop.sell(5, card=1)
        settlement._match_loops()
        await until_settled(shop, more, PaymentState.COMPLETED)
        assert len(nonces(shop)[address]) >= 1
        assert {shop.payment(each).lane for each in more} == {address}
    finally:
        await settlement.stop()
    shop.assert_books_balance()


async def test_a_key_that_does_not_open_refuses_the_start(shop: Shop) -> None:
    spoil = update(schema.lanes).where(schema.lanes.c.address == shop.lanes[1])
    await shop.ledger.write(lambda c: c.execute(spoil.values(wrapped_key=b"\1" * 61)).close())
    with capture_logs() as logs:
        settlement = await shop.settlement()
        await settlement.take_lanes()
    assert shop.lanes[1] not in settlement.senders
    told = [each["loop"] for each in logs if each["event"] == "settle.hindered"]
    assert told == [f"sender {shop.lanes[1]}"], "once"
    with pytest.raises(OperatorError, match="does not open"):
        await settlement.start()


async def test_a_rewards_key_that_does_not_open_keeps_no_payment_from_being_settled(
    shop: Shop,
) -> None:
    lane = schema.lanes.c
    spoil = update(schema.lanes).where(lane.address == shop.lanes[1])
    spoiled = spoil.values(wrapped_key=b"\1" * 61, purpose="rewards")
    await shop.ledger.write(lambda c: c.execute(spoiled).close())
    settlement = await shop.settlement()
    await settlement.start()
    try:
        ids = await shop.sell(3)
        await until_settled(shop, ids, PaymentState.COMPLETED)
        assert settlement.obstacles() == []
    finally:
        await settlement.stop()


async def pause_by_hand(shop: Shop, *lanes: str) -> None:
    pause = update(schema.lanes).where(schema.lanes.c.address.in_(lanes))
    await shop.ledger.write(lambda c: c.execute(pause.values(paused_because="by hand")).close())


async def until_hindered(shop: Shop, logs: Sequence[Any], *lanes: str) -> None:
    """Wait until the send loops of these lanes have met what is in their way."""
    shop.wakeups.pending.ring()
    async with asyncio.timeout(WAIT_S):
        wanted = {f"sender {lane}" for lane in lanes}
        while not wanted <= {each.get("loop") for each in logs}:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # nobody is told of an obstacle


async def test_a_lane_in_trouble_sends_no_taps_away_but_all_of_them_do(shop: Shop) -> None:
    settlement = await shop.settlement()
    await settlement.start()
    try:
        with capture_logs() as logs:
            await pause_by_hand(shop, *shop.lanes[:2])
            await until_hindered(shop, logs, *shop.lanes[:2])
            assert settlement.obstacles() == []
            await pause_by_hand(shop, *shop.lanes)
            await until_hindered(shop, logs, *shop.lanes)
        assert len(settlement.obstacles()) == 3
        told = [each["loop"] for each in logs if each["event"] == "settle.hindered"]
        assert len(told) == len(set(told)), "once, not at every try"
    finally:
        await settlement.stop()


async def test_a_paused_lane_lets_others_have_what_it_claimed(shop: Shop, proxy: RpcProxy) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url))
    await tick_all(settlement)
    paused, free, _ = (settlement.senders[each] for each in shop.lanes)
    ids = await shop.sell(5)
    proxy.answer(lambda _asked: 502, "eth_call", times=2)
    with pytest.raises(ChainError):
        await paused.tick()
    await free.tick()
    assert shop.states(ids) == {"pending": 5}, "claimed by the other"
    await pause_by_hand(shop, paused.address)
    assert (await paused.tick()).obstacle is not None
    await free.tick()
    assert shop.states(ids) == {"sent": 5}
    assert {shop.payment(each).lane for each in ids} == {free.address}


async def test_who_loses_its_lane_in_the_middle_of_a_step_binds_nothing(
    shop: Shop, proxy: RpcProxy
) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url))
    await tick_all(settlement)
    sender = settlement.senders[shop.lanes[0]]
    ids = await shop.sell(5)

    def taken_meanwhile(given: Any) -> Any:
        name, now_ms = lane_lease(sender.address), shop.clock.now_ms()
        assert shop.ledger.write_now(
            lambda c: leases.acquire(c, name, "another", now_ms, takeover=True)
        )
        return given

    proxy.change(taken_meanwhile, "eth_call")
    await sender.tick()
    assert sender.address not in settlement.keeper.leases
    assert shop.states(ids) == {"pending": 5}
    assert shop.transactions() == []
    await settlement.take_lanes()
    assert set(settlement.senders) == set(shop.lanes[1:])


# --- the order ------------------------------------------------------------------------------------


async def test_the_urgent_go_first_and_nobody_starves(shop: Shop) -> None:
    [old] = await shop.sell(priority=0)
    shop.clock.ahead_ms += 21_000  # more than priority 10 can make up for
    plain = await shop.sell(2, priority=5)
    urgent = await shop.sell(2, priority=10)
    lane = shop.lanes[0]
    now_ms = shop.clock.now_ms()
    claimed = await shop.ledger.write(lambda c: claims.claim(c, lane, 50, now_ms))
    order = [each.id for each in claimed]
    assert order[0] == old
    assert set(order[1:3]) == set(urgent)
    assert set(order[3:]) == set(plain)


async def test_the_urgent_have_the_lowest_nonces_of_every_lane(shop: Shop) -> None:
    settlement = await shop.settlement(payments_per_transaction=10)
    plain = await shop.sell(200, priority=5)
    urgent = await shop.sell(100, card=1, priority=10)
    await tick_all(settlement)
    assert shop.states(plain + urgent) == {"sent": 300}
    by_lane: dict[str, list[tuple[int, bool]]] = {}
    of = {item["id"]: item for item in shop.transactions()}
    for each in plain + urgent:
        item = of[shop.payment(each).chain_transaction_id]
        by_lane.setdefault(item["lane"], []).append((item["nonce"], each in plain))
    assert len(by_lane) > 1
    for places in by_lane.values():
        is_plain = [flag for _nonce, flag in sorted(places)]
        assert is_plain == sorted(is_plain), "none of the urgent behind one of the others"


async def test_the_urgent_overtake_what_a_lane_has_claimed_before(
    shop: Shop, proxy: RpcProxy
) -> None:
    settlement = await shop.settlement(
        await shop.connect(proxy.url), payment_batch_size=4, payments_per_transaction=4
    )
    sender = settlement.senders[shop.lanes[0]]
    await sender.tick()
    plain = await shop.sell(4, priority=5)
    proxy.answer(lambda _asked: 502, "eth_call", times=2)
    with pytest.raises(ChainError):
        await sender.tick()
    assert {shop.payment(each).lane for each in plain} == {sender.address}
    urgent = await shop.sell(4, card=1, priority=10)
    await sender.tick()
    assert shop.states(plain + urgent) == {"sent": 8}
    first, second = shop.transactions()
    assert {shop.payment(each).chain_transaction_id for each in urgent} == {first["id"]}
    assert {shop.payment(each).chain_transaction_id for each in plain} == {second["id"]}

"""Several lanes at once: each its own nonces, each payment one lane, each trouble its own."""

from __future__ import annotations

import asyncio
from collections import Counter
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
from taprail_gateway.ledger.alerts import open_alerts
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import lane_lease
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.errors import ChainError
from taprail_hwsim.dev_chain import DevChain
from tests.support.rpc_proxy import RpcProxy, running_proxy
from tests.support.settle_shop import (
    ETHER,
    WAIT_S,
    Shop,
    blocks,
    open_shop,
    send_as_stranger,
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


async def tick_all(settlement: Settlement) -> None:
    """One step of every lane, all at once."""
    await asyncio.gather(*(sender.tick() for sender in settlement.senders.values()))


def nonces(shop: Shop) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for item in shop.transactions():
        found.setdefault(item["lane"], []).append(item["nonce"])
    return found


def alert_kinds(shop: Shop) -> list[tuple[str, str]]:
    return [(each.kind, each.subject) for each in shop.ledger.read_now(open_alerts)]


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


# --- pauses that heal -----------------------------------------------------------------------------


async def test_an_empty_wallet_alerts_and_holds_up_its_own_lane_only(shop: Shop) -> None:
    poor = shop.lanes[0]
    shop.chain.fund(poor, 0)
    settlement = await shop.settlement()
    ids = await shop.sell(2)
    await settlement.senders[poor].tick()
    assert (shop.lane_row(poor).paused_because or "").startswith("funds:")
    assert alert_kinds(shop) == [("lane_paused", poor)]
    others = await shop.sell(3, card=1)
    await tick_all(settlement)
    assert shop.states(others) == {"sent": 3}
    shop.chain.fund(poor, ETHER)
    await tick_all(settlement)
    assert shop.lane_row(poor).paused_because is None
    assert alert_kinds(shop) == []
    await blocks(shop, settlement, 2)
    assert Counter(shop.states(ids + others)) == {"completed": 5}


async def test_a_node_of_another_chain_pauses_the_lane_until_the_right_one_is_back(
    shop: Shop, proxy: RpcProxy
) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url))
    sender = settlement.senders[shop.lanes[0]]
    ids = await shop.sell(2)

    def of_another_chain(asked: Any) -> Any:
        error = {"code": -32003, "message": "invalid chain id for signer"}
        return [{"jsonrpc": "2.0", "id": call["id"], "error": error} for call in asked]

    proxy.answer(of_another_chain)
    assert "wrong_chain" in ((await sender.tick()).obstacle or "")
    assert alert_kinds(shop) == [("lane_paused", sender.address)]
    proxy.answer(
        lambda asked: [{"jsonrpc": "2.0", "id": asked[0]["id"], "result": "0x5"}], "eth_chainId"
    )
    assert "wrong_chain" in ((await sender.tick()).obstacle or "")
    await sender.tick()
    assert shop.lane_row(sender.address).paused_because is None
    assert alert_kinds(shop) == []
    assert shop.states(ids) == {"sent": 2}
    assert len(shop.transactions()) == 1


async def test_a_lane_goes_on_behind_what_strangers_have_sent_and_the_alert_stays(
    shop: Shop,
) -> None:
    settlement = await shop.settlement()
    await tick_all(settlement)
    lane = shop.lanes[0]
    sender = settlement.senders[lane]
    first = await shop.sell(2)
    await sender.tick()
    await blocks(shop, settlement)
    for nonce in (1, 2):
        send_as_stranger(shop, lane, nonce)
    await blocks(shop, settlement)
    assert (shop.lane_row(lane).paused_because or "").startswith("foreign_nonce:")
    assert alert_kinds(shop) == [("foreign_nonce", lane)]
    await sender.tick()
    row = shop.lane_row(lane)
    assert (row.paused_because, row.next_nonce) == (None, 3)
    second = await shop.sell(2, card=1)
    await sender.tick()
    await blocks(shop, settlement, 2)
    assert shop.states(first + second) == {"completed": 4}
    assert nonces(shop)[lane] == [0, 3]
    assert alert_kinds(shop) == [("foreign_nonce", lane)], "until a person has looked"
    shop.assert_books_balance()


async def test_strangers_are_waited_for_until_they_are_final(shop: Shop) -> None:
    settlement = await shop.settlement(confirmations=4)
    await tick_all(settlement)
    lane = shop.lanes[0]
    send_as_stranger(shop, lane, 0)
    await blocks(shop, settlement, 4)
    assert (shop.lane_row(lane).paused_because or "").startswith("foreign_nonce:")
    send_as_stranger(shop, lane, 1)
    await settlement.confirmer.tick()
    await settlement.senders[lane].tick()
    assert shop.lane_row(lane).next_nonce == 0, "a reorg might give it free again"
    await blocks(shop, settlement, 4)
    await settlement.senders[lane].tick()
    assert (shop.lane_row(lane).paused_because, shop.lane_row(lane).next_nonce) == (None, 2)

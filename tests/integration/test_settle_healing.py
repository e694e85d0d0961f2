"""A lane that has to pause says so once, harms no other, and goes on by itself when it is cured."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from eth_utils.crypto import keccak
from sqlalchemy import select

from taprail_gateway.ledger import schema, transitions
from taprail_gateway.ledger.alerts import open_alerts
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.errors import ChainError, WrongChainError
from taprail_hwsim.anvil import AnvilOptions
from taprail_hwsim.dev_chain import DevChain
from tests.support.rpc_proxy import RpcProxy, running_proxy
from tests.support.settle_shop import (
    ETHER,
    Shop,
    blocks,
    nonces,
    open_shop,
    send_as_stranger,
    tick_all,
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


def alert_kinds(shop: Shop) -> list[tuple[str, str]]:
    return [(each.kind, each.subject) for each in shop.ledger.read_now(open_alerts)]


def alerts_ever(shop: Shop) -> int:
    rows = shop.ledger.read_now(lambda c: c.execute(select(schema.alerts)).all())
    return len(rows)


async def test_an_empty_wallet_alerts_and_holds_up_its_own_lane_only(shop: Shop) -> None:
    poor = shop.lanes[0]
    settlement = await shop.settlement()
    await tick_all(settlement)
    shop.chain.fund(poor, 0)
    ids = await shop.sell(2)
    await settlement.senders[poor].tick()
    assert (shop.lane_row(poor).paused_because or "").startswith("funds:")
    for _ in range(3):
        assert "funds" in ((await settlement.senders[poor].tick()).obstacle or "")
        await blocks(shop, settlement)
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
    assert alerts_ever(shop) == 1, "raised once"


async def test_a_lane_that_was_never_funded_takes_nothing_from_the_others(shop: Shop) -> None:
    poor, rich = shop.lanes[:2]
    shop.chain.fund(poor, 0)
    settlement = await shop.settlement()
    ids = await shop.sell(2)
    for _ in range(3):
        assert "funds" in ((await settlement.senders[poor].tick()).obstacle or "")
    assert alert_kinds(shop) == [("lane_paused", poor)]
    await settlement.senders[rich].tick()
    assert shop.states(ids) == {"sent": 2}
    shop.chain.fund(poor, ETHER)
    await settlement.senders[poor].tick()
    assert shop.lane_row(poor).paused_because is None
    assert alert_kinds(shop) == []
    assert alerts_ever(shop) == 1


async def test_no_loop_lifts_a_pause_by_hand(shop: Shop, proxy: RpcProxy) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url))
    lane = shop.lanes[0]
    await settlement.senders[lane].tick()
    shop.chain.fund(lane, 0)
    ids = await shop.sell(2)
    await settlement.senders[lane].tick()
    shop.chain.fund(lane, ETHER)

    def by_hand(given: Any) -> Any:
        """While the nodes take it again, which would end a pause for want of funds."""
        shop.ledger.write_now(lambda c: transitions.pause_lane(c, lane, "operator: I look"))
        return given

    proxy.change(by_hand)
    await settlement.senders[lane].tick()
    assert shop.states(ids) == {"sent": 2}
    assert shop.lane_row(lane).paused_because == "operator: I look"
    await blocks(shop, settlement, 2)
    await settlement.senders[lane].tick()
    assert shop.lane_row(lane).paused_because == "operator: I look"


# --- another chain --------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def other_chain() -> AsyncIterator[DevChain]:
    async with DevChain(AnvilOptions(chain_id=4_242, block_time_s=0.2)) as running:
        running.mine(200)  # as many blocks as the right one, and more
        yield running


async def test_a_node_that_is_another_chain_all_at_once_gets_nothing_and_loses_nothing(
    shop: Shop, proxy: RpcProxy, other_chain: DevChain
) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url))
    sender = settlement.senders[shop.lanes[0]]
    await sender.tick()
    ids = await shop.sell(2)
    proxy.node_url = other_chain.rpc_url
    for _ in range(3):
        with contextlib.suppress(ChainError):
            assert (await sender.tick()).obstacle is not None
    assert (shop.lane_row(sender.address).paused_because or "").startswith("wrong_chain:")
    assert alert_kinds(shop) == [("lane_paused", sender.address)]
    proxy.node_url = shop.chain.rpc_url
    await until_sent(shop, settlement, ids)
    assert alert_kinds(shop) == []
    assert alerts_ever(shop) == 1
    await blocks(shop, settlement, 2)
    assert shop.states(ids) == {"completed": 2}
    shop.assert_books_balance()


async def test_a_node_that_comes_back_as_another_chain_pauses_the_lane_until_the_right_one_is_back(
    shop: Shop, proxy: RpcProxy, other_chain: DevChain
) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url))
    sender = settlement.senders[shop.lanes[0]]
    await sender.tick()
    ids = await shop.sell(2)
    shop.clock.ahead_ms += 10_000  # nobody has seen a block for a while
    proxy.answer(lambda _asked: 502, "eth_getBlockByNumber")
    with pytest.raises(ChainError):
        await sender.tick()
    proxy.node_url = other_chain.rpc_url
    for _ in range(3):
        with pytest.raises(WrongChainError):
            await sender.tick()
    assert (shop.lane_row(sender.address).paused_because or "").startswith("wrong_chain:")
    assert shop.transactions() == []
    assert alert_kinds(shop) == [("lane_paused", sender.address)]
    proxy.node_url = shop.chain.rpc_url
    await until_sent(shop, settlement, ids)
    assert alert_kinds(shop) == []
    assert alerts_ever(shop) == 1


async def until_sent(shop: Shop, settlement: Settlement, ids: list[str]) -> None:
    """Turn the first lane's sender a few times: one look at the node, one at the ledger."""
    for _ in range(3):
        with contextlib.suppress(ChainError):
            await settlement.senders[shop.lanes[0]].tick()
    assert shop.lane_row(shop.lanes[0]).paused_because is None
    assert shop.states(ids) == {"sent": len(ids)}


# --- strangers with our key -----------------------------------------------------------------------


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


async def settle_behind_strangers(shop: Shop, settlement: Settlement, ids: list[str]) -> None:
    """Turn the wheels until all are completed, for a few blocks at most."""
    for _ in range(10):
        await blocks(shop, settlement)
        with contextlib.suppress(ChainError):
            await settlement.senders[shop.lanes[0]].tick()
        if shop.states(ids) == {"completed": len(ids)}:
            break
    assert shop.states(ids) == {"completed": len(ids)}
    assert shop.lane_row(shop.lanes[0]).paused_because is None
    assert alert_kinds(shop) == [("foreign_nonce", shop.lanes[0])]
    assert alerts_ever(shop) == 1
    shop.assert_books_balance()


async def test_a_strangers_transaction_between_our_own(shop: Shop, proxy: RpcProxy) -> None:
    lane = shop.lanes[0]
    settlement = await shop.settlement(await shop.connect(proxy.url), payments_per_transaction=1)
    ids = await shop.sell(3)
    sent: list[str] = []

    def forget(asked: list[dict[str, Any]]) -> Any:
        """The node says yes and keeps nothing."""
        sent.extend(call["params"][0] for call in asked)
        hashes = ["0x" + keccak(bytes.fromhex(raw[2:])).hex() for raw in sent]
        return [
            {"jsonrpc": "2.0", "id": call["id"], "result": tx_hash}
            for call, tx_hash in zip(asked, hashes, strict=True)
        ]

    proxy.answer(forget)
    await settlement.senders[lane].tick()
    assert shop.states(ids) == {"sent": 3}
    shop.chain.node.call("eth_sendRawTransaction", sent[0])
    send_as_stranger(shop, lane, 1, mined=False)
    shop.chain.node.call("eth_sendRawTransaction", sent[2])
    await settle_behind_strangers(shop, settlement, ids)
    assert nonces(shop)[lane] == [0, 1, 2, 3], "what lost its nonce went into a new one"


async def test_a_strangers_transaction_that_waits_above_our_next_nonce(shop: Shop) -> None:
    lane = shop.lanes[0]
    settlement = await shop.settlement(payments_per_transaction=1)
    await settlement.senders[lane].tick()
    send_as_stranger(shop, lane, 1, mined=False)
    ids = await shop.sell(2)
    tick = await settlement.senders[lane].tick()
    assert "underpriced" in (tick.obstacle or "")
    await settle_behind_strangers(shop, settlement, ids)
    assert nonces(shop)[lane] == [0, 1, 2]

"""Nodes that lie, lag, hang or break under the confirm loop: never a wrong state, said once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from taprail_common.payment_state import PaymentEvent
from taprail_gateway.ledger import queries
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.errors import ChainError
from taprail_hwsim.dev_chain import DevChain
from tests.support.confirm_shop import (
    assert_balances,
    go_on,
    send_from_each,
    settle_all,
    still_shop,
    told_of,
)
from tests.support.rpc_proxy import RpcProxy, running_proxy
from tests.support.settle_shop import Shop, blocks

pytestmark = pytest.mark.chain

LOGS, RECEIPT, BLOCK = "eth_getLogs", "eth_getTransactionReceipt", "eth_getBlockByNumber"
CALL, COUNT = "eth_call", "eth_getTransactionCount"
FOR_EVER = 500
NOWHERE = "0x" + "ee" * 32
OTHER_TOKEN = "0x" + "0d" * 20

Lie = Callable[[Any], Any]


@pytest_asyncio.fixture
async def shop(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Shop]:
    async with still_shop(
        chain, ledger, tmp_path / "master.key", lanes=2, payments_per_transaction=2
    ) as opened:
        yield opened


@pytest_asyncio.fixture
async def proxy(shop: Shop) -> AsyncIterator[RpcProxy]:
    async with running_proxy(shop.chain.rpc_url) as running:
        yield running


def each_result(change: Callable[[Any], Any]) -> Lie:
    """The lie about every result of a batch."""
    return lambda given: [{**item, "result": change(item["result"])} for item in given]


def with_logs(change: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda receipt: {**receipt, "logs": [{**log, **change} for log in receipt["logs"]]}


LIES: dict[str, list[tuple[str, Lie]]] = {
    "no logs": [(LOGS, each_result(lambda _: []))],
    "no receipts": [(RECEIPT, each_result(lambda _: None))],
    "neither logs nor receipts": [
        (LOGS, each_result(lambda _: [])),
        (RECEIPT, each_result(lambda _: None)),
    ],
    "receipts of another transaction": [
        (LOGS, each_result(lambda _: [])),
        (RECEIPT, each_result(lambda it: {**it, "transactionHash": NOWHERE})),
    ],
    "receipts that say failed": [
        (LOGS, each_result(lambda _: [])),
        (RECEIPT, each_result(lambda it: {**it, "status": "0x0"})),
    ],
    "receipts that say failed, without logs": [
        (LOGS, each_result(lambda _: [])),
        (RECEIPT, each_result(lambda it: {**it, "status": "0x0", "logs": []})),
    ],
    "receipts without logs": [
        (LOGS, each_result(lambda _: [])),
        (RECEIPT, each_result(lambda it: {**it, "logs": []})),
    ],
    "logs of another token": [
        (LOGS, each_result(lambda its: [{**it, "address": OTHER_TOKEN} for it in its])),
        (RECEIPT, each_result(with_logs({"address": OTHER_TOKEN}))),
    ],
    "logs of another amount": [
        (LOGS, each_result(lambda _: [])),
        (RECEIPT, each_result(with_logs({"data": "0x" + "00" * 31 + "63"}))),
    ],
    "a block that is not in its chain": [
        (LOGS, each_result(lambda its: [{**it, "blockHash": NOWHERE} for it in its])),
        (
            RECEIPT,
            each_result(lambda it: {**with_logs({"blockHash": NOWHERE})(it), "blockHash": NOWHERE}),
        ),
    ],
    "a block of the future": [
        (LOGS, each_result(lambda its: [{**it, "blockNumber": "0xffff"} for it in its])),
        (
            RECEIPT,
            each_result(
                lambda it: {**with_logs({"blockNumber": "0xffff"})(it), "blockNumber": "0xffff"}
            ),
        ),
    ],
    "half a batch of receipts": [
        (LOGS, each_result(lambda _: [])),
        (RECEIPT, lambda given: given[: len(given) // 2]),
    ],
    "half a batch of counts": [(COUNT, lambda given: given[:2])],
    "counts that are too low": [(COUNT, each_result(lambda it: it if it == "0x7a69" else "0x0"))],
    "megabytes of logs and receipts": [
        (LOGS, lambda _: b" " * (33 * 1024 * 1024)),
        (RECEIPT, lambda _: b" " * (33 * 1024 * 1024)),
    ],
    "megabytes of counts": [(COUNT, lambda _: b" " * (33 * 1024 * 1024))],
    "nothing but errors": [
        (CALL, lambda _: 502),
        (LOGS, lambda _: 502),
        (RECEIPT, lambda _: 502),
    ],
    "balances that cannot be": [(CALL, each_result(lambda _: "0x" + "ff" * 32))],
}
PAID_ALL_THE_SAME = {"no logs", "no receipts"}
SHOWN = {"completed", "sent"}


def tell(proxy: RpcProxy, lies: list[tuple[str, Lie]], times: int) -> None:
    for method, lie in lies:
        proxy.change(lie, method, times)


def be_honest(proxy: RpcProxy) -> None:
    proxy._script.steps.clear()


def is_trouble(line: Any) -> bool:
    """Whether a line of the log is about something wrong; what is done about it, each block anew,
    is not."""
    return line["log_level"] in {"warning", "error"} and line["event"] != "settle.stalled"


async def look_often(shop: Shop, settlement: Settlement, times: int) -> None:
    """Blocks, and looks that may fail but for no other reason than the node."""
    for _ in range(times):
        shop.chain.mine()
        with contextlib.suppress(ChainError):
            await settlement.confirmer.tick()


@pytest.mark.parametrize("kind", LIES)
async def test_no_lie_makes_a_wrong_state_and_each_is_said_once(
    shop: Shop, proxy: RpcProxy, kind: str
) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url))
    await blocks(shop, settlement)
    ids = await send_from_each(shop, settlement)
    tell(proxy, LIES[kind], FOR_EVER)
    with capture_logs() as told:
        await look_often(shop, settlement, 6)
    assert set(shop.states(ids)) <= SHOWN
    if kind in PAID_ALL_THE_SAME:
        assert shop.states(ids) == {"completed": 4}
    assert shop.ledger.read_now(queries.check_invariants) == []
    said = [str(line) for line in told if is_trouble(line)]
    assert len(said) == len(set(said)), said

    be_honest(proxy)
    await settle_all(shop, settlement, ids, 4)
    assert all(told_of(shop, each).count(PaymentEvent.CONFIRM) == 1 for each in ids)
    assert all(shop.payment(each).bindings == 1 for each in ids)
    await assert_balances(shop)
    shop.assert_books_balance()


async def test_counts_that_are_too_high_leave_no_gap_in_the_lane(
    shop: Shop, proxy: RpcProxy
) -> None:
    """A node says for a while that our nonce is used up, and it is not: it has to be sent on."""
    settlement = await shop.settlement(await shop.connect(proxy.url))
    await blocks(shop, settlement)
    ids = await send_from_each(shop, settlement)
    shop.chain.node.call("anvil_dropAllTransactions")
    tell(proxy, [(COUNT, each_result(lambda it: it if it == "0x7a69" else "0x1"))], FOR_EVER)
    await look_often(shop, settlement, 6)
    be_honest(proxy)
    await go_on(shop, settlement)
    assert shop.states(ids) == {"completed": 4}
    more = await send_from_each(shop, settlement)
    await settle_all(shop, settlement, more, 4)
    await assert_balances(shop)
    shop.assert_books_balance()


async def test_an_older_head_than_before_takes_nothing_back(shop: Shop, proxy: RpcProxy) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url))
    await blocks(shop, settlement)
    old = shop.chain.node.call(BLOCK, "latest", False)
    ids = await send_from_each(shop, settlement)
    await blocks(shop, settlement)
    before = shop.balance()
    more = await send_from_each(shop, settlement)
    shop.chain.mine()

    def an_old_one(given: Any) -> Any:
        return [{**given[0], "result": old}, *given[1:]]

    for _ in range(3):
        proxy.change(an_old_one, BLOCK)
        await settlement.confirmer.tick()
        assert shop.states(ids) == {"completed": 4}
        assert shop.states(more) == {"sent": 4}
        assert shop.balance() == (before[0], before[1], 200)
    await blocks(shop, settlement)
    assert shop.states(ids + more) == {"completed": 8}
    assert PaymentEvent.REORG not in told_of(shop, ids[0])
    await assert_balances(shop)


async def test_a_head_from_the_future_does_not_hold_up_settlement_until_it_is_reached(
    shop: Shop, proxy: RpcProxy
) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url))
    await blocks(shop, settlement)

    def ahead(block: Any) -> Any:
        return {**block, "number": hex(int(block["number"], 16) + 60), "hash": NOWHERE}

    proxy.change(each_result(ahead), BLOCK)
    proxy.answer(
        lambda asked: [
            {"id": it["id"], "result": "0x7a69" if it["method"] == "eth_chainId" else "0x0"}
            for it in asked
        ],
        COUNT,
    )
    await look_often(shop, settlement, 1)
    assert proxy._script.steps == []
    shop.clock.ahead_ms += 10_000  # the senders ask for a head of their own by then
    ids = await send_from_each(shop, settlement)
    await look_often(shop, settlement, 9)
    assert shop.states(ids) == {"completed": 4}
    await assert_balances(shop)
    shop.assert_books_balance()


@pytest.mark.parametrize("method", [BLOCK, COUNT, CALL, LOGS, RECEIPT])
async def test_a_call_that_hangs_ends_in_time_and_concludes_nothing(
    shop: Shop, proxy: RpcProxy, method: str
) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url, rpc_timeout_ms=150))
    await blocks(shop, settlement)
    ids = await send_from_each(shop, settlement)
    rules = proxy.inject(f"hang@{method}")
    await look_often(shop, settlement, 2)
    assert set(shop.states(ids)) <= SHOWN
    proxy.withdraw(rules)
    await settle_all(shop, settlement, ids, 4)
    await assert_balances(shop)
    shop.assert_books_balance()

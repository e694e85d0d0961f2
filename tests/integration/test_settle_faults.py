"""Settlement when the wire, the node or the process fails: nothing lost, nothing paid twice."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from eth_utils.crypto import keccak

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.errors import ChainError
from taprail_hwsim.anvil import AnvilOptions
from taprail_hwsim.dev_chain import DevChain
from tests.support.rpc_proxy import RpcProxy, running_proxy
from tests.support.settle_shop import ETHER, Shop, blocks, open_shop, still_open, until_settled

pytestmark = pytest.mark.chain


@pytest_asyncio.fixture
async def shop(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(chain, ledger, tmp_path / "master.key") as opened:
        yield opened


@pytest_asyncio.fixture
async def proxy(shop: Shop) -> AsyncIterator[RpcProxy]:
    async with running_proxy(shop.chain.rpc_url) as running:
        yield running


async def settle_after_restart(shop: Shop, payments: list[str]) -> None:
    """A fresh settlement on the same ledger, straight to the node, must finish everything."""
    settlement = await shop.settlement()
    while (tick := await settlement.sender.tick()).may_be_more:
        assert tick.obstacle is None
    await blocks(shop, settlement, 2)
    assert shop.states(payments) == {"completed": len(payments)}
    shop.assert_books_balance()


async def test_stopped_between_storing_and_sending(shop: Shop, proxy: RpcProxy) -> None:
    payments = await shop.sell(100)
    before = await shop.settlement(await shop.connect(proxy.url))
    proxy.lose_request()
    tick = await before.sender.tick()
    assert "ambiguous" in (tick.obstacle or "")
    # The second is stored while the first is on its way, and waits for it.
    assert shop.states(payments) == {"processing": 100}
    assert [item["status"] for item in shop.transactions()] == ["signed", "signed"]
    await settle_after_restart(shop, payments)
    assert len(shop.transactions()) == 2


@pytest.mark.parametrize("mined", [False, True])
async def test_stopped_between_sending_and_noting_it(
    shop: Shop, proxy: RpcProxy, mined: bool
) -> None:
    payments = await shop.sell(3)
    before = await shop.settlement(await shop.connect(proxy.url))
    proxy.lose_reply()
    tick = await before.sender.tick()
    assert "ambiguous" in (tick.obstacle or "")
    assert shop.states(payments) == {"processing": 3}
    if mined:
        shop.chain.mine()
    await settle_after_restart(shop, payments)
    assert len(shop.transactions()) == 1


async def test_a_lost_reply_is_no_failure_for_anybody(shop: Shop, proxy: RpcProxy) -> None:
    payments = await shop.sell(20)
    settlement = await shop.settlement(
        await shop.connect(proxy.url), payments_per_transaction=1, payment_batch_size=5
    )
    proxy.lose_reply(times=3)
    await settlement.start()
    try:
        await until_settled(shop, payments, PaymentState.COMPLETED)
    finally:
        await settlement.stop()
    assert len(shop.transactions()) == 20
    shop.assert_books_balance()


async def test_one_lost_send_among_twenty_is_made_good(shop: Shop, proxy: RpcProxy) -> None:
    """Accepted, then forgotten: the node says yes to the batch and drops one in the middle."""
    payments = await shop.sell(20)
    settlement = await shop.settlement(
        await shop.connect(proxy.url), payments_per_transaction=1, payment_batch_size=20
    )
    hashes: list[str] = []

    def forget_one(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        replies = []
        for position, call in enumerate(asked):
            raw = call["params"][0]
            if position == 7:
                result = "0x" + keccak(bytes.fromhex(raw[2:])).hex()
            else:
                result = shop.chain.node.call("eth_sendRawTransaction", raw)
            hashes.append(result)
            replies.append({"jsonrpc": "2.0", "id": call["id"], "result": result})
        return replies

    proxy.answer(forget_one)
    await settlement.sender.tick()
    assert shop.states(payments) == {"sent": 20}
    await blocks(shop, settlement, 3)
    assert shop.states(payments) == {"completed": 20}
    assert len(set(hashes)) == len(shop.transactions()) == 20
    shop.assert_books_balance()


def _short(asked: list[dict[str, Any]]) -> Any:
    return [{"jsonrpc": "2.0", "id": asked[0]["id"], "result": "0x" + "00" * 32}]


BROKEN: dict[str, Callable[[Any], Any]] = {
    "an error for the whole batch": lambda _asked: {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": -32603, "message": "internal error"},
    },
    "short, and another hash": _short,
    "empty": lambda _asked: [],
    "null": lambda _asked: None,
    "a number": lambda _asked: b"42",
    "no JSON": lambda _asked: b"<html>502</html>",
    "not even text": lambda _asked: b"\xff\xfe\x00",
    "no ids": lambda _asked: [{"jsonrpc": "2.0", "result": "0x"} for _ in _asked],
    "ids of many kinds": lambda _asked: [{"id": "a"}, {"id": 1}, {"id": [2]}, 7],
    "nested without end": lambda _asked: b"[" * 100_000,
    "status 429": lambda _asked: 429,
    "status 502": lambda _asked: 502,
    "megabytes": lambda _asked: b" " * (33 * 1024 * 1024),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_answer_to_a_send_loses_nothing(
    shop: Shop, proxy: RpcProxy, answer: Callable[[Any], Any]
) -> None:
    payments = await shop.sell(4)
    settlement = await shop.settlement(await shop.connect(proxy.url), payments_per_transaction=2)
    proxy.answer(answer)
    tick = await settlement.sender.tick()
    assert tick.obstacle is not None
    assert shop.states(payments) == {"processing": 4}
    await settle_after_restart(shop, payments)
    assert len(shop.transactions()) == 2


@pytest.mark.parametrize(
    "kind", ["an error for the whole batch", "short, and another hash", "no JSON", "status 502"]
)
@pytest.mark.parametrize("method", ["eth_getBlockByNumber", "eth_getTransactionCount", "eth_call"])
async def test_a_broken_answer_to_a_question_concludes_nothing(
    shop: Shop, proxy: RpcProxy, kind: str, method: str
) -> None:
    payments = await shop.sell(4)
    settlement = await shop.settlement(await shop.connect(proxy.url))
    await settlement.sender.tick()
    shop.chain.mine()
    proxy.answer(BROKEN[kind], method)
    with pytest.raises(ChainError):
        await settlement.confirmer.tick()
    assert shop.states(payments) == {"sent": 4}
    await settlement.confirmer.tick()
    assert shop.states(payments) == {"completed": 4}
    shop.assert_books_balance()


@pytest.mark.parametrize("kind", BROKEN)
async def test_logs_that_cannot_be_read_are_made_good_by_receipts(
    shop: Shop, proxy: RpcProxy, kind: str
) -> None:
    payments = await shop.sell(4)
    settlement = await shop.settlement(await shop.connect(proxy.url), payments_per_transaction=2)
    await settlement.sender.tick()
    shop.chain.mine()
    proxy.answer(BROKEN[kind], "eth_getLogs")
    await settlement.confirmer.tick()
    assert shop.states(payments) == {"completed": 4}
    shop.assert_books_balance()


@pytest.mark.parametrize(
    "kind", ["an error for the whole batch", "short, and another hash", "no JSON", "status 502"]
)
async def test_without_logs_and_receipts_nothing_is_concluded(
    shop: Shop, proxy: RpcProxy, kind: str
) -> None:
    payments = await shop.sell(4)
    settlement = await shop.settlement(await shop.connect(proxy.url))
    await settlement.sender.tick()
    shop.chain.mine()
    proxy.answer(BROKEN[kind], "eth_getLogs")
    proxy.answer(BROKEN[kind], "eth_getTransactionReceipt")
    with pytest.raises(ChainError):
        await settlement.confirmer.tick()
    assert shop.states(payments) == {"sent": 4}
    await settlement.confirmer.tick()
    assert shop.states(payments) == {"completed": 4}
    shop.assert_books_balance()


async def test_answers_in_another_order_are_put_right(shop: Shop, proxy: RpcProxy) -> None:
    payments = await shop.sell(6)
    settlement = await shop.settlement(await shop.connect(proxy.url), payments_per_transaction=1)
    proxy.change(lambda given: given[::-1])
    proxy.answer(BROKEN["null"], "eth_getLogs")
    proxy.change(lambda given: given[::-1], "eth_getTransactionReceipt")
    assert (await settlement.sender.tick()).obstacle is None
    await blocks(shop, settlement)
    assert shop.states(payments) == {"completed": 6}


async def test_receipts_that_lag_behind_are_waited_for(shop: Shop, proxy: RpcProxy) -> None:
    payments = await shop.sell(2)
    settlement = await shop.settlement(await shop.connect(proxy.url))
    await settlement.sender.tick()
    proxy.change(
        lambda given: [{**item, "result": None} for item in given],
        "eth_getTransactionReceipt",
        times=2,
    )
    for _ in range(2):
        proxy.answer(BROKEN["null"], "eth_getLogs")
        await blocks(shop, settlement)
    assert shop.states(payments) == {"sent": 2}
    await blocks(shop, settlement)
    assert shop.states(payments) == {"completed": 2}
    assert shop.lane_row().paused_because is None


def test_web3_leaves_the_recursion_limit_where_it_was() -> None:
    """In a process of its own: other libraries here may have been faster."""
    program = "import taprail_gateway.settle.node, sys; print(sys.getrecursionlimit())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(done.stdout) == 1_000


async def test_a_hanging_node_is_left_in_time_and_found_again(
    ledger: Ledger, tmp_path: Path
) -> None:
    async with DevChain(AnvilOptions(block_time_s=0.2)) as chain:
        await asyncio.to_thread(chain.deploy_token)
        async with open_shop(chain, ledger, tmp_path / "master.key") as shop:
            settlement = await shop.settlement(await shop.connect(rpc_timeout_ms=300))
            await settlement.start()
            try:
                first = await shop.sell(3)
                await until_settled(shop, first, PaymentState.COMPLETED)
                chain.pause()
                during = await shop.sell(3, card=1)
                with pytest.raises(ChainError):
                    await settlement.confirmer.tick()
                chain.resume()
                await until_settled(shop, during, PaymentState.COMPLETED)
            finally:
                await settlement.stop()
            shop.assert_books_balance()


async def test_a_node_that_dies_and_comes_back_from_its_state(
    ledger: Ledger, tmp_path: Path
) -> None:
    """It comes back without what was in its pool: only the stored bytes can bring that again."""
    state = tmp_path / "state.json"
    async with DevChain(AnvilOptions(block_time_s=0.2, state_path=state)) as chain:
        await asyncio.to_thread(chain.deploy_token)
        token = chain.token_address
        async with (
            open_shop(chain, ledger, tmp_path / "master.key") as shop,
            running_proxy(chain.rpc_url) as proxy,
        ):
            settlement = await shop.settlement(await shop.connect(proxy.url))
            await settlement.start()
            try:
                first = await shop.sell(3)
                await until_settled(shop, first, PaymentState.COMPLETED)
                chain.stop()
                during = await shop.sell(3, card=1)
                shutil.copy(state, tmp_path / "again.json")
                options = AnvilOptions(block_time_s=0.2, state_path=tmp_path / "again.json")
                async with DevChain(options, token_address=token) as again:
                    shop.chain = again
                    proxy.node_url = again.rpc_url
                    await until_settled(shop, during, PaymentState.COMPLETED)
                    shop.assert_books_balance()
                    assert still_open(shop) == {}
                    await settlement.stop()
            finally:
                await settlement.stop()


async def test_a_wallet_without_gas_for_an_hour_costs_no_approved_sale(shop: Shop) -> None:
    settlement = await shop.settlement(confirmation_timeout_s=10)
    await settlement.sender.tick()
    shop.chain.fund(shop.lane, 0)
    payments = await shop.sell(3)
    await settlement.sender.tick()
    await blocks(shop, settlement)
    shop.clock.ahead_ms = 3_600_000
    await blocks(shop, settlement)
    assert shop.states(payments) == {"confirmation_failed": 3}
    shop.chain.advance_time(3_600)
    await settlement.confirmer.tick()
    assert shop.states(payments) == {"pending": 3}
    assert shop.balance()[2] == 300, "still held: the merchant was told yes"
    shop.chain.fund(shop.lane, ETHER)
    for _ in range(4):
        await settlement.sender.tick()
        await blocks(shop, settlement)
    assert shop.states(payments) == {"completed": 3}
    shop.assert_books_balance()

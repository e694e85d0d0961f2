"""Authorizations are public: whoever carries one out or burns it, at whatever state of the payment,
it is paid exactly once or never.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.judge import PROOF_DEPTH
from taprail_hwsim.dev_chain import DevChain
from tests.support import eip3009
from tests.support.confirm_shop import assert_balances, go_on, still_shop, told_of
from tests.support.rpc_proxy import RpcProxy, running_proxy
from tests.support.settle_shop import Shop, blocks, still_open

pytestmark = pytest.mark.chain

STRANGER = "0x" + "57" * 20
STATES = [
    PaymentState.PENDING,
    PaymentState.PROCESSING,
    PaymentState.SENT,
    PaymentState.CONFIRMATION_FAILED,
]


@pytest_asyncio.fixture
async def shop(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Shop]:
    async with still_shop(
        chain, ledger, tmp_path / "master.key", lanes=2, confirmation_timeout_s=60
    ) as opened:
        yield opened


@pytest_asyncio.fixture
async def proxy(shop: Shop) -> AsyncIterator[RpcProxy]:
    async with running_proxy(shop.chain.rpc_url) as running:
        yield running


async def bring_to(
    state: PaymentState, shop: Shop, settlement: Settlement, proxy: RpcProxy
) -> list[str]:
    """Three payments in this state, none of them on chain or in the node's pool."""
    await blocks(shop, settlement)
    ids = await shop.sell(3)
    if state is PaymentState.PENDING:
        return ids
    if state is PaymentState.PROCESSING:
        proxy.lose_request()
    await settlement.senders[shop.lanes[0]].tick()
    shop.chain.node.call("anvil_dropAllTransactions")
    if state is PaymentState.CONFIRMATION_FAILED:
        shop.clock.ahead_ms += 61_000
        await settlement.confirmer.tick()
    assert shop.states(ids) == {str(state): 3}
    return ids


@pytest.mark.parametrize("state", STATES)
async def test_what_a_stranger_carries_out_is_paid_once(
    shop: Shop, proxy: RpcProxy, state: PaymentState
) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url))
    ids = await bring_to(state, shop, settlement, proxy)
    theirs = shop.execute(shop.authorization(ids[1], amount_units=100))
    await go_on(shop, settlement)
    assert shop.states(ids) == {"completed": 3}
    assert shop.payment(ids[1]).tx_hash == theirs
    assert [moved.nonce for moved in shop.chain.transfers(shop.payee)].count(ids[1]) == 1
    assert told_of(shop, ids[1]).count(PaymentEvent.CONFIRM) == 1
    await assert_balances(shop)
    shop.assert_books_balance()


@pytest.mark.parametrize("how", ["cancel", "another transfer"])
@pytest.mark.parametrize("state", STATES)
async def test_what_its_holder_burns_is_not_paid(
    shop: Shop, proxy: RpcProxy, state: PaymentState, how: str
) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url))
    ids = await bring_to(state, shop, settlement, proxy)
    if how == "cancel":
        cancel = eip3009.cancel_call_data(shop.chain, shop.holder(), ids[1])
        shop.chain.send(shop.chain.accounts[2], shop.chain.token_address, cancel)
    else:
        shop.execute(shop.authorization(ids[1], payee=STRANGER, amount_units=100))
    await go_on(shop, settlement)
    assert shop.states([ids[0], ids[2]]) == {"completed": 2}
    assert shop.payment(ids[1]).state in {PaymentState.PENDING, PaymentState.CONFIRMATION_FAILED}
    assert shop.balance()[2] == 100, "held until there is proof"

    shop.chain.advance_time(3_601)
    shop.chain.mine(PROOF_DEPTH)
    shop.clock.ahead_ms += 3_601_000
    await go_on(shop, settlement, 2)
    assert shop.payment(ids[1]).state is PaymentState.FAILED
    assert PaymentEvent.CONFIRM not in told_of(shop, ids[1])
    assert still_open(shop) == {}
    await assert_balances(shop)
    shop.assert_books_balance()

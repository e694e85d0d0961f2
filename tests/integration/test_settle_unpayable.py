"""Payments that cannot be carried out, on a real node: proven never paid, or paid by a stranger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.judge import PROOF_DEPTH
from taprail_hwsim.dev_chain import DevChain
from tests.support import eip3009
from tests.support.settle_shop import (
    BALANCE_UNITS,
    Shop,
    blocks,
    by_hand,
    open_shop,
    past_the_proof,
    send_all,
    still_open,
)

pytestmark = pytest.mark.chain
STRANGER = "0x" + "57" * 20


@pytest_asyncio.fixture
async def shop(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(chain, ledger, tmp_path / "master.key") as opened:
        yield opened


@pytest.fixture
def spiked(shop: Shop) -> Iterator[Shop]:
    with by_hand(shop):
        yield shop


async def refuse_to_the_end(shop: Shop, settlement: Settlement) -> None:
    """Try out what waits as often as it ever is."""
    for tries in range(schema.REFUSED_AFTER):
        shop.clock.ahead_ms += 1_000 * 2**tries
        await send_all(settlement)
        await blocks(shop, settlement)


async def overtake(shop: Shop, settlement: Settlement, act: Callable[[], object]) -> None:
    """Send what waits, which was tried out and was well, and let it land after somebody's act."""
    await send_all(settlement)
    shop.chain.node.call("anvil_dropAllTransactions")
    act()
    await blocks(shop, settlement, 4)


async def test_an_account_emptied_elsewhere_fails_alone_and_by_proof(shop: Shop) -> None:
    good = await shop.sell(4, card=1)
    [bad] = await shop.sell(card=0, amount_units=500)
    emptying = shop.authorization(eip3009.nonce(1), payee=STRANGER, amount_units=BALANCE_UNITS - 10)
    shop.execute(emptying)
    settlement = await shop.settlement()
    await refuse_to_the_end(shop, settlement)
    assert shop.states(good) == {"completed": 4}
    refused = shop.payment(bad)
    assert (refused.state, refused.bindings) == (PaymentState.PENDING, 0)
    assert refused.failure_reason == "the account's balance does not cover it"
    assert shop.balance()[2] == 500, "held until there is proof"

    await past_the_proof(shop, settlement)
    assert shop.payment(bad).state is PaymentState.FAILED
    assert shop.balance()[2] == 0
    assert still_open(shop) == {}
    shop.assert_books_balance()


async def test_there_is_no_proof_before_the_last_authorization_has_expired(spiked: Shop) -> None:
    shop = spiked
    [bad] = await shop.sell(amount_units=500)
    emptying = shop.authorization(eip3009.nonce(1), payee=STRANGER, amount_units=BALANCE_UNITS)
    settlement = await shop.settlement()
    await overtake(shop, settlement, lambda: shop.execute(emptying))
    await refuse_to_the_end(shop, settlement)
    refused = shop.payment(bad)
    assert (refused.state, refused.bindings, refused.preflights) == (
        PaymentState.PENDING,
        1,
        schema.REFUSED_AFTER,
    )
    shop.chain.advance_time(500)
    shop.chain.mine(PROOF_DEPTH)
    await settlement.confirmer.tick()
    assert shop.payment(bad).state is PaymentState.PENDING
    await past_the_proof(shop, settlement)
    assert shop.payment(bad).state is PaymentState.FAILED
    shop.assert_books_balance()


async def test_a_cancelled_authorization_is_given_up_at_once_and_fails_by_proof(
    spiked: Shop,
) -> None:
    shop = spiked
    good = await shop.sell(3, card=1)
    [bad] = await shop.sell(card=0)
    cancel = eip3009.cancel_call_data(shop.chain, shop.holder(), bad)
    settlement = await shop.settlement()
    await overtake(
        shop,
        settlement,
        lambda: shop.chain.send(shop.chain.accounts[2], shop.chain.token_address, cancel),
    )
    assert shop.states(good) == {"completed": 3}
    assert shop.payment(bad).state is PaymentState.CONFIRMATION_FAILED
    assert shop.payment(bad).failure_reason == "its authorization was used up by its holder"
    await past_the_proof(shop, settlement)
    assert shop.payment(bad).state is PaymentState.FAILED
    shop.assert_books_balance()


async def test_a_nonce_burnt_by_another_transfer_is_no_payment(spiked: Shop) -> None:
    shop = spiked
    [bad] = await shop.sell(amount_units=100)
    burning = shop.authorization(bad, payee=STRANGER, amount_units=100)
    settlement = await shop.settlement()
    await overtake(shop, settlement, lambda: shop.execute(burning))
    assert shop.payment(bad).state is PaymentState.CONFIRMATION_FAILED
    await past_the_proof(shop, settlement)
    assert shop.payment(bad).state is PaymentState.FAILED
    shop.assert_books_balance()


@pytest.mark.parametrize("count", [1, 3])
async def test_an_authorization_carried_out_by_a_stranger_is_paid(spiked: Shop, count: int) -> None:
    shop = spiked
    payments = await shop.sell(count, amount_units=100)
    theirs = shop.authorization(payments[0], amount_units=100)
    settlement = await shop.settlement()
    await overtake(shop, settlement, lambda: shop.execute(theirs))
    assert shop.states(payments) == {"completed": count}
    [moved] = [each for each in shop.chain.transfers(shop.payee) if each.nonce == payments[0]]
    assert shop.payment(payments[0]).tx_hash == moved.transaction_hash
    assert moved.transaction_hash not in {shop.payment(each).tx_hash for each in payments[1:]}, (
        "not by ours"
    )
    shop.assert_books_balance()


async def test_a_stranger_may_pay_even_what_is_refused(shop: Shop) -> None:
    [payment] = await shop.sell(amount_units=100)
    emptying = shop.authorization(eip3009.nonce(1), payee=STRANGER, amount_units=BALANCE_UNITS)
    shop.execute(emptying)
    settlement = await shop.settlement()
    await refuse_to_the_end(shop, settlement)
    assert shop.payment(payment).state is PaymentState.PENDING
    shop.chain.mint(shop.account(), 100)
    shop.execute(shop.authorization(payment, amount_units=100))
    await past_the_proof(shop, settlement)
    assert shop.payment(payment).state is PaymentState.COMPLETED
    assert shop.transactions() == []
    shop.assert_books_balance()

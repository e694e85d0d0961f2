"""Settlement on a real node and a real ledger: paid once, or proven never paid."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from eth_account import Account
from sqlalchemy import insert

from taprail_common.errors import OperatorError
from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import queries, schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.errors import FeeCapError
from taprail_hwsim.dev_chain import DevChain
from tests.support.settle_shop import (
    BALANCE_UNITS,
    ETHER,
    Shop,
    blocks,
    by_hand,
    open_shop,
    send_all,
    until_settled,
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


async def test_a_lone_payment_goes_straight_to_the_token(shop: Shop) -> None:
    [payment] = await shop.sell(amount_units=250)
    settlement = await shop.settlement()
    await send_all(settlement)
    assert shop.payment(payment).state is PaymentState.SENT
    await blocks(shop, settlement)
    paid = shop.payment(payment)
    assert paid.state is PaymentState.COMPLETED
    [moved] = shop.chain.transfers(shop.payee)
    assert (moved.nonce, moved.amount_units) == (payment, 250)
    assert (paid.tx_hash, paid.block_number) == (moved.transaction_hash, moved.block_number)
    transaction = shop.chain.node.call("eth_getTransactionByHash", paid.tx_hash)
    assert transaction["to"] == shop.chain.token_address.lower()
    shop.assert_books_balance()


async def test_the_commit_that_completes_gives_back_the_hold_and_brings_the_balance(
    shop: Shop,
) -> None:
    await shop.sell(amount_units=250)
    settlement = await shop.settlement()
    await send_all(settlement)
    assert shop.balance()[2] == 250
    await blocks(shop, settlement)
    units, block, held = shop.balance()
    assert (units, held) == (BALANCE_UNITS - 250, 0)
    assert block >= (shop.chain.transfers(shop.payee)[0].block_number)


async def test_a_hundred_payments_take_two_transactions(shop: Shop) -> None:
    payments = await shop.sell(50, card=0) + await shop.sell(50, card=1)
    settlement = await shop.settlement()
    await send_all(settlement)
    assert len(shop.transactions()) == 2
    await blocks(shop, settlement)
    assert shop.states(payments) == {"completed": 100}
    assert {item["status"] for item in shop.transactions()} == {"final"}
    assert len({shop.payment(each).tx_hash for each in payments}) == 2
    shop.assert_books_balance()


async def test_the_running_loops_settle_what_comes_in(shop: Shop) -> None:
    settlement = await shop.settlement()
    await settlement.start()
    try:
        first = await shop.sell(1)
        await until_settled(shop, first, PaymentState.COMPLETED)
        many = await shop.sell(70, card=1)
        await until_settled(shop, many, PaymentState.COMPLETED)
    finally:
        await settlement.stop()
    shop.assert_books_balance()


async def test_nothing_happens_twice_when_there_is_nothing_to_do(shop: Shop) -> None:
    payments = await shop.sell(5)
    settlement = await shop.settlement()
    await send_all(settlement)
    await blocks(shop, settlement, 2)
    again = await shop.settlement()
    await send_all(again)
    await blocks(shop, again, 3)
    assert shop.states(payments) == {"completed": 5}
    assert len(shop.transactions()) == 1
    shop.assert_books_balance()


async def test_deeper_confirmation_waits_for_its_depth(shop: Shop) -> None:
    [payment] = await shop.sell()
    settlement = await shop.settlement(confirmations=3)
    await send_all(settlement)
    shop.chain.mine()
    landed = shop.chain.transfers(shop.payee)[0].block_number
    while shop.chain.block_number() < landed + 2:
        await settlement.confirmer.tick()
        if shop.chain.block_number() < landed + 2:
            assert shop.payment(payment).state is PaymentState.SENT
        shop.chain.mine()
    await settlement.confirmer.tick()
    assert shop.payment(payment).state is PaymentState.COMPLETED


# --- what the lane lives through ------------------------------------------------------------------


async def test_an_empty_wallet_pauses_the_lane_until_it_is_topped_up(shop: Shop) -> None:
    settlement = await shop.settlement()
    await settlement.sender.tick()
    payments = await shop.sell(3)
    shop.chain.fund(shop.lane, 0)
    tick = await settlement.sender.tick()
    assert "funds" in (tick.obstacle or "")
    assert (shop.lane_row().paused_because or "").startswith("funds:")
    more = await shop.sell(2)
    await settlement.sender.tick()
    assert shop.states(more) == {"pending": 2}, "a paused lane takes nothing new"

    shop.chain.fund(shop.lane, ETHER)
    await send_all(settlement)
    assert shop.lane_row().paused_because is None
    await blocks(shop, settlement)
    await send_all(settlement)
    await blocks(shop, settlement)
    assert shop.states(payments + more) == {"completed": 5}
    assert [item["nonce"] for item in shop.transactions()] == [0, 1]
    shop.assert_books_balance()


async def test_a_transaction_that_can_never_run_pauses_the_lane_and_says_why(shop: Shop) -> None:
    [payment] = await shop.sell()
    shop.chain.node.call("evm_setBlockGasLimit", hex(100_000))
    shop.chain.mine()
    try:
        settlement = await shop.settlement()
        tick = await settlement.sender.tick()
        assert "permanent" in (tick.obstacle or "")
        assert (shop.lane_row().paused_because or "").startswith("permanent:")
        assert shop.payment(payment).state is PaymentState.PROCESSING
        assert len(shop.transactions()) == 1
    finally:
        shop.chain.node.call("evm_setBlockGasLimit", hex(30_000_000))


async def test_dropped_transactions_are_offered_again_from_the_head(shop: Shop) -> None:
    payments = await shop.sell(8)
    settlement = await shop.settlement(payments_per_transaction=2)
    await send_all(settlement)
    shop.chain.node.call("anvil_dropAllTransactions")
    await blocks(shop, settlement, 4)
    assert shop.states(payments) == {"completed": 8}
    assert [item["nonce"] for item in shop.transactions()] == [0, 1, 2, 3]
    shop.assert_books_balance()


async def test_a_fee_over_the_cap_binds_nothing(spiked: Shop) -> None:
    shop = spiked
    payments = await shop.sell(2)
    settlement = await shop.settlement(max_fee_cap_gwei=5.0)
    shop.chain.set_next_block_base_fee(20 * 10**9)
    shop.chain.mine()
    with pytest.raises(FeeCapError):
        await settlement.sender.tick()
    assert shop.states(payments) == {"pending": 2}
    assert shop.transactions() == []


async def test_what_a_fee_spike_threw_out_lands_when_it_is_over(spiked: Shop) -> None:
    shop = spiked
    payments = await shop.sell(2)
    settlement = await shop.settlement()
    await send_all(settlement)
    shop.chain.set_next_block_base_fee(900 * 10**9)
    await blocks(shop, settlement, 3)
    assert shop.states(payments) == {"sent": 2}
    shop.chain.set_next_block_base_fee(10**9)
    await blocks(shop, settlement, 3)
    assert shop.states(payments) == {"completed": 2}
    assert len(shop.transactions()) == 1
    shop.assert_books_balance()


async def test_a_strangers_use_of_the_lanes_key_pauses_it_and_loses_nothing(shop: Shop) -> None:
    settlement = await shop.settlement()
    await send_all(settlement)  # the lane begins at nonce 0
    theirs = {
        "to": STRANGER,
        "value": 1,
        "gas": 21_000,
        "nonce": 0,
        "chainId": shop.chain.chain_id,
        "maxFeePerGas": 10**10,
        "maxPriorityFeePerGas": 10**9,
    }
    raw = Account.sign_transaction(theirs, shop.lane_holder().key).raw_transaction
    shop.chain.node.call("eth_sendRawTransaction", "0x" + bytes(raw).hex())
    shop.chain.mine()
    payments = await shop.sell(2)
    await settlement.sender.tick()
    await blocks(shop, settlement, 4)
    assert (shop.lane_row().paused_because or "").startswith("foreign_nonce:")
    assert shop.states(payments) == {"pending": 2}
    assert [item["status"] for item in shop.transactions()] == ["final"]
    shop.assert_books_balance()


async def test_a_payment_over_its_deadline_is_listed_and_a_late_receipt_still_counts(
    spiked: Shop,
) -> None:
    shop = spiked
    [payment] = await shop.sell()
    settlement = await shop.settlement(confirmation_timeout_s=10)
    await send_all(settlement)
    shop.chain.set_next_block_base_fee(900 * 10**9)
    await blocks(shop, settlement)
    shop.clock.ahead_ms = 11_000
    await blocks(shop, settlement)
    listed = shop.payment(payment)
    assert listed.state is PaymentState.CONFIRMATION_FAILED
    assert listed.failure_reason == "not confirmed within 10 s"
    shop.chain.set_next_block_base_fee(10**9)
    await blocks(shop, settlement, 3)
    assert shop.payment(payment).state is PaymentState.COMPLETED
    shop.assert_books_balance()


# --- balances -------------------------------------------------------------------------------------


async def test_a_top_up_is_seen_in_the_block_that_brings_it(shop: Shop) -> None:
    settlement = await shop.settlement()
    await settlement.confirmer.tick()
    shop.chain.mint(shop.account(1), 777)
    await settlement.confirmer.tick()
    assert shop.balance(1)[0] == BALANCE_UNITS + 777


async def test_an_account_made_while_running_gets_its_balance(shop: Shop) -> None:
    settlement = await shop.settlement()
    await settlement.confirmer.tick()
    address, wrapped = shop.custody.new_key()
    shop.chain.mint(address, 4_321)
    new = insert(schema.accounts).values(address=address, wrapped_key=wrapped, created_at_ms=1)
    await shop.ledger.write(lambda connection: connection.execute(new) and None)
    await blocks(shop, settlement)
    held = schema.accounts
    row = shop.ledger.read_now(
        lambda connection: connection.execute(held.select().where(held.c.address == address)).one()
    )
    assert row.balance_units == 4_321


async def test_a_ledger_without_a_lane_is_refused(shop: Shop) -> None:
    shop.ledger.write_now(lambda connection: connection.execute(schema.lanes.delete()) and None)
    settlement = await shop.settlement()
    with pytest.raises(OperatorError, match="no lane"):
        await settlement.start()


async def test_a_few_payments_wait_for_the_block_and_travel_together(spiked: Shop) -> None:
    shop = spiked
    [first] = await shop.sell()
    settlement = await shop.settlement()
    await send_all(settlement)
    few = await shop.sell(9)
    await send_all(settlement)
    assert shop.payment(first).state is PaymentState.SENT
    assert shop.states(few) == {PaymentState.PENDING: 9}

    shop.chain.mine()
    await settlement.confirmer.tick()
    assert shop.payment(first).state is PaymentState.COMPLETED
    await send_all(settlement)
    assert shop.states(few) == {PaymentState.SENT: 9}
    assert len(shop.transactions()) == 2


async def test_nobody_waits_for_the_block_longer_than_an_interval(spiked: Shop) -> None:
    shop = spiked
    await shop.sell()
    settlement = await shop.settlement()
    await send_all(settlement)
    few = await shop.sell(2)
    shop.clock.ahead_ms += shop.settings.payment_batch_interval_ms
    await send_all(settlement)
    assert shop.states(few) == {PaymentState.SENT: 2}


async def test_a_full_transaction_does_not_wait(spiked: Shop) -> None:
    shop = spiked
    await shop.sell()
    settlement = await shop.settlement(payments_per_transaction=5)
    await send_all(settlement)
    many = await shop.sell(7)
    await send_all(settlement)
    assert shop.states(many) == {PaymentState.SENT: 7}


async def test_a_funds_pause_ends_though_the_refused_transaction_went_another_way(
    shop: Shop,
) -> None:
    settlement = await shop.settlement()
    await settlement.sender.tick()
    [payment] = await shop.sell()
    shop.chain.fund(shop.lane, 0)
    await settlement.sender.tick()
    [stored] = shop.transactions()
    # Somebody else's node had it all along: it is mined while nobody here sends it again.
    shop.chain.fund(shop.lane, ETHER)
    raw = shop.ledger.read_now(lambda c: queries.raw_attempts(c, [stored["id"]]))[stored["id"]][0]
    shop.chain.node.call("eth_sendRawTransaction", "0x" + raw.raw.hex())
    await blocks(shop, settlement)
    assert shop.payment(payment).state is PaymentState.COMPLETED
    assert (shop.lane_row().paused_because or "").startswith("funds:")
    [next_one] = await shop.sell()
    await settlement.sender.tick()
    assert shop.lane_row().paused_because is None
    await send_all(settlement)
    assert shop.payment(next_one).state is PaymentState.SENT


async def test_no_more_is_under_way_than_is_allowed(spiked: Shop) -> None:
    shop = spiked
    settlement = await shop.settlement(max_in_flight_payments=60)
    many = await shop.sell(150)
    await send_all(settlement)
    assert shop.states(many) == {"sent": 60, "pending": 90}
    while shop.states(many) != {"completed": len(many)}:
        await blocks(shop, settlement)
        await send_all(settlement)
    shop.assert_books_balance()


async def test_what_is_in_the_way_is_told(shop: Shop) -> None:
    settlement = await shop.settlement()
    assert settlement.obstacles() == []
    shop.chain.fund(shop.lane, 0)
    await shop.sell()
    await settlement.start()
    try:
        async with asyncio.timeout(20):
            while not settlement.obstacles():  # noqa: ASYNC110 - nobody is told of an obstacle
                await asyncio.sleep(0.02)
        [told] = settlement.obstacles()
        assert told.startswith(f"sender {shop.lane}:")
        assert "funds" in told
    finally:
        await settlement.stop()

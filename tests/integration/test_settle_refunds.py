"""Refunds on a real chain: the money goes back to who paid, from a float or by a signature."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import alerts, by_hand, floats, refund_shares, refunds, schema
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.card_signatures import StoredSignature
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.payment_alerts import REFUNDED_ALERT
from taprail_gateway.ledger.refunds import Refund, TooMuchError, Wanted
from taprail_gateway.ledger.transitions import refresh_balances
from taprail_gateway.settle.engine import Settlement
from taprail_hwsim.dev_chain import DevChain
from tests.support import eip3009
from tests.support.eip3009 import Authorization
from tests.support.ledger_fixtures import NOW_MS, on_both_engines
from tests.support.ledger_refunds import wanted
from tests.support.settle_shop import BALANCE_UNITS, Shop, blocks, open_shop, still_open

pytestmark = pytest.mark.chain

UNITS = 100


@dataclass
class RefundingShop:
    """A shop whose merchant has a float, with nothing in it, and a sale of the first card."""

    shop: Shop
    float_account: str
    sale: str
    settlement: Settlement

    def ask(self, amount_units: int, sale: str | None = None) -> Refund:
        work = partial(refunds.ask, wanted=wanted(sale or self.sale, amount_units))
        return self.shop.ledger.write_now(work)

    async def settle(self) -> None:
        await self.settlement.sender.tick()
        await blocks(self.shop, self.settlement)

    def returned_units(self) -> int:
        """What the chain says the card's account got back."""
        transfers = self.shop.chain.transfers(self.shop.account(0))
        return sum(each.amount_units for each in transfers if each.sender == self.float_account)

    def promised_units(self) -> int:
        query = partial(refund_shares.refunded_units, sale_id=self.sale)
        return self.shop.ledger.read_now(query)

    def alerts(self) -> list[tuple[str, str]]:
        found = self.shop.ledger.read_now(alerts.open_alerts)
        return [(each.kind, each.subject) for each in found]


def _open_float(shop: Shop) -> str:
    address, wrapped = shop.custody.new_key()
    merchant = shop.registry.merchant_id
    shop.ledger.write_now(lambda c: floats.open_float(c, merchant, address, wrapped, NOW_MS))
    return address


@pytest_asyncio.fixture
async def refunding(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> AsyncIterator[RefundingShop]:
    """On a chain whose blocks come by the test's hand alone."""
    async with open_shop(chain, ledger, tmp_path / "master.key") as shop:
        chain.node.call("evm_setIntervalMining", 0)
        try:
            float_account = _open_float(shop)
            (sale,) = await shop.sell(amount_units=UNITS)
            it = RefundingShop(shop, float_account, sale, await shop.settlement())
            await it.settle()
            assert shop.payment(sale).state is PaymentState.COMPLETED
            yield it
        finally:
            chain.node.call("evm_setIntervalMining", 1)
            chain.mine()


async def top_up(it: RefundingShop, units: int) -> None:
    it.shop.chain.mint(it.float_account, units)
    await blocks(it.shop, it.settlement)


@on_both_engines
async def test_a_sale_is_given_back_to_the_account_that_paid(refunding: RefundingShop) -> None:
    shop = refunding.shop
    await top_up(refunding, UNITS)
    part, rest = refunding.ask(30), refunding.ask(70)
    await refunding.settle()
    assert shop.states([part.id, rest.id]) == {"completed": 2}
    assert refunding.returned_units() == UNITS
    assert shop.balance(0)[0] == BALANCE_UNITS, "the ledger knows that the card has it again"
    assert {each.nonce for each in shop.chain.transfers(shop.account(0))} >= {part.id, rest.id}
    with pytest.raises(TooMuchError):
        refunding.ask(1)
    assert still_open(shop) == {}
    shop.assert_books_balance()


async def test_refunds_and_sales_travel_together(refunding: RefundingShop) -> None:
    shop = refunding.shop
    await top_up(refunding, UNITS)
    before = len(shop.transactions())
    refund = refunding.ask(UNITS)
    sales = await shop.sell(3, card=1)
    await refunding.settle()
    assert shop.states([refund.id, *sales]) == {"completed": 4}
    assert len(shop.transactions()) == before + 1
    shop.assert_books_balance()


@on_both_engines
async def test_two_who_race_for_the_rest_give_back_no_more_than_was_paid(
    refunding: RefundingShop,
) -> None:
    shop = refunding.shop
    await top_up(refunding, 10 * UNITS)
    works = [partial(refunds.ask, wanted=wanted(refunding.sale, 60)) for _ in range(2)]
    outcomes = await asyncio.gather(*map(shop.ledger.write, works), return_exceptions=True)
    (refused,) = [each for each in outcomes if isinstance(each, BaseException)]
    assert isinstance(refused, TooMuchError)
    await refunding.settle()
    assert refunding.returned_units() == refunding.promised_units() == 60
    shop.assert_books_balance()


@on_both_engines
async def test_a_short_float_holds_a_refund_up_until_it_is_topped_up(
    refunding: RefundingShop,
) -> None:
    shop = refunding.shop
    refund = refunding.ask(UNITS)
    for _ in range(3):
        await refunding.settle()
        shop.clock.ahead_ms += 600_000
    waiting = shop.payment(refund.id)
    assert (waiting.state, waiting.preflights) == (PaymentState.PENDING, 0)
    assert waiting.signed_until_s == 0, "nothing was signed, so it could still be cancelled"
    assert refunding.alerts() == [(floats.FLOAT_ALERT, shop.registry.merchant_id)]
    await top_up(refunding, UNITS - 1)
    await refunding.settle()
    assert shop.payment(refund.id).state is PaymentState.PENDING
    await top_up(refunding, 1)
    await refunding.settle()
    assert shop.payment(refund.id).state is PaymentState.COMPLETED
    assert refunding.returned_units() == UNITS
    assert refunding.alerts() == []
    shop.assert_books_balance()


async def test_one_that_waits_is_cancelled_and_its_alert_goes(refunding: RefundingShop) -> None:
    shop = refunding.shop
    refund = refunding.ask(UNITS)
    by = By("olga", shop.clock.now_ms(), "a mistake")
    await shop.ledger.write(partial(by_hand.cancel, payment_id=refund.id, by=by))
    await blocks(shop, refunding.settlement)
    assert (refunding.alerts(), refunding.promised_units()) == ([], 0)
    shop.assert_books_balance()


async def test_a_float_that_has_less_than_the_ledger_thinks_never_fails_a_refund(
    refunding: RefundingShop,
) -> None:
    """As after a reorg that takes a top-up back."""
    shop = refunding.shop
    believed = {refunding.float_account: UNITS}
    block = shop.chain.block_number()
    shop.ledger.write_now(lambda c: refresh_balances(c, believed, block))
    refund = refunding.ask(UNITS)
    for _ in range(schema.REFUSED_AFTER + 1):
        shop.ledger.write_now(lambda c: floats.fund(c, NOW_MS))
        assert shop.payment(refund.id).failure_reason is None
        await refunding.settlement.sender.tick()
        waiting = shop.payment(refund.id)
        assert (waiting.state, waiting.preflights) == (PaymentState.PENDING, 0)
        assert waiting.failure_reason == floats.WAITS
        shop.clock.ahead_ms += 60_000
    await top_up(refunding, UNITS)
    await refunding.settle()
    assert shop.payment(refund.id).state is PaymentState.COMPLETED
    shop.assert_books_balance()


async def test_a_merchants_own_signature_pays_from_where_the_sale_went(
    refunding: RefundingShop,
) -> None:
    shop = refunding.shop
    merchant = eip3009.account(7)
    (sale,) = await shop.sell(amount_units=UNITS, payee=merchant.address.lower())
    await refunding.settle()
    asked = wanted(sale, 40)
    until_s = shop.chain.block_time_s() + 3_600
    signed = Authorization(
        merchant.address.lower(), shop.account(0), 40, asked.payment_id, 0, until_s
    ).signed_by(merchant, shop.chain)
    signature = signed.r.to_bytes(32, "big") + signed.s.to_bytes(32, "big") + bytes([signed.v])
    own = Wanted(
        *(sale, 40, asked.requester, asked.request_id, asked.request, asked.at_ms),
        StoredSignature(until_s, signature),
    )
    refund = shop.ledger.write_now(partial(refunds.ask, wanted=own))
    await refunding.settle()
    assert shop.payment(refund.id).state is PaymentState.COMPLETED
    transfers = shop.chain.transfers(shop.account(0))
    assert [each.amount_units for each in transfers if each.nonce == refund.id] == [40]
    assert still_open(shop) == {}


async def test_a_reorg_of_a_refunded_sale_raises_an_alarm_alone(refunding: RefundingShop) -> None:
    shop = refunding.shop
    await top_up(refunding, UNITS)
    snapshot = shop.chain.node.call("evm_snapshot")
    (sale,) = await shop.sell(amount_units=UNITS, card=1)
    await refunding.settle()
    refund = refunding.ask(40, sale)
    shop.chain.node.call("evm_revert", snapshot)
    shop.chain.mine(3)
    await blocks(shop, refunding.settlement, 2)
    assert (REFUNDED_ALERT, sale) in refunding.alerts()
    assert shop.payment(sale).state is PaymentState.SENT
    assert shop.payment(refund.id).state is PaymentState.PENDING
    assert shop.ledger.read_now(partial(refund_shares.refunded_units, sale_id=sale)) == 40

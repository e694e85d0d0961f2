"""Payments that a card has signed itself are settled by that signature, and by nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from eth_account.signers.local import LocalAccount
from sqlalchemy import Connection, delete, select, update

from taprail_common.ids import payment_id
from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import by_hand, card_signatures, claims, schema, transitions
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.by_hand import WrongStateError
from taprail_gateway.ledger.card_signatures import StoredSignature
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.invariants import check_invariants
from taprail_gateway.settle.judge import PROOF_DEPTH
from taprail_hwsim.dev_chain import DevChain
from tests.support import eip3009
from tests.support.eip3009 import Authorization
from tests.support.ledger_fixtures import DAY, on_both_engines
from tests.support.settle_shop import BALANCE_UNITS, Shop, blocks, open_shop, still_open

pytestmark = pytest.mark.chain

UNITS = 100
VALID_S = 3_600
STRANGER = "0x" + "57" * 20


class SigningShop:
    """A shop whose first card has its key to itself."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.holder: LocalAccount = shop.holder(0)
        table = schema.accounts
        lost = update(table).where(table.c.address == shop.account(0)).values(wrapped_key=None)
        shop.ledger.write_now(lambda connection: connection.execute(lost))
        self._sold = 0

    async def sell(self, *, units: int = UNITS, valid_s: int = VALID_S) -> tuple[str, int]:
        """Accept a payment that came signed; its id, and when its signature ends."""
        shop = self.shop
        self._sold += 1
        request = f"signed_{self._sold}"
        nonce = payment_id(shop.registry.terminal_id, request)
        until_s = shop.chain.block_time_s() + valid_s
        signed = Authorization(
            sender=shop.account(0),
            recipient=shop.payee,
            amount_units=units,
            nonce=nonce,
            valid_after_s=0,
            valid_before_s=until_s,
        ).signed_by(self.holder, shop.chain)
        signature = signed.r.to_bytes(32, "big") + signed.s.to_bytes(32, "big") + bytes([signed.v])
        row = {
            **shop.registry.payment(request, amount_units=units),
            "profile": "signed",
            "signed_until_s": until_s,
        }

        def accept(connection: Connection) -> None:
            assert transitions.hold(connection, row["payer"], units)
            assert transitions.reserve_spend(connection, row["card_uuid"], DAY, units, 10**12)
            transitions.accept(connection, [row], shop.clock.now_ms())
            stored = {nonce: StoredSignature(until_s, signature)}
            card_signatures.store(connection, stored)

        await shop.ledger.write(accept)
        return nonce, until_s

    def sent_with_it(self, payment: str) -> list[bool]:
        """Of each version of each transaction: whether it holds the card's own signature."""
        [stored] = self.shop.ledger.read_now(
            lambda connection: card_signatures.of_payments(connection, [payment])
        ).values()
        raws = self.shop.ledger.read_now(
            lambda connection: list(connection.scalars(select(schema.attempts.c.raw)))
        )
        return [stored.signature[:64] in raw for raw in raws]

    def ends_s(self, payment: str) -> list[int]:
        """Until when what was signed for a payment is valid, by its bindings."""
        columns = schema.bindings.c
        statement = select(columns.valid_before_s).where(columns.payment_id == payment)
        return self.shop.ledger.read_now(lambda c: list(c.scalars(statement)))


@pytest_asyncio.fixture
async def signing(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[SigningShop]:
    """On a chain whose blocks come by the test's hand alone."""
    async with open_shop(chain, ledger, tmp_path / "master.key") as shop:
        chain.node.call("evm_setIntervalMining", 0)
        try:
            yield SigningShop(shop)
        finally:
            chain.node.call("evm_setIntervalMining", 1)
            chain.mine()


async def test_the_cards_own_signature_moves_the_money(signing: SigningShop) -> None:
    shop = signing.shop
    payment, until_s = await signing.sell()
    settlement = await shop.settlement()
    await settlement.sender.tick()
    assert signing.sent_with_it(payment) == [True]
    await blocks(shop, settlement)
    assert shop.payment(payment).state is PaymentState.COMPLETED
    assert (shop.payment(payment).signed_until_s, signing.ends_s(payment)) == (until_s, [until_s])
    shop.assert_books_balance()


@on_both_engines
async def test_it_travels_together_with_what_is_signed_here(signing: SigningShop) -> None:
    shop = signing.shop
    ours = await shop.sell(3, card=1)
    payment, until_s = await signing.sell()
    other, other_until_s = await signing.sell(valid_s=VALID_S - 60)
    settlement = await shop.settlement()
    await settlement.sender.tick()
    assert len(shop.transactions()) == 1
    assert signing.sent_with_it(payment) == signing.sent_with_it(other) == [True]
    assert (signing.ends_s(payment), signing.ends_s(other)) == ([until_s], [other_until_s])
    [here] = {shop.payment(each).signed_until_s for each in ours}
    assert here < other_until_s, "what is signed here ends when it always did"
    await blocks(shop, settlement)
    assert shop.states([*ours, payment, other]) == {"completed": 5}
    shop.assert_books_balance()


async def test_what_could_not_be_paid_at_first_goes_by_the_same_signature(
    signing: SigningShop,
) -> None:
    shop = signing.shop
    payment, until_s = await signing.sell()
    emptying = Authorization(
        shop.account(0), STRANGER, BALANCE_UNITS, eip3009.nonce(1), 0, until_s
    ).signed_by(signing.holder, shop.chain)
    shop.execute(emptying)
    settlement = await shop.settlement()
    await settlement.sender.tick()
    assert shop.payment(payment).failure_reason == "the account's balance does not cover it"
    assert shop.payment(payment).signed_until_s == until_s, "a trial signs nothing more"
    shop.chain.mint(shop.account(0), UNITS)
    shop.clock.ahead_ms += 2_000
    await blocks(shop, settlement)
    await settlement.sender.tick()
    await blocks(shop, settlement)
    assert shop.payment(payment).state is PaymentState.COMPLETED
    assert signing.sent_with_it(payment) == [True]
    assert shop.payment(payment).signed_until_s == until_s


async def test_one_that_has_expired_unspent_fails_by_proof_and_is_never_signed_anew(
    signing: SigningShop,
) -> None:
    shop = signing.shop
    payment, until_s = await signing.sell(valid_s=60)
    settlement = await shop.settlement()
    shop.chain.advance_time(61)
    await blocks(shop, settlement)
    for tries in range(schema.REFUSED_AFTER):
        await settlement.sender.tick()
        assert shop.payment(payment).preflights == tries + 1
        assert shop.payment(payment).state is PaymentState.PENDING
        assert shop.balance()[2] == UNITS, "held until there is proof"
        shop.clock.ahead_ms += 2_000 * 2**tries
    shop.chain.mine(PROOF_DEPTH + 1)
    await settlement.confirmer.tick()
    failed = shop.payment(payment)
    assert (failed.state, failed.signed_until_s) == (PaymentState.FAILED, until_s)
    assert "expired" in (failed.failure_reason or "")
    assert shop.transactions() == []
    assert shop.balance()[2] == 0
    assert still_open(shop) == {}
    shop.assert_books_balance()


async def test_one_that_expired_on_its_way_fails_by_proof(signing: SigningShop) -> None:
    shop = signing.shop
    payment, until_s = await signing.sell(valid_s=60)
    settlement = await shop.settlement()
    await settlement.sender.tick()
    shop.chain.node.call("anvil_dropAllTransactions")
    shop.chain.advance_time(61)
    for _ in range(2 * schema.REFUSED_AFTER + PROOF_DEPTH):
        shop.clock.ahead_ms += 60_000
        await settlement.sender.tick()
        await blocks(shop, settlement)
    failed = shop.payment(payment)
    assert (failed.state, failed.signed_until_s) == (PaymentState.FAILED, until_s)
    assert set(signing.ends_s(payment)) == {until_s}
    assert shop.balance()[2] == 0
    shop.assert_books_balance()


async def test_whoever_carries_it_out_first_has_paid_it(signing: SigningShop) -> None:
    """The merchant has the card's signature as well as we have."""
    shop = signing.shop
    payment, until_s = await signing.sell()
    theirs = Authorization(shop.account(0), shop.payee, UNITS, payment, 0, until_s)
    settlement = await shop.settlement()
    await settlement.sender.tick()
    shop.chain.node.call("anvil_dropAllTransactions")
    shop.execute(theirs.signed_by(signing.holder, shop.chain))
    await blocks(shop, settlement, 4)
    assert shop.payment(payment).state is PaymentState.COMPLETED
    shop.assert_books_balance()


async def test_nobody_can_cancel_what_a_card_has_signed(signing: SigningShop) -> None:
    shop = signing.shop
    payment, _ = await signing.sell()
    by = By("olga", shop.clock.now_ms(), "a test")
    with pytest.raises(WrongStateError, match="can be carried out by anyone until"):
        await shop.ledger.write(lambda connection: by_hand.cancel(connection, payment, by))
    assert await shop.ledger.write(lambda c: by_hand.cancel_unsigned(c, by)) == 0
    assert shop.payment(payment).state is PaymentState.PENDING


async def test_a_signature_that_is_gone_or_was_outlived_is_told(signing: SigningShop) -> None:
    shop = signing.shop
    payment, until_s = await signing.sell()
    assert shop.ledger.read_now(check_invariants) == []
    await shop.ledger.write(lambda c: claims.will_sign(c, [payment], until_s + 1))
    [told] = shop.ledger.read_now(check_invariants)
    assert f"signed until {until_s + 1}, its card's signature ends at {until_s}" in told
    gone = delete(schema.card_authorizations)
    await shop.ledger.write(lambda connection: connection.execute(gone))
    [told] = shop.ledger.read_now(check_invariants)
    assert "ends at None" in told

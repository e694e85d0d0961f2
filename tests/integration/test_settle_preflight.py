"""What would fail is found out before it costs gas, and spoils nothing for the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from eth_abi.abi import encode

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.schema import REFUSED_AFTER
from taprail_gateway.settle import code_sizes
from taprail_gateway.settle.errors import ChainError, TokenPausedError
from taprail_gateway.settle.judge import PROOF_DEPTH
from taprail_hwsim.dev_chain import DevChain
from tests.support import eip3009
from tests.support.rpc_proxy import RpcProxy, running_proxy
from tests.support.settle_shop import BALANCE_UNITS, Shop, blocks, open_shop

pytestmark = pytest.mark.chain

STRANGER = "0x" + "57" * 20
BURNS_ALL_GAS = "0x5b600056"
"""JUMPDEST, PUSH1 0, JUMP: round and round."""
DELEGATED = "0xef0100" + "11" * 20
"""EIP-7702: the code of an account that lets a contract act for it."""
ERROR_SELECTOR = bytes.fromhex("08c379a0")
"""Of `Error(string)`, what a `require` fails with."""
SAYS_YES = "0x631626ba7e60e01b60005260206000f3"
"""Gives back ERC-1271's word for a valid signature, whatever it is asked."""


@pytest_asyncio.fixture
async def shop(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(chain, ledger, tmp_path / "master.key") as opened:
        yield opened


@pytest_asyncio.fixture
async def proxy(shop: Shop) -> AsyncIterator[RpcProxy]:
    async with running_proxy(shop.chain.rpc_url) as running:
        yield running


def empty(shop: Shop, card: int = 0) -> None:
    """Take all that an account has, behind the gateway's back."""
    all_of_it = shop.authorization(
        eip3009.nonce(1), card=card, payee=STRANGER, amount_units=BALANCE_UNITS
    )
    shop.execute(all_of_it)


def results(given: dict[str, Any], reasons: Sequence[str]) -> dict[str, Any]:
    """The answer of a call to Multicall3 in which these failed, "" for one that did not."""
    rows = [
        (not text, b"" if not text else ERROR_SELECTOR + encode(["string"], [text]))
        for text in reasons
    ]
    return {**given, "result": "0x" + encode(["(bool,bytes)[]"], [rows]).hex()}


async def test_what_the_balance_does_not_cover_costs_no_gas_and_is_tried_again(shop: Shop) -> None:
    good = await shop.sell(4, card=1)
    [bad] = await shop.sell(card=0)
    empty(shop)
    settlement = await shop.settlement()
    await settlement.sender.tick()
    assert shop.states(good) == {"sent": 4}
    put_off = shop.payment(bad)
    assert (put_off.state, put_off.preflights) == (PaymentState.PENDING, 1)
    assert put_off.failure_reason == "the account's balance does not cover it"
    assert put_off.signed_until_s > 0, "the trial's signature counts for the proof"

    await settlement.sender.tick()
    assert shop.payment(bad).preflights == 1, "not before its time"
    shop.chain.mint(shop.account(), 100)
    shop.clock.ahead_ms += 2_000
    await blocks(shop, settlement)
    await settlement.sender.tick()
    await blocks(shop, settlement)
    assert shop.payment(bad).state is PaymentState.COMPLETED
    assert shop.payment(bad).failure_reason is None
    shop.assert_books_balance()


async def test_tries_come_further_and_further_apart_and_end(shop: Shop) -> None:
    [bad] = await shop.sell()
    empty(shop)
    settlement = await shop.settlement()
    for tries in range(1, REFUSED_AFTER + 1):
        wait_ms = 1_000 * 2**tries
        await settlement.sender.tick()
        assert shop.payment(bad).preflights == tries
        shop.clock.ahead_ms += wait_ms - 1_000
        await settlement.sender.tick()
        assert shop.payment(bad).preflights == tries
        shop.clock.ahead_ms += 1_000
    shop.clock.ahead_ms += 3_600_000
    await settlement.sender.tick()
    assert shop.payment(bad).preflights == REFUSED_AFTER
    assert shop.transactions() == []


async def test_two_payments_of_one_balance_are_tried_together(shop: Shop) -> None:
    half = BALANCE_UNITS // 2
    first, second = await shop.sell(2, amount_units=half)
    shop.execute(shop.authorization(eip3009.nonce(1), payee=STRANGER, amount_units=1))
    settlement = await shop.settlement()
    await settlement.sender.tick()
    assert shop.payment(first).state is PaymentState.SENT
    assert shop.payment(second).preflights == 1


async def test_a_payer_with_code_goes_alone_and_takes_nobody_along(shop: Shop) -> None:
    shop.chain.node.call("anvil_setCode", shop.account(0), SAYS_YES)
    ids = await shop.sell(2, card=0) + await shop.sell(3, card=1)
    settlement = await shop.settlement()
    await settlement.sender.tick()
    assert shop.states(ids) == {"sent": 5}
    together = {shop.payment(each).chain_transaction_id for each in ids[2:]}
    alone = {shop.payment(each).chain_transaction_id for each in ids[:2]}
    assert (len(together), len(alone)) == (1, 2)
    assert together.isdisjoint(alone)
    await blocks(shop, settlement, 2)
    assert shop.states(ids) == {"completed": 5}


async def test_a_payer_whose_code_burns_all_gas_harms_nobody_else(shop: Shop) -> None:
    """A token that asks the payer's code refuses it; one that does not lets it pay."""
    shop.chain.node.call("anvil_setCode", shop.account(0), BURNS_ALL_GAS)
    [burns] = await shop.sell(card=0)
    others = await shop.sell(3, card=1)
    settlement = await shop.settlement()
    await settlement.sender.tick()
    assert shop.states(others) == {"sent": 3}
    assert len({shop.payment(each).chain_transaction_id for each in others}) == 1
    assert shop.payment(burns).chain_transaction_id not in {
        shop.payment(each).chain_transaction_id for each in others
    }
    await blocks(shop, settlement, 2)
    assert shop.states(others) == {"completed": 3}


async def test_sizes_of_code_are_those_of_eth_getcode(shop: Shop) -> None:
    chain = await shop.connect()
    shop.chain.node.call("anvil_setCode", STRANGER, DELEGATED)
    asked = [shop.account(0), STRANGER, shop.chain.token_address.lower(), shop.lane]
    question = code_sizes.question(asked, "latest")
    answer = shop.chain.node.call(question[0], *question[1])
    coded = code_sizes.with_code(asked, bytes.fromhex(answer[2:]))
    assert coded == {
        each for each in asked if shop.chain.node.call("eth_getCode", each, "latest") != "0x"
    }
    assert coded == {STRANGER, shop.chain.token_address.lower()}
    many = [shop.account(0)] * code_sizes.MAX_ACCOUNTS
    question = code_sizes.question(many, "latest")
    answer = shop.chain.node.call(question[0], *question[1])
    assert code_sizes.with_code(many, bytes.fromhex(answer[2:])) == frozenset()
    with pytest.raises(ValueError, match="at most"):
        code_sizes.question([*many, STRANGER], "latest")
    with pytest.raises(ChainError):
        code_sizes.with_code(asked, b"\0" * 31)
    await chain.close()


async def test_a_node_that_cannot_try_it_out_sends_nothing_and_drops_nothing(
    shop: Shop, proxy: RpcProxy
) -> None:
    ids = await shop.sell(3)
    settlement = await shop.settlement(await shop.connect(proxy.url))
    proxy.answer(lambda _asked: 502, "eth_call", times=2)
    with pytest.raises(ChainError):
        await settlement.sender.tick()
    assert shop.states(ids) == {"pending": 3}
    assert {shop.payment(each).preflights for each in ids} == {0}
    assert shop.transactions() == []
    await settlement.sender.tick()
    assert shop.states(ids) == {"sent": 3}


async def test_an_answer_that_cannot_be_read_is_asked_for_one_by_one(
    shop: Shop, proxy: RpcProxy
) -> None:
    good = await shop.sell(2, card=1)
    [bad] = await shop.sell(card=0)
    empty(shop)
    settlement = await shop.settlement(await shop.connect(proxy.url))
    huge = "0x" + "ff" * 100_000

    def swell(given: list[dict[str, object]]) -> list[dict[str, object]]:
        return [given[0], {**given[1], "result": huge}]

    proxy.change(swell, "eth_call")
    await settlement.sender.tick()
    assert shop.states(good) == {"sent": 2}
    assert shop.payment(bad).failure_reason == "the account's balance does not cover it"


async def test_a_paused_token_holds_everything_up_and_fails_nothing(
    shop: Shop, proxy: RpcProxy
) -> None:
    ids = await shop.sell(2)
    settlement = await shop.settlement(await shop.connect(proxy.url))
    proxy.change(lambda given: [given[0], results(given[1], ["Pausable: paused"] * 2)], "eth_call")
    with pytest.raises(TokenPausedError):
        await settlement.sender.tick()
    assert {shop.payment(each).preflights for each in ids} == {0}
    await settlement.sender.tick()
    assert shop.states(ids) == {"sent": 2}


async def test_a_node_that_tries_out_only_so_many_at_once_is_asked_in_parts(
    shop: Shop, proxy: RpcProxy
) -> None:
    good = await shop.sell(95, card=1)
    bad = await shop.sell(5, card=0)
    empty(shop)
    settlement = await shop.settlement(await shop.connect(proxy.url), payment_batch_size=100)

    def too_large(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What the node says to a call for payments; how much code they have, it tells."""
        error = {"code": -32000, "message": "request entity too large"}
        refused = {"jsonrpc": "2.0", "id": given[-1]["id"], "error": error}
        return [given[0], refused] if len(given) == 2 else given

    # All hundred, and the first fifty; after each it is asked for the code alone.
    proxy.change(too_large, "eth_call", times=4)
    await settlement.sender.tick()
    assert shop.states(good) == {"sent": 95}
    assert {shop.payment(each).preflights for each in bad} == {1}
    assert proxy.calls["eth_call"] < 20, "in halves, not one by one"


async def test_an_account_that_the_token_has_blocked_spoils_nothing(
    shop: Shop, proxy: RpcProxy
) -> None:
    ids = await shop.sell(3)
    settlement = await shop.settlement(await shop.connect(proxy.url))
    blocked = "Blacklistable: account is blacklisted"  # FiatTokenV2_2
    proxy.change(lambda given: [given[0], results(given[1], ["", blocked, ""])], "eth_call")
    await settlement.sender.tick()
    [left] = [each for each in ids if shop.payment(each).state is PaymentState.PENDING]
    assert shop.states(ids) == {"sent": 2, "pending": 1}
    why = shop.payment(left).failure_reason
    assert why == "the token has blocked the account, or the merchant's"


async def test_a_node_that_refuses_all_for_less_than_a_minute_costs_no_sale(
    shop: Shop, proxy: RpcProxy
) -> None:
    ids = await shop.sell(3)
    settlement = await shop.settlement(await shop.connect(proxy.url))
    lie = "ERC20: transfer amount exceeds balance"
    for tries in range(1, REFUSED_AFTER):
        proxy.change(lambda given: [given[0], results(given[1], [lie] * 3)], "eth_call")
        await settlement.sender.tick()
        assert {shop.payment(each).preflights for each in ids} == {tries}
        await blocks(shop, settlement, PROOF_DEPTH + 1)
        assert shop.states(ids) == {"pending": 3}
        assert {shop.payment(each).signed_until_s > 0 for each in ids} == {True}
        shop.clock.ahead_ms += 1_000 * 2**tries
    assert shop.clock.ahead_ms >= 60_000
    await settlement.sender.tick()
    await blocks(shop, settlement, 2)
    assert shop.states(ids) == {"completed": 3}
    shop.assert_books_balance()

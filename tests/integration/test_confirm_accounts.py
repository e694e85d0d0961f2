"""Balances in custody: seen though the logs miss them, by one gateway for all, never set back."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select, update

from taprail_gateway.ledger import leases, schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.errors import ChainError
from taprail_gateway.settle.lane_keeper import ACCOUNTS
from taprail_hwsim.dev_chain import DevChain
from tests.support.confirm_shop import assert_balances, rpc_calls_of, still_shop
from tests.support.ledger_fixtures import on_both_engines
from tests.support.rpc_proxy import RpcProxy, running_proxy
from tests.support.settle_shop import BALANCE_UNITS, Shop, blocks

pytestmark = [pytest.mark.chain, on_both_engines]

CARDS = 12
ROUND_S = 300
"""Within this every balance is read again, whatever the logs say."""
LOOKS = 30


@pytest_asyncio.fixture
async def shop(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Shop]:
    async with still_shop(chain, ledger, tmp_path / "master.key", cards=CARDS) as opened:
        yield opened


@pytest_asyncio.fixture
async def proxy(shop: Shop) -> AsyncIterator[RpcProxy]:
    async with running_proxy(shop.chain.rpc_url) as running:
        yield running


def hand_over(shop: Shop) -> None:
    """Whoever follows the accounts is asleep, and another gateway has taken over."""
    end = update(schema.leases).where(schema.leases.c.name == ACCOUNTS).values(until_ms=0)
    shop.ledger.write_now(lambda c: c.execute(end).close())
    now_ms = shop.clock.now_ms()
    assert shop.ledger.write_now(lambda c: leases.acquire(c, ACCOUNTS, "another", now_ms))


def top_up_all(shop: Shop) -> None:
    shop.chain.mint_all({card.account: 777 for card in shop.registry.cards})


def known_top_ups(shop: Shop) -> int:
    """How many accounts the ledger knows the new balance of."""
    wanted = [card.account for card in shop.registry.cards]
    statement = select(schema.accounts.c.balance_units).where(schema.accounts.c.address.in_(wanted))
    units = shop.ledger.read_now(lambda c: c.execute(statement).scalars().all())
    return list(units).count(BALANCE_UNITS + 777)


@pytest.mark.parametrize("kind", ["empty", "refused"])
async def test_top_ups_that_the_logs_never_show_are_seen_within_a_round(
    shop: Shop, proxy: RpcProxy, kind: str
) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url))
    await blocks(shop, settlement)
    proxy.inject("missing_logs" if kind == "empty" else "http_502@eth_getLogs")
    top_up_all(shop)
    seen = []
    for _ in range(LOOKS + 1):
        shop.clock.ahead_ms += ROUND_S * 1000 // LOOKS
        shop.chain.mine()
        await _look(settlement)
        seen.append(known_top_ups(shop))
    assert seen[0] <= 2, "a slice, not everything"
    assert seen == sorted(seen)
    assert seen[-1] == CARDS


async def _look(settlement: Settlement) -> None:
    with contextlib.suppress(ChainError):
        await settlement.confirmer.tick()


async def test_one_gateway_follows_the_accounts_and_the_next_takes_over(shop: Shop) -> None:
    first = await shop.settlement()
    await blocks(shop, first)
    second = await shop.settlement()
    if shop.ledger.is_exclusive:
        first, second = second, first  # a new process on a file knows that the old one is dead
        await second.keeper.look()
        await blocks(shop, first)
    assert first.keeper.accounts is not None
    assert second.keeper.accounts is None
    shop.chain.mine()
    await first.confirmer.tick()
    # The head, the block of its last look, and what its lanes need: no balance, no log.
    assert await rpc_calls_of(second) <= 2 + 2 * len(second.keeper.leases)
    await first.keeper.give_back()
    await second.keeper.look()
    top_up_all(shop)
    await blocks(shop, second)
    assert known_top_ups(shop) == CARDS
    await assert_balances(shop)


async def test_who_is_no_longer_to_follow_them_writes_no_balance(
    shop: Shop, proxy: RpcProxy
) -> None:
    settlement = await shop.settlement(await shop.connect(proxy.url))
    await blocks(shop, settlement)
    top_up_all(shop)

    def taken_meanwhile(given: Any) -> Any:
        hand_over(shop)
        return given

    proxy.change(taken_meanwhile, "eth_getLogs")
    await settlement.confirmer.tick()
    assert known_top_ups(shop) == 0
    assert settlement.keeper.accounts is None


async def test_a_balance_of_an_earlier_block_sets_nothing_back(shop: Shop) -> None:
    """Two gateways at once, one of them behind: the later block counts, whoever comes last."""
    early, late = await shop.settlement(), await shop.settlement()
    old = await early.confirmer._chain.head()
    top_up_all(shop)
    await blocks(shop, late)
    if late.keeper.accounts is None:
        await blocks(shop, early)
    assert known_top_ups(shop) == CARDS
    behind, lease = early.confirmer._accounts, late.keeper.accounts or early.keeper.accounts
    behind._lease = lease
    await behind._refresh([card.account for card in shop.registry.cards], old.number)
    assert known_top_ups(shop) == CARDS


async def test_a_restart_at_a_node_that_is_behind_reads_all_when_it_has_caught_up(
    shop: Shop, proxy: RpcProxy
) -> None:
    old = shop.chain.node.call("eth_getBlockByNumber", "latest", False)
    settlement = await shop.settlement()
    await blocks(shop, settlement, 2)
    again = await shop.settlement(await shop.connect(proxy.url))
    await again.keeper.look()
    if again.keeper.accounts is None:
        await settlement.keeper.give_back()
        await again.keeper.look()
    proxy.change(lambda given: [{**given[0], "result": old}], "eth_getBlockByNumber")
    await again.confirmer.tick()
    top_up_all(shop)
    await blocks(shop, again)
    assert known_top_ups(shop) == CARDS
    await assert_balances(shop)

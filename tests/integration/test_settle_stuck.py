"""Transactions that the chain does not take: sent again, made dearer, or replaced by nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import queries, schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.stuck import PATIENCE_BLOCKS
from taprail_hwsim.dev_chain import DevChain
from tests.support.rpc_proxy import running_proxy
from tests.support.settle_shop import Shop, blocks, open_shop

pytestmark = pytest.mark.chain

GWEI = 10**9


def versions(shop: Shop) -> list[dict[str, Any]]:
    """Every signed version, oldest and cheapest first."""
    table = schema.attempts
    statement = select(table).order_by(
        table.c.chain_transaction_id, table.c.created_at_ms, table.c.max_fee_wei
    )
    rows = shop.ledger.read_now(lambda connection: connection.execute(statement).all())
    return [dict(row._mapping) for row in rows]


async def settle_all(shop: Shop, settlement: Settlement, ids: list[str], limit: int) -> None:
    """Turn the wheels until all are completed, for so many blocks at most."""
    for _ in range(limit):
        await blocks(shop, settlement)
        await settlement.sender.tick()
        if shop.states(ids) == {"completed": len(ids)}:
            return
    raise AssertionError(shop.states(ids))


@pytest.fixture
def manual(chain: DevChain) -> DevChain:
    """A chain that makes a block only when it is told to."""
    chain.node.call("evm_setIntervalMining", 0)
    chain.set_next_block_base_fee(GWEI)  # a test before may have left it high
    chain.mine()
    return chain


@pytest.fixture(autouse=True)
def _mine_again(chain: DevChain) -> Any:
    yield
    chain.node.call("evm_setIntervalMining", 1)


async def test_what_a_spike_of_the_base_fee_prices_out_is_made_dearer_and_lands(
    manual: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(manual, ledger, tmp_path / "master.key") as shop:
        settlement = await shop.settlement()
        ids = await shop.sell(3)
        await settlement.sender.tick()
        first = versions(shop)[0]
        manual.set_next_block_base_fee(3 * int(first["max_fee_wei"]))
        await settle_all(shop, settlement, ids, limit=8)
        old, *_, new = versions(shop)
        assert old["tx_hash"] == first["tx_hash"]
        assert 8 * new["max_fee_wei"] >= 9 * old["max_fee_wei"]
        assert 8 * new["priority_fee_wei"] >= 9 * old["priority_fee_wei"]
        assert shop.payment(ids[0]).tx_hash == new["tx_hash"]
        shop.assert_books_balance()


async def test_no_fee_is_ever_offered_above_the_cap(
    manual: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(manual, ledger, tmp_path / "master.key", max_fee_cap_gwei=5.0) as shop:
        settlement = await shop.settlement()
        ids = await shop.sell(2)
        await settlement.sender.tick()
        manual.set_next_block_base_fee(40 * GWEI)
        await blocks(shop, settlement, 3)
        assert max(each["max_fee_wei"] for each in versions(shop)) <= 5 * GWEI
        manual.set_next_block_base_fee(GWEI)
        await settle_all(shop, settlement, ids, limit=20)


async def test_a_transaction_whose_authorizations_have_ended_makes_room_by_a_noop(
    manual: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(manual, ledger, tmp_path / "master.key") as shop:
        settlement = await shop.settlement()
        ids = await shop.sell(2)
        await settlement.sender.tick()
        manual.node.call("anvil_dropAllTransactions")
        manual.advance_time(700)
        await settle_all(shop, settlement, ids, limit=10)
        assert [each["kind"] for each in versions(shop)][:2] == ["payload", "noop"]
        assert {shop.payment(each).bindings for each in ids} == {2}
        assert shop.lane_row().paused_because is None
        shop.assert_books_balance()


async def test_what_can_never_run_makes_room_by_a_noop_and_the_lane_goes_on(
    manual: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    def refuse(asked: Any) -> Any:
        error = {"code": -32000, "message": "intrinsic gas too low"}
        return [{"jsonrpc": "2.0", "id": each["id"], "error": error} for each in asked]

    async with (
        open_shop(manual, ledger, tmp_path / "master.key") as shop,
        running_proxy(manual.rpc_url) as proxy,
    ):
        settlement = await shop.settlement(await shop.connect(proxy.url))
        ids = await shop.sell(2)
        proxy.answer(refuse)
        await settlement.sender.tick()
        assert (shop.lane_row().paused_because or "").startswith("permanent:")
        await settle_all(shop, settlement, ids, limit=12)
        assert shop.lane_row().paused_because is None
        shop.assert_books_balance()


async def test_the_lowest_is_made_dearer_when_it_misses_many_blocks(
    manual: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(manual, ledger, tmp_path / "master.key") as shop:
        settlement = await shop.settlement()
        await shop.sell(2)
        await settlement.sender.tick()
        manual.node.call("anvil_dropAllTransactions")
        await settlement.confirmer.tick()
        for _ in range(PATIENCE_BLOCKS + 1):
            # Only what came after the drop may be mined: take it out before each block.
            manual.node.call("anvil_dropAllTransactions")
            await blocks(shop, settlement)
        assert len(versions(shop)) >= 2


async def test_an_operators_wish_is_fulfilled_once(
    manual: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(manual, ledger, tmp_path / "master.key") as shop:
        settlement = await shop.settlement()
        ids = await shop.sell(2)
        await settlement.sender.tick()
        await settlement.confirmer.tick()
        table = schema.chain_transactions
        shop.ledger.write_now(
            lambda connection: connection.execute(update(table).values(rescue_asked_at_ms=1))
        )
        manual.node.call("anvil_dropAllTransactions")
        await blocks(shop, settlement)
        (open_one,) = shop.ledger.read_now(lambda c: queries.open_transactions(c, shop.lane))
        assert open_one.rescue_asked_at_ms is None
        assert len(versions(shop)) == 2
        await settle_all(shop, settlement, ids, limit=3)
        assert {shop.payment(each).bindings for each in ids} == {1}
        assert shop.states(ids) == {str(PaymentState.COMPLETED): 2}

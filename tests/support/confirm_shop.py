"""A shop with several lanes on a chain whose blocks come by the test's hand alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from taprail_gateway.ledger import queries, schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.engine import Settlement
from taprail_hwsim.dev_chain import DevChain
from tests.support.settle_shop import Shop, blocks, open_shop


@asynccontextmanager
async def still_shop(
    chain: DevChain, ledger: Ledger, key_file: Path, *, lanes: int = 1, **settings: Any
) -> AsyncIterator[Shop]:
    """An open shop; the chain makes blocks of its own again when it is closed."""
    chain.node.call("evm_setIntervalMining", 0)
    try:
        async with open_shop(chain, ledger, key_file, lanes=lanes, **settings) as shop:
            yield shop
    finally:
        # Neither is part of the state that the chain goes back to after a test.
        chain.node.call("evm_setIntervalMining", 1)
        chain.set_next_block_base_fee(10**9)
        chain.mine()


async def send_from_each(shop: Shop, settlement: Settlement, count: int = 2) -> list[str]:
    """So many payments from every lane, in one transaction of each; their ids, lane by lane.

    `payments_per_transaction` must be as many: fewer would wait for more.
    """
    ids: list[str] = []
    for at, lane in enumerate(shop.lanes):
        ids += await shop.sell(count, card=at)
        tick = await settlement.senders[lane].tick()
        assert tick.obstacle is None
    return ids


async def settle_all(shop: Shop, settlement: Settlement, ids: Sequence[str], most: int) -> None:
    """Mine, look and send until all of these are completed, for so many blocks at most."""
    for _ in range(most):
        for sender in list(settlement.senders.values()):
            await sender.tick()
        await blocks(shop, settlement)
        if shop.states(ids) == {"completed": len(ids)}:
            return
    raise AssertionError(f"after {most} blocks: {shop.states(ids)}")


async def go_on(shop: Shop, settlement: Settlement, rounds: int = 12) -> None:
    """Everybody's next steps, ten seconds apart: what a preflight refused is tried again."""
    for _ in range(rounds):
        for sender in list(settlement.senders.values()):
            await sender.tick()
        await blocks(shop, settlement)
        shop.clock.ahead_ms += 10_000


async def rpc_calls_of(settlement: Settlement) -> int:
    """How many calls one look of the confirm loop takes."""
    chain = settlement.confirmer._chain
    before = chain.rpc_calls
    await settlement.confirmer.tick()
    return chain.rpc_calls - before


def told_of(shop: Shop, payment_id: str) -> list[str]:
    """The events of a payment, in their order."""
    rows = shop.ledger.read_now(lambda connection: queries.history(connection, payment_id))
    return [row.event for row in rows]


async def assert_balances(shop: Shop, depth: int = 1) -> None:
    """The ledger's invariants hold, and its balances are the chain's at this depth."""
    assert shop.ledger.read_now(queries.check_invariants) == []
    number = shop.chain.block_number() - depth + 1
    accounts = [card.account for card in shop.registry.cards]
    watcher = await shop.connect()
    table = schema.accounts
    statement = select(table.c.address, table.c.balance_units)
    rows = shop.ledger.read_now(lambda connection: connection.execute(statement).all())
    stored = {address: units for address, units in rows if address in accounts}
    assert stored == await watcher.balances(accounts, number)

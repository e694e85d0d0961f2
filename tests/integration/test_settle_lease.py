"""Two settlements on one ledger: one has the lane, the other rests until it may take it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import update

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import leases, schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import LeaseLostError, lane_lease
from taprail_gateway.settle.engine import Settlement
from taprail_hwsim.dev_chain import DevChain
from tests.support import eip3009
from tests.support.rpc_proxy import Answer, RpcProxy, running_proxy
from tests.support.settle_shop import (
    BALANCE_UNITS,
    Shop,
    blocks,
    open_shop,
    send_as_stranger,
    until_settled,
)

pytestmark = pytest.mark.chain


async def test_who_has_lost_the_lane_binds_nothing_more(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(chain, ledger, tmp_path / "master.key") as shop:
        first = await shop.settlement()
        await first.sender.tick()
        second = await shop.settlement()
        ids = await shop.sell(2)
        await first.sender.tick()
        assert not first.keeper.leases
        assert shop.states(ids) == {"pending": 2}
        await second.sender.tick()
        assert shop.states(ids) == {"sent": 2}


async def test_one_without_the_lane_rests_and_the_other_settles(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(chain, ledger, tmp_path / "master.key") as shop:
        resting = await shop.settlement()
        await resting.start()
        working = await shop.settlement()  # takes the lane from the one before
        await working.start()
        try:
            await resting.keeper.look()
            ids = await shop.sell(3)
            await until_settled(shop, ids, PaymentState.COMPLETED)
        finally:
            await working.stop()
            await resting.stop()
        shop.assert_books_balance()


# --- whoever loses its lane in the middle of a step writes nothing more ---------------------------


@dataclass
class Thief:
    """Takes a lane's lease while a node answers, and looks at what the ledger holds just then."""

    shop: Shop
    proxy: RpcProxy
    held: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)

    def takes_it_during(self, method: str, answer: Answer | None = None) -> None:
        """At the next such call; the node is not asked where an answer is given."""

        def steal(given: Any) -> Any:
            name, now_ms = lane_lease(self.shop.lane), self.shop.clock.now_ms()
            assert self.shop.ledger.write_now(
                lambda c: leases.acquire(c, name, "another", now_ms, takeover=True)
            )
            self.held = self.rows()
            return given if answer is None else answer(given)

        if answer is None:
            self.proxy.change(steal, method)
        else:
            self.proxy.answer(steal, method)

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        tables = [table for table in schema.metadata.sorted_tables if table is not schema.leases]
        return self.shop.ledger.read_now(
            lambda c: {
                each.name: [tuple(row) for row in c.execute(each.select())] for each in tables
            }
        )


@pytest_asyncio.fixture
async def shop(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(chain, ledger, tmp_path / "master.key") as opened:
        yield opened


@pytest_asyncio.fixture
async def thief(shop: Shop) -> AsyncIterator[Thief]:
    async with running_proxy(shop.chain.rpc_url) as proxy:
        yield Thief(shop, proxy)


def broke(asked: Any) -> Any:
    """No gas in the wallet, says the node."""
    error = {"code": -32003, "message": "Insufficient funds for gas * price + value"}
    return [{"jsonrpc": "2.0", "id": call["id"], "error": error} for call in asked]


async def a_new_lane(thief: Thief, _settlement: Settlement) -> None:
    thief.takes_it_during("eth_getTransactionCount")


async def a_refusal(thief: Thief, settlement: Settlement) -> None:
    await settlement.sender.tick()
    all_of_it = thief.shop.authorization(eip3009.nonce(1), amount_units=BALANCE_UNITS)
    thief.shop.execute(all_of_it)
    await thief.shop.sell()
    thief.takes_it_during("eth_call")


async def a_binding(thief: Thief, settlement: Settlement) -> None:
    await settlement.sender.tick()
    await thief.shop.sell(2)
    thief.takes_it_during("eth_call")


async def a_broadcast(thief: Thief, settlement: Settlement) -> None:
    await settlement.sender.tick()
    await thief.shop.sell(2)
    thief.takes_it_during("eth_sendRawTransaction")


async def a_pause(thief: Thief, settlement: Settlement) -> None:
    await settlement.sender.tick()
    await thief.shop.sell(2)
    thief.takes_it_during("eth_sendRawTransaction", broke)


async def an_end_of_a_pause(thief: Thief, settlement: Settlement) -> None:
    await thief.shop.sell(2)
    thief.proxy.answer(broke)
    await settlement.sender.tick()
    thief.takes_it_during("eth_sendRawTransaction")


async def a_step_over_strangers(thief: Thief, settlement: Settlement) -> None:
    await settlement.sender.tick()
    send_as_stranger(thief.shop, thief.shop.lane, 0)
    await blocks(thief.shop, settlement)
    assert thief.shop.lane_row().paused_because is not None
    thief.takes_it_during("eth_getTransactionCount")


STEPS = [
    a_new_lane,
    a_refusal,
    a_binding,
    a_broadcast,
    a_pause,
    an_end_of_a_pause,
    a_step_over_strangers,
]


@pytest.mark.parametrize("begin", STEPS)
async def test_a_sender_that_is_no_owner_any_more_changes_nothing(
    shop: Shop, thief: Thief, begin: Callable[[Thief, Settlement], Awaitable[None]]
) -> None:
    settlement = await shop.settlement(await shop.connect(thief.proxy.url))
    await begin(thief, settlement)
    tick = await settlement.sender.tick()
    assert tick.obstacle is None
    assert thief.held, "the lease was never taken"
    assert thief.rows() == thief.held
    assert not settlement.keeper.leases


async def test_a_rescue_without_the_lane_signs_no_other_version(shop: Shop, thief: Thief) -> None:
    chain = await shop.connect(thief.proxy.url)
    settlement = await shop.settlement(chain)
    await shop.sell(2)
    await settlement.sender.tick()
    table = schema.chain_transactions
    asked = update(table).values(rescue_asked_at_ms=1)
    await shop.ledger.write(lambda c: c.execute(asked).close())
    (open_one,) = shop.transactions()
    shop.chain.mine()  # a new head, whose fees have to be asked for
    lane, head = shop.lane_row(), await chain.head()
    thief.takes_it_during("eth_feeHistory")
    (lease,) = settlement.keeper.leases.values()
    with pytest.raises(LeaseLostError):
        await settlement.confirmer._rescuer.look(lane, lease, head, open_one["nonce"])
    assert thief.rows() == thief.held

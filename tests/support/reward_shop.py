"""A shop that rewards: the settling shop, a points contract, a rewards lane, and a dispatcher."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import select

from taprail_gateway import registry
from taprail_gateway.callbacks.dispatcher import Dispatcher
from taprail_gateway.callbacks.kinds import callback_lines
from taprail_gateway.callbacks.reward import RewardHandler
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger import outbox, schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.live import LiveSettings
from taprail_hwsim.dev_chain import DevChain
from tests.support.reward_points import SET_MINTER, RewardPoints, call_data
from tests.support.settle_shop import ETHER, Shop, open_shop

RATE = "1/10"


@dataclass
class RewardShop:
    """What a test of rewards turns and looks at."""

    shop: Shop
    points: RewardPoints
    lane: str
    settings: GatewaySettings

    def dispatcher(self) -> Dispatcher:
        """A new dispatcher on this ledger, not started, as after a restart."""
        handlers = {"reward": RewardHandler(self.settings)}
        ledger, clock, random = self.shop.ledger, self.shop.clock, Random(1)
        lines = callback_lines(handlers, ledger, clock, random)
        return Dispatcher(ledger, lines, clock, self.shop.wakeups, random)

    async def settlement(self) -> Settlement:
        """A new settlement on this ledger, not started: tests turn its wheels by hand."""
        settlement = Settlement(
            self.shop.ledger,
            await self.shop.connect(),
            self.shop.custody,
            LiveSettings(self.shop.settings),
            self.shop.clock,
            self.shop.wakeups,
            rewards_contract=self.points.address,
        )
        await settlement.take_lanes()
        return settlement

    def revoke_first(self) -> None:
        """Take the right to mint away in a block before that of what waits in the pool."""
        data = call_data(SET_MINTER, self.lane, False)
        call = {"from": self.points.owner, "to": self.points.address, "data": data}
        # Paid so much better that it comes first in the block.
        fees = {"maxFeePerGas": hex(10**12), "maxPriorityFeePerGas": hex(10**12)}
        self.shop.chain.node.call("eth_sendTransaction", {**call, **fees, "gas": hex(100_000)})
        self.shop.chain.mine()

    def mints(self) -> dict[str, dict[str, Any]]:
        """All mints of the ledger by their payments."""
        found = self.shop.ledger.read_now(lambda c: c.execute(select(schema.mints)).all())
        return {row.payment_id: dict(row._mapping) for row in found}

    def mint_states(self) -> Counter[str]:
        return Counter(str(row["state"]) for row in self.mints().values())

    def assert_each_rewarded_once(self, payment_ids: Sequence[str], units: int) -> None:
        """Judged by the contract's own logs."""
        minted = self.points.minted()
        assert sorted(mint.payment_id for mint in minted) == sorted(payment_ids)
        payers = {each: self.shop.payment(each).payer for each in payment_ids}
        assert all(mint.to == payers[mint.payment_id] for mint in minted)
        assert all(mint.amount_units == units for mint in minted)


@asynccontextmanager
async def open_reward_shop(
    chain: DevChain, ledger: Ledger, key_file: Path, **settings: Any
) -> AsyncIterator[RewardShop]:
    """Open a shop whose customers get points for what they pay."""
    async with open_shop(chain, ledger, key_file, **settings) as shop:
        points = RewardPoints.deploy(chain)
        add = partial(
            registry.add_lane, custody=shop.custody, purpose="rewards", now_ms=shop.clock.now_ms()
        )
        lane = ledger.write_now(add)
        points.grant(lane)
        chain.fund(lane, 100 * ETHER)
        ledger.write_now(partial(outbox.enable, wanted={"reward": RewardHandler.states}))
        yield RewardShop(shop, points, lane, configured(shop, points.address))


def configured(shop: Shop, contract: str) -> GatewaySettings:
    return GatewaySettings.model_validate(
        {
            "chain": {
                "rpc_urls": [shop.chain.rpc_url],
                "chain_id": shop.chain.chain_id,
                "token": shop.chain.token_address,
                "multicall": shop.chain.multicall_address,
            },
            "settlement": shop.settings.model_dump(),
            "rewards": {"contract": contract, "rate": RATE},
        }
    )

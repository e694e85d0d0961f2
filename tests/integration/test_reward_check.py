"""What a gateway finds at start about its rewards contract, on a real node."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy import insert

from taprail_common.errors import OperatorError
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.queries import Lane
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.connect import connect
from taprail_gateway.settle.reward_check import check_once, check_rewards
from taprail_gateway.settle.settings import ChainSettings
from taprail_hwsim.dev_chain import DevChain
from tests.support.reward_points import RewardPoints

pytestmark = pytest.mark.chain

WALLET = "0x" + "bd" * 20
PAYING = Lane("0x" + "be" * 20, b"", 3, None, "payments")
REWARDING = Lane(WALLET, b"", None, None, "rewards")


@pytest_asyncio.fixture
async def node(chain: DevChain) -> AsyncIterator[Chain]:
    settings = ChainSettings(
        rpc_urls=(chain.rpc_url,),
        chain_id=chain.chain_id,
        token=chain.token_address,
        multicall=chain.multicall_address,
    )
    connected = await connect(settings)
    yield connected
    await connected.close()


async def test_a_minter_may_start(chain: DevChain, node: Chain) -> None:
    points = RewardPoints.deploy(chain)
    points.grant(WALLET)
    await check_rewards(node, points.address, [PAYING, REWARDING])


async def test_who_was_never_granted_the_right_is_told_what_to_grant(
    chain: DevChain, node: Chain
) -> None:
    points = RewardPoints.deploy(chain)
    with pytest.raises(OperatorError, match="is no minter") as raised:
        await check_rewards(node, points.address, [PAYING, REWARDING])
    assert WALLET in str(raised.value)
    assert "taprail admin reward grant" in raised.value.fix


async def test_what_was_in_order_once_stops_no_later_start(
    chain: DevChain, node: Chain, ledger: Ledger
) -> None:
    points = RewardPoints.deploy(chain)
    lane = {"address": WALLET, "wrapped_key": b"\1", "created_at_ms": 1, "purpose": "rewards"}
    ledger.write_now(lambda c: c.execute(insert(schema.lanes).values(lane)))
    with pytest.raises(OperatorError, match="is no minter"):
        await check_once(ledger, node, points.address)
    points.grant(WALLET)
    await check_once(ledger, node, points.address)
    points.grant(WALLET, allowed=False)
    await check_once(ledger, node, points.address)
    chain.node.call("anvil_setCode", points.address, "0x")
    await check_once(ledger, node, points.address)
    with pytest.raises(OperatorError, match="there is no contract"):
        await check_once(ledger, node, "0x" + "ab" * 20)


async def test_a_wallet_is_needed(chain: DevChain, node: Chain) -> None:
    points = RewardPoints.deploy(chain)
    with pytest.raises(OperatorError, match="no wallet") as raised:
        await check_rewards(node, points.address, [PAYING])
    assert "lane add --purpose rewards" in str(raised.value.fix)


async def test_another_contract_or_none_is_refused(chain: DevChain, node: Chain) -> None:
    with pytest.raises(OperatorError, match="there is no contract"):
        await check_rewards(node, WALLET, [REWARDING])
    for other in (chain.token_address, chain.multicall_address):
        with pytest.raises(OperatorError, match="is no RewardPoints"):
            await check_rewards(node, other, [REWARDING])

"""Calls of a node that are cut off in the middle leave nothing behind that others wait for."""

from __future__ import annotations

import asyncio

import pytest

from taprail_gateway.settle.node import Node, result_of
from taprail_hwsim.dev_chain import DevChain

pytestmark = pytest.mark.chain

WAIT_S = 10
ASKED: list[tuple[str, list[object]]] = [("eth_chainId", [])]


async def test_a_call_that_is_cancelled_holds_up_no_other(chain: DevChain) -> None:
    node = Node(chain.rpc_url, timeout_ms=5_000)
    await node.open()
    for turns in range(40):
        calls = [asyncio.create_task(node.batch(ASKED)) for _ in range(5)]
        for _ in range(turns % 8):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    async with asyncio.timeout(WAIT_S):
        (answer,) = await node.batch(ASKED)
    assert result_of(answer) == hex(chain.chain_id)
    await node.close()

"""Each fault of the proxy bites: a plain client sends, waits and reads through it on a real node.

A fault without a scene fails the test.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
import pytest_asyncio

from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.rpc import RpcRefusedError, RpcUnreachableError
from taprail_hwsim.rpc_proxy import FAULTS, RpcProxy
from tests.support.rpc_scenes import PATIENT_S, SCENES, SEND, Client

pytestmark = pytest.mark.chain


@pytest_asyncio.fixture
async def client(chain: DevChain, rpc_proxy: RpcProxy) -> AsyncIterator[Client]:
    """Blocks come when the test says so."""
    client = Client(chain, rpc_proxy)
    chain.fund(client.wallet.address, 10**18)
    chain.node.call("evm_setIntervalMining", 0)
    try:
        yield client
    finally:
        chain.node.call("evm_setIntervalMining", 1)


@pytest.fixture
def python_recursion_limit() -> Iterator[None]:
    """CPython's own: eth_account, which signs here, raises it beyond what its C stack holds."""
    raised = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000)
    yield
    sys.setrecursionlimit(raised)


@pytest.mark.parametrize("name", FAULTS)
async def test_the_fault_bites_and_ends(client: Client, name: str) -> None:
    await SCENES[name](client)
    assert {injection.fault for injection in client.proxy.injected} == {name}
    client.proxy.withdraw(list(client.proxy.rules))
    client.timeout_s = PATIENT_S
    client.chain.mine()
    before = client.mined()
    assert (await client.pay())["status"] == "0x1"
    assert client.mined() == before + 1


async def test_without_a_fault_it_is_the_node(client: Client) -> None:
    for _ in range(3):
        assert (await client.pay())["status"] == "0x1"
    assert client.mined() == 3
    with pytest.raises(RpcRefusedError, match="Method not found"):
        await client.call("eth_unheardOf")
    assert len(await client.batch([("eth_chainId", []), ("eth_blockNumber", [])])) == 2
    assert not client.proxy.injected


async def test_faults_act_together(client: Client) -> None:
    """A late request whose transaction is forgotten and whose answer is lost as well."""
    client.timeout_s = PATIENT_S
    client.proxy.inject("delay:1:ms=10", f"accepted_lost:1@{SEND}", f"drop_reply:1@{SEND}")
    with pytest.raises(RpcUnreachableError):
        await client.send()
    assert client.in_pool() == 0
    assert [item.fault for item in client.proxy.injected] == [
        *("delay", "accepted_lost", "drop_reply")
    ]


async def test_a_node_that_is_away_is_away_through_the_proxy(client: Client) -> None:
    there = client.proxy.node_url
    client.proxy.node_url = "http://127.0.0.1:1"
    with pytest.raises(RpcUnreachableError):
        await client.call("eth_chainId")
    client.proxy.node_url = there
    assert await client.call("eth_chainId") == hex(client.chain.chain_id)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[1, 2]", b"[" * 100_000, b"\xff"])
async def test_what_is_no_json_rpc_is_refused(
    client: Client, body: bytes, python_recursion_limit: None
) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.post(client.proxy.url, data=body) as response,
    ):
        assert (await response.json())["error"]["code"] == -32700


async def test_clients_that_vanish_leave_nothing_behind(client: Client) -> None:
    client.proxy.inject("hang:20", "huge_reply:20", "delay:0.5:ms=50")
    client.timeout_s = 0.2
    calls = [client.call("eth_chainId") for _ in range(20)]
    assert all(
        isinstance(it, Exception) for it in await asyncio.gather(*calls, return_exceptions=True)
    )
    async with asyncio.timeout(PATIENT_S):
        await client.proxy.quiet()
    client.proxy.withdraw(list(client.proxy.rules))
    client.timeout_s = PATIENT_S
    assert await client.call("eth_chainId") == hex(client.chain.chain_id)


async def test_a_seed_repeats_its_faults(chain: DevChain) -> None:
    async def outcomes(seed: int) -> list[bool]:
        async with RpcProxy(chain.rpc_url, seed=seed) as proxy:
            proxy.inject("internal_error:0.5")
            client = Client(chain, proxy)
            results = [
                await asyncio.gather(client.call("eth_chainId"), return_exceptions=True)
                for _ in range(40)
            ]
            return [isinstance(result, Exception) for (result,) in results]

    seed = random.getrandbits(32)
    first = await outcomes(seed)
    assert first == await outcomes(seed), f"seed {seed}"
    assert first != await outcomes(seed + 1), f"seed {seed}"
    assert 0 < sum(first) < 40

"""Pytest fixtures of the dev chain: one node per test process, given back clean after each test."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.rpc_proxy import RpcProxy


@pytest.fixture(scope="session")
def dev_chain() -> Iterator[DevChain]:
    """A running anvil with a DevToken and Multicall3, shared: whoever changes it uses `chain`."""
    with DevChain() as chain:
        chain.deploy_token()
        yield chain


@pytest.fixture
def chain(dev_chain: DevChain) -> Iterator[DevChain]:
    """The shared chain; all that the test does on it is undone afterwards.

    A test that kills, pauses or restarts the node starts a `DevChain()` of its own: 0.1 s.
    """
    with dev_chain.isolated() as isolated:
        yield isolated


@pytest_asyncio.fixture
async def rpc_proxy(chain: DevChain) -> AsyncIterator[RpcProxy]:
    """A fault-injecting proxy before the shared chain: `rpc_proxy.inject("hang:1")`."""
    async with RpcProxy(chain.rpc_url, seed=1) as proxy:
        yield proxy

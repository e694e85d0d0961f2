"""At start: the chain, the token and Multicall3 must be those that are meant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from taprail_common.errors import OperatorError
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.connect import connect as connect_to
from taprail_gateway.settle.errors import ChainError
from taprail_gateway.settle.settings import ChainSettings
from taprail_hwsim.anvil import AnvilOptions
from taprail_hwsim.dev_chain import DevChain
from tests.support import eip3009
from tests.support.rpc_proxy import running_proxy

pytestmark = pytest.mark.chain
NOBODY = "0x" + "00" * 19 + "99"
# DevToken's first storage slot: its name, short strings with twice their length in the last byte.
NAME_SLOT = "0x" + "00" * 32
OTHER_NAME = "0x" + b"Other Dollar".ljust(31, b"\0").hex() + "18"

Connect = Callable[..., Awaitable[Chain]]


@pytest_asyncio.fixture
async def connect(chain: DevChain) -> AsyncIterator[Connect]:
    opened = []

    async def connect(**changes: Any) -> Chain:
        settings = {
            "rpc_urls": (chain.rpc_url,),
            "chain_id": chain.chain_id,
            "token": chain.token_address,
            "multicall": chain.multicall_address,
            **changes,
        }
        opened.append(await connect_to(ChainSettings(**settings)))
        return opened[-1]

    yield connect
    for each in opened:
        await each.close()


async def test_the_token_is_read_from_the_chain(chain: DevChain, connect: Connect) -> None:
    chain.deploy_token("Café Dollar", "CAFE", "7", 2)
    token = (await connect()).token
    assert (token.name, token.symbol, token.version, token.decimals) == (
        "Café Dollar",
        "CAFE",
        "7",
        2,
    )
    assert "0x" + token.domain_separator.hex() == eip3009.domain_separator(chain)


async def test_another_chain_is_refused(connect: Connect) -> None:
    with pytest.raises(OperatorError, match=r"is on chain 31337, not on 1: check rpc_urls"):
        await connect(chain_id=1)


@pytest.mark.parametrize("part", ["token", "multicall"])
async def test_an_address_without_code_is_refused(connect: Connect, part: str) -> None:
    with pytest.raises(OperatorError, match=f"no contract at the {part} address {NOBODY}"):
        await connect(**{part: NOBODY})


async def test_a_contract_that_is_no_such_token_is_refused(
    chain: DevChain, connect: Connect
) -> None:
    with pytest.raises(OperatorError, match="is no EIP-3009 token"):
        await connect(token=chain.multicall_address)


async def test_a_domain_separator_that_does_not_match_is_refused(
    chain: DevChain, connect: Connect
) -> None:
    if chain.published.token is not None:
        pytest.skip("the published token makes its separator of the name that it has now")
    chain.node.call("anvil_setStorageAt", chain.token_address, NAME_SLOT, OTHER_NAME)
    assert eip3009.read_string(chain, "name()") == "Other Dollar"
    with pytest.raises(OperatorError, match="DOMAIN_SEPARATOR"):
        await connect()


async def test_more_than_six_decimals_are_refused(chain: DevChain, connect: Connect) -> None:
    chain.deploy_token(decimals=7)
    with pytest.raises(OperatorError, match="has 7 decimals, more than 6"):
        await connect()


async def test_no_node_is_no_statement_about_the_token(connect: Connect) -> None:
    with pytest.raises(ChainError):
        await connect(rpc_urls=("http://127.0.0.1:1",))


async def test_a_reply_lost_while_the_token_is_read_is_no_statement_about_it(
    chain: DevChain, connect: Connect
) -> None:
    async with running_proxy(chain.rpc_url) as proxy:
        proxy.lose_reply("eth_call")
        with pytest.raises(ChainError):
            await connect(rpc_urls=(proxy.url,))


async def test_the_second_node_answers_when_the_first_is_gone(
    chain: DevChain, connect: Connect
) -> None:
    both = await connect(rpc_urls=("http://127.0.0.1:1", chain.rpc_url))
    assert (await both.head()).number <= chain.block_number()


async def test_a_second_node_on_another_chain_is_refused(chain: DevChain, connect: Connect) -> None:
    async with DevChain(AnvilOptions(chain_id=999)) as other:
        with pytest.raises(OperatorError, match="is on chain 999, not on 31337"):
            await connect(rpc_urls=(chain.rpc_url, other.rpc_url))


async def test_a_nodes_url_is_shown_without_its_secrets(connect: Connect) -> None:
    with pytest.raises(ChainError, match=r"node 127\.0\.0\.1:1: ") as refused:
        await connect(rpc_urls=("http://ada:pass@127.0.0.1:1/v3/0123456789abcdef",))
    assert "pass" not in str(refused.value)
    assert "0123456789abcdef" not in str(refused.value)

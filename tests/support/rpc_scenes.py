"""A plain client of a node, and for each fault of the proxy a scene that it plays.

Each scene first goes well without its fault, or is held against the node itself, so that it is the
fault which makes the difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.rpc import JsonRpc, RpcRefusedError, RpcUnreachableError
from taprail_hwsim.rpc_proxy import RpcProxy

GWEI = 10**9
TIMEOUT_S = 1.0
PATIENT_S = 10.0
SEND = "eth_sendRawTransaction"
RECEIPT = "eth_getTransactionReceipt"
NOBODY = "0x" + "00" * 19 + "77"


@dataclass
class Client:
    """What a beginner writes: sign, send, wait for the receipt; no retry, no doubt."""

    chain: DevChain
    proxy: RpcProxy
    wallet: LocalAccount = field(default_factory=Account.create)
    timeout_s: float = TIMEOUT_S

    async def call(self, method: str, *params: Any) -> Any:
        node = JsonRpc(self.proxy.url, timeout_s=self.timeout_s)
        return await asyncio.to_thread(node.call, method, *params)

    async def batch(self, calls: list[tuple[str, list[Any]]]) -> list[Any]:
        node = JsonRpc(self.proxy.url, timeout_s=self.timeout_s)
        return await asyncio.to_thread(node.batch, calls)

    def sign(self, nonce: int, *, max_fee_wei: int = 100 * GWEI, tip_wei: int = 10 * GWEI) -> str:
        fields: dict[str, Any] = {
            "type": 2,
            "chainId": self.chain.chain_id,
            "nonce": nonce,
            "maxFeePerGas": max_fee_wei,
            "maxPriorityFeePerGas": tip_wei,
            "gas": 21_000,
            "to": NOBODY,
            "value": 1,
        }
        signed = self.wallet.sign_transaction(fields)
        return "0x" + signed.raw_transaction.hex()

    async def send(self) -> str:
        nonce = int(await self.call("eth_getTransactionCount", self.wallet.address, "pending"), 16)
        return str(await self.call(SEND, self.sign(nonce)))

    async def pay(self) -> Any:
        """Send, let a block come, give the receipt."""
        tx_hash = await self.send()
        self.chain.mine()
        return await self.call(RECEIPT, tx_hash)

    def mined(self) -> int:
        """How many payments there were, by the node itself."""
        count = self.chain.node.call("eth_getTransactionCount", self.wallet.address, "latest")
        return int(count, 16)

    def in_pool(self) -> int:
        """How many are mined or wait for it, by the node itself."""
        count = self.chain.node.call("eth_getTransactionCount", self.wallet.address, "pending")
        return int(count, 16)


async def drop_request(client: Client) -> None:
    client.proxy.inject(f"drop_request:1@{SEND}")
    with pytest.raises(RpcUnreachableError):
        await client.pay()
    assert client.in_pool() == 0


async def drop_reply(client: Client) -> None:
    client.proxy.inject(f"drop_reply:1@{SEND}")
    with pytest.raises(RpcUnreachableError):
        await client.pay()
    assert client.in_pool() == 1, "it is told of a failure and has paid"


async def delay(client: Client) -> None:
    """The client has given up when its payment is made."""
    client.timeout_s = 0.3
    client.proxy.inject(f"delay:1:ms=600@{SEND}")
    with pytest.raises(RpcUnreachableError):
        await client.send()
    assert client.in_pool() == 0
    async with asyncio.timeout(PATIENT_S):
        await client.proxy.quiet()
    assert client.in_pool() == 1


async def duplicate(client: Client) -> None:
    client.proxy.inject(f"duplicate:1@{SEND}")
    with pytest.raises(RpcRefusedError, match="already imported"):
        await client.pay()
    assert client.in_pool() == 1


async def hang(client: Client) -> None:
    client.timeout_s = 0.3
    client.proxy.inject(f"hang:1@{SEND}")
    with pytest.raises(RpcUnreachableError):
        await client.send()
    assert client.in_pool() == 0
    async with asyncio.timeout(PATIENT_S):
        await client.proxy.quiet()  # it knows that the client has gone
    client.proxy.inject(f"hang:1:heard=1@{SEND}")
    with pytest.raises(RpcUnreachableError):
        await client.send()
    assert client.in_pool() == 1


async def http_429(client: Client) -> None:
    client.proxy.inject(f"http_429:1@{SEND}")
    with pytest.raises(RpcUnreachableError, match="HTTP 429"):
        await client.pay()
    assert client.in_pool() == 0


async def http_502(client: Client) -> None:
    client.proxy.inject(f"http_502:1@{SEND}")
    with pytest.raises(RpcUnreachableError, match="HTTP 502"):
        await client.pay()
    assert client.in_pool() == 0
    client.proxy.inject(f"http_502:1:heard=1@{SEND}")
    with pytest.raises(RpcUnreachableError, match="HTTP 502"):
        await client.pay()
    assert client.in_pool() == 1


async def reorder(client: Client) -> None:
    """A client that takes the answers as they come mistakes one for the other."""
    client.proxy.inject("reorder:1")
    asked = [
        {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []},
        {"jsonrpc": "2.0", "id": 2, "method": "web3_clientVersion", "params": []},
    ]
    async with aiohttp.ClientSession() as http:
        for expected in ([2, 1], [1, 2]):
            async with http.post(client.proxy.url, json=asked) as response:
                assert [answer["id"] for answer in await response.json()] == expected


async def partial_batch(client: Client) -> None:
    client.proxy.inject(f"partial_batch:1@{SEND}")
    with pytest.raises(RpcUnreachableError, match="neither a result nor an error"):
        await client.batch([(SEND, [client.sign(nonce)]) for nonce in range(3)])
    assert client.in_pool() == 3


async def huge_reply(client: Client) -> None:
    client.timeout_s = PATIENT_S
    client.proxy.inject("huge_reply:1:mib=65")
    with pytest.raises(RpcUnreachableError, match="larger than"):
        await client.call("eth_chainId")
    client.proxy.inject("huge_reply:1:mib=1")
    assert await client.call("eth_chainId") == hex(client.chain.chain_id)


async def truncated_json(client: Client) -> None:
    client.proxy.inject(f"truncated_json:1@{SEND}")
    with pytest.raises(RpcUnreachableError):
        await client.pay()
    assert client.in_pool() == 1


async def garbage(client: Client) -> None:
    client.proxy.inject(f"garbage:1@{SEND}")
    with pytest.raises(RpcUnreachableError):
        await client.pay()
    assert client.in_pool() == 1


async def internal_error(client: Client) -> None:
    client.proxy.inject(f"internal_error:1@{SEND}")
    with pytest.raises(RpcRefusedError, match="-32603"):
        await client.pay()
    assert client.in_pool() == 0


async def lagging_head(client: Client) -> None:
    """A nonce from a replica that is behind is used a second time."""
    paid = await client.pay()
    client.chain.mine()
    head = client.chain.block_number()
    (rule,) = client.proxy.inject("lagging_head:blocks=3")
    assert int(await client.call("eth_blockNumber"), 16) == head - 3
    assert int((await client.call("eth_getBlockByNumber", "latest", False))["number"], 16) < head
    assert await client.call("eth_getBlockByNumber", hex(head), False) is None
    assert await client.call(RECEIPT, paid["transactionHash"]) is None
    with pytest.raises(RpcRefusedError, match="nonce too low"):
        await client.send()
    client.proxy.withdraw([rule])
    await client.send()


async def null_receipt(client: Client) -> None:
    client.proxy.inject("null_receipt:1:polls=2")
    receipt = await client.pay()
    assert receipt is None
    assert client.mined() == 1, "the client thinks that it is not"
    tx_hash = client.chain.node.call("eth_getBlockByNumber", "latest", False)["transactions"][0]
    assert await client.call(RECEIPT, tx_hash) is None
    assert (await client.call(RECEIPT, tx_hash))["status"] == "0x1"
    assert (await client.pay())["status"] == "0x1", "only one transaction was asked for"


async def receipt_then_null(client: Client) -> None:
    client.proxy.inject("receipt_then_null:1:polls=2")
    receipt = await client.pay()
    assert receipt["status"] == "0x1"
    tx_hash = receipt["transactionHash"]
    assert [await client.call(RECEIPT, tx_hash) for _ in range(2)] == [None, None]
    assert await client.call(RECEIPT, tx_hash) == receipt


async def foreign_receipt(client: Client) -> None:
    client.proxy.inject("foreign_receipt:2")
    first = await client.pay()
    second = await client.pay()
    true = [
        client.chain.node.call("eth_getBlockByNumber", hex(number), False)["transactions"][0]
        for number in (client.chain.block_number() - 1, client.chain.block_number())
    ]
    assert first["transactionHash"] not in true
    assert second["transactionHash"] == true[0]


async def flipped_status(client: Client) -> None:
    client.proxy.inject("flipped_status:1")
    assert (await client.pay())["status"] == "0x0"
    assert client.mined() == 1


async def wrong_block_hash(client: Client) -> None:
    client.proxy.inject("wrong_block_hash:1")
    receipt = await client.pay()
    assert client.chain.node.call("eth_getBlockByHash", receipt["blockHash"], False) is None


async def missing_logs(client: Client) -> None:
    wanted = {"address": client.chain.token_address, "fromBlock": "0x0", "toBlock": "latest"}
    client.chain.mint(NOBODY, 1)
    client.proxy.inject("missing_logs:1")
    assert await client.call("eth_getLogs", wanted) == []
    assert await client.call("eth_getLogs", wanted) != []


async def wrong_chain_id(client: Client) -> None:
    client.proxy.inject("wrong_chain_id:id=5")
    assert await client.call("eth_chainId") == "0x5"
    assert await client.call("net_version") == "5"


async def accepted_lost(client: Client) -> None:
    raw = client.sign(0)
    client.proxy.inject("accepted_lost:1")
    tx_hash = await client.call(SEND, raw)
    client.chain.mine()
    assert await client.call(RECEIPT, tx_hash) is None
    assert client.in_pool() == 0
    assert await client.call(SEND, raw) == tx_hash, "the hash was the true one"
    assert client.in_pool() == 1


async def strict_nonce(client: Client) -> None:
    client.proxy.inject("strict_nonce")
    with pytest.raises(RpcRefusedError, match="nonce too high"):
        await client.call(SEND, client.sign(1))
    in_order = [(SEND, [client.sign(nonce)]) for nonce in range(2)]
    assert len(await client.batch(in_order)) == 2
    with pytest.raises(RpcRefusedError, match="nonce too high"):
        await client.batch([(SEND, [client.sign(nonce)]) for nonce in (3, 2)])


async def bump_rule(client: Client) -> None:
    """anvil alone takes any higher fee."""
    await client.call(SEND, client.sign(0))
    await client.call(SEND, client.sign(0, max_fee_wei=101 * GWEI, tip_wei=11 * GWEI))
    client.proxy.inject("bump_rule")
    await client.call(SEND, client.sign(1))
    for max_fee, tip in ((109, 11), (110, 10), (200, 10)):
        with pytest.raises(RpcRefusedError, match="replacement transaction underpriced"):
            await client.call(SEND, client.sign(1, max_fee_wei=max_fee * GWEI, tip_wei=tip * GWEI))
    await client.call(SEND, client.sign(1, max_fee_wei=110 * GWEI, tip_wei=11 * GWEI))


SCENES: dict[str, Callable[[Client], Awaitable[None]]] = {
    scene.__name__: scene
    for scene in (
        *(drop_request, drop_reply, delay, duplicate, hang, http_429, http_502, reorder),
        *(partial_batch, huge_reply, truncated_json, garbage, internal_error, lagging_head),
        *(null_receipt, receipt_then_null, foreign_receipt, flipped_status, wrong_block_hash),
        *(missing_logs, wrong_chain_id, accepted_lost, strict_nonce, bump_rule),
    )
}

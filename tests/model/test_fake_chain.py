"""The fake chain and anvil, asked the same: what is proven on the one must hold on the other."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account import Account
from eth_utils.crypto import keccak

from taprail_gateway.settle import code_sizes
from taprail_hwsim import abi
from taprail_hwsim.dev_chain import MULTICALL3_ADDRESS, DevChain
from taprail_hwsim.rpc import RpcRefusedError
from tests.model import world
from tests.model.fake_chain import GWEI, FakeChain
from tests.model.fake_node import FakeNode, Trouble
from tests.support import eip3009
from tests.support.eip3009 import Authorization

pytestmark = pytest.mark.chain
ETHER = 10**18
WALLET = Account.from_key(keccak(text="a lane of both chains"))
PAYER = eip3009.account(1)
PAYEE = "0x" + "ab" * 20


async def _go_on(_point: str) -> None:
    """No process dies in this test."""


class Fake:
    """The fake chain in the form that the script below needs."""

    def __init__(self) -> None:
        start = world.World(
            coins_wei={WALLET.address.lower(): ETHER}, tokens={PAYER.address.lower(): 100}
        )
        self.chain = FakeChain(start, 1_700_000_000)
        self.node = FakeNode("fake", self.chain, Trouble(), _go_on)
        self.token, self.multicall = world.TOKEN, world.MULTICALL
        self.domain = {
            "name": world.TOKEN_NAME,
            "version": world.TOKEN_VERSION,
            "chainId": world.CHAIN_ID,
            "verifyingContract": world.TOKEN,
        }
        self.now_s = self.chain.time_s

    async def ask(self, method: str, *params: Any) -> Any:
        """The result, or `refused`."""
        (answer,) = await self.node.batch([(method, list(params))])
        return "refused" if answer is None or "error" in answer else answer["result"]

    def mine(self) -> None:
        self.now_s += 1
        self.chain.mine(self.now_s)


class Real:
    """anvil in the same form."""

    def __init__(self, chain: DevChain) -> None:
        self.chain = chain
        chain.fund(WALLET.address, ETHER)
        chain.mint(PAYER.address, 100)
        self.token, self.multicall = chain.token_address, chain.multicall_address
        self.domain = eip3009.domain(chain)
        self.now_s = chain.block_time_s()

    async def ask(self, method: str, *params: Any) -> Any:
        """The result, or `refused`."""
        try:
            return self.chain.node.call(method, *params)
        except RpcRefusedError:
            return "refused"

    def mine(self) -> None:
        self.chain.mine()


async def test_the_same_script_ends_the_same_way(chain: DevChain) -> None:
    chain.node.call("evm_setIntervalMining", 0)  # blocks by the test's hand alone
    try:
        assert await script(Fake()) == await script(Real(chain))
    finally:
        chain.node.call("evm_setIntervalMining", 1)


async def script(side: Fake | Real) -> dict[str, Any]:
    """Send, refuse, replace, mine, and read it all back."""
    paid, too_much = payment(side, 1, 40), payment(side, 2, 4_000)
    batch = abi.encode_aggregate3([(side.token, paid), (side.token, too_much)])
    first = transaction(0, 3, batch)
    dearer = transaction(0, 6, batch)
    gap = transaction(2, 3, batch)
    names = {tx_hash(first): "first", tx_hash(dearer): "dearer", tx_hash(gap): "gap"}
    said = []
    for raw in (first, first, dearer, gap, "0x02c0"):
        answer = await side.ask("eth_sendRawTransaction", raw)
        said.append(names.get(answer, answer))
    side.mine()
    late = await side.ask("eth_sendRawTransaction", first)
    receipts = [
        await side.ask("eth_getTransactionReceipt", tx_hash(raw)) for raw in (first, dearer, gap)
    ]
    head = await side.ask("eth_getBlockByNumber", "latest", False)
    spent = abi.encode_call("authorizationState(address,bytes32)", PAYER.address, eip3009.nonce(1))
    again = {"to": side.token, "data": paid}
    wanted = {
        "address": side.token,
        "topics": [[world.USED, world.CANCELED, world.TRANSFER]],
        "fromBlock": head["number"],
        "toBlock": head["number"],
    }
    logs = await side.ask("eth_getLogs", wanted)
    return {
        "said": said,
        "late": late,
        "receipts": [None if it is None else (it["status"], len(it["logs"])) for it in receipts],
        "logs": [(log["topics"], log["data"], names[log["transactionHash"]]) for log in logs],
        "log indexes": [int(log["logIndex"], 16) for log in logs],
        "nonce": await side.ask("eth_getTransactionCount", WALLET.address, "latest"),
        "spent": await side.ask("eth_call", {"to": side.token, "data": spent}, "latest"),
        "again": await side.ask("eth_call", again, "latest"),
        "aggregate": [
            result.success
            for result in abi.decode_aggregate3(
                await side.ask("eth_call", {"to": side.multicall, "data": batch}, "latest")
            )
        ],
        "with code": await with_code(side, [PAYER.address.lower(), side.multicall.lower()]),
        "no block": await side.ask("eth_getBlockByNumber", "0xffffff", False),
    }


async def with_code(side: Fake | Real, accounts: list[str]) -> frozenset[str]:
    """Those of the accounts that are contracts."""
    method, params = code_sizes.question(accounts, "latest")
    answer = await side.ask(method, *params)
    return code_sizes.with_code(accounts, bytes.fromhex(answer[2:]))


def payment(side: Fake | Real, number: int, units: int) -> str:
    """The call of an authorization that both chains accept: it never expires."""
    it = Authorization(PAYER.address, PAYEE, units, eip3009.nonce(number), 0, 2**40)
    return it.signed_in(side.domain, PAYER).call_data()


def transaction(nonce: int, gwei: int, data: str) -> str:
    """Signed for either chain: Multicall3 and the chain's number are the same on both."""
    fields = {
        "chainId": world.CHAIN_ID,
        "nonce": nonce,
        "to": MULTICALL3_ADDRESS,
        "value": 0,
        "gas": 400_000,
        "data": data,
        "maxFeePerGas": gwei * GWEI,
        "maxPriorityFeePerGas": gwei * GWEI,
    }
    return "0x" + bytes(WALLET.sign_transaction(fields).raw_transaction).hex()


def tx_hash(raw: str) -> str:
    """Of signed bytes."""
    return "0x" + keccak(bytes.fromhex(raw[2:])).hex()

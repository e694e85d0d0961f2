"""RewardPoints on a dev chain, spoken to through eth_abi: none of the gateway's own codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from taprail_hwsim.contracts import read_artifact
from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.rpc import RpcRefusedError

CONTRACTS = Path(__file__).parents[2] / "gateway" / "contracts"
DEPLOY_GAS = 3_000_000
MINT_GAS = 8_000_000

MINT_BATCH = "mintBatch(bytes32[],address[],uint256[])"
SET_MINTER = "setMinter(address,bool)"


@dataclass(frozen=True)
class Mint:
    """What was minted, as the contract's logs tell it."""

    payment_id: str
    to: str
    amount_units: int


@dataclass
class RewardPoints:
    """A deployed contract; `owner` is an unlocked account of the node."""

    chain: DevChain
    address: str
    owner: str

    @classmethod
    def deploy(cls, chain: DevChain, *, decimals: int = 2) -> RewardPoints:
        owner = chain.accounts[0]
        address = deploy(chain, owner, decimals=decimals)["contractAddress"]
        return cls(chain, str(address), owner)

    def send(self, sender: str, signature: str, *values: Any) -> dict[str, Any]:
        """Call it in a transaction of an unlocked account; the receipt, whatever became of it."""
        return self.chain.send(sender, self.address, call_data(signature, *values), gas=MINT_GAS)

    def read(self, returned: str, signature: str, *values: Any) -> Any:
        call = {"to": self.address, "data": call_data(signature, *values)}
        result = self.chain.node.call("eth_call", call, "latest")
        return decode([returned], bytes.fromhex(result[2:]))[0]

    def refusal(self, sender: str, signature: str, *values: Any) -> str:
        """The selector of the error that the call ends with."""
        call = {"from": sender, "to": self.address, "data": call_data(signature, *values)}
        with pytest.raises(RpcRefusedError) as raised:
            self.chain.node.call("eth_call", call, "latest")
        return str(raised.value.data)[:10]

    def grant(self, minter: str, *, allowed: bool = True) -> None:
        assert self.send(self.owner, SET_MINTER, minter, allowed)["status"] == "0x1"

    def balance_of(self, account: str) -> int:
        return int(self.read("uint256", "balanceOf(address)", account))

    def minted(self) -> list[Mint]:
        """All mints, in the chain's order."""
        logs = self.logs("Minted(bytes32,address,uint256)")
        return [
            Mint(log["topics"][1], "0x" + log["topics"][2][-40:], int(log["data"], 16))
            for log in logs
        ]

    def skipped(self) -> list[str]:
        return [log["topics"][1] for log in self.logs("Skipped(bytes32)")]

    def logs(self, event: str) -> list[dict[str, Any]]:
        wanted = {"address": self.address, "topics": [topic(event)], "fromBlock": "0x0"}
        found: list[dict[str, Any]] = self.chain.node.call("eth_getLogs", wanted)
        return found


def deploy(chain: DevChain, owner: str, *, decimals: int) -> dict[str, Any]:
    """Put the contract on the chain; the receipt, whatever became of it."""
    code = read_artifact(CONTRACTS / "artifacts" / "RewardPoints.json").bytecode
    arguments = encode(
        ["string", "string", "uint8", "address"], ["Shop Points", "PTS", decimals, owner]
    )
    sent = {"from": chain.accounts[0], "data": code + arguments.hex(), "gas": hex(DEPLOY_GAS)}
    tx_hash = chain.node.call("eth_sendTransaction", sent)
    chain.mine()
    receipt: dict[str, Any] = chain.node.call("eth_getTransactionReceipt", tx_hash)
    return receipt


def payment_ids(count: int, *, start: int = 0) -> list[bytes]:
    return [keccak(f"payment {start + number}".encode()) for number in range(count)]


def payers(count: int) -> Sequence[str]:
    return ["0x" + keccak(f"payer {number}".encode())[:20].hex() for number in range(count)]


def topic(event: str) -> str:
    return "0x" + keccak(event.encode()).hex()


def selector(error: str) -> str:
    return "0x" + keccak(error.encode())[:4].hex()


def call_data(signature: str, *values: Any) -> str:
    types = signature[signature.index("(") + 1 : -1]
    body = encode(types.split(",") if types else [], values)
    return selector(signature) + body.hex()

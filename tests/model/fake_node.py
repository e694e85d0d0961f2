"""A node of the fake chain: JSON-RPC answers, and every way in which a node may let one down.

It has the interface of `settle.node.Node` and takes its place below `Chain`. Faults are armed by
the test, each for a number of batches; `frozen` keeps showing an older view of the chain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from taprail_gateway.settle.errors import ChainError, NodeReply
from taprail_gateway.settle.node import Answer, Call, Node
from tests.model import signed, world
from tests.model.fake_chain import BLOCK_GAS, GWEI, Block, FakeChain, Mined, RefusedError
from tests.model.world import CHAIN_ID, RevertedError

DEPTHS: Final = {"latest": 0, "pending": 0, "safe": 4, "finalized": 8}
"""Blocks below the head; what is finalized is deeper than the reorgs of the machine."""
_REVERTED: Final = 3  # geth's code for a call that reverts
_ZEROS: Final = "0x" + "00" * 32
_CODE_SIZES_PROGRAM_BYTES: Final = 0x29
"""Before the accounts that it is about."""


class Fault(Enum):
    """What a node does with the next batches."""

    LOST_REQUEST = "lost request"
    LOST_REPLY = "lost reply"
    HALF = "half a batch"
    GARBAGE = "garbage"
    WRONG_CHAIN = "another chain"
    NO_RECEIPTS = "null receipts"
    NO_LOGS = "empty logs"
    ACCEPTED_BUT_LOST = "accepted but lost"
    FULL = "txpool is full"
    TOO_MANY = "too many requests"
    INTERNAL = "internal error"
    UNDERPRICED = "replacement transaction underpriced"
    FEE_LOW = "transaction underpriced"
    NONCE_HIGH = "nonce too high"
    NONCE_LOW = "nonce too low"
    FUNDS = "insufficient funds for gas * price + value"
    NEVER = "execution reverted"
    SILENT = "taken, but told otherwise"
    LOW_ESTIMATE = "a third of the gas that it takes"


_SAID: Final = (
    *(Fault.FULL, Fault.TOO_MANY, Fault.INTERNAL, Fault.UNDERPRICED, Fault.FEE_LOW),
    *(Fault.NONCE_HIGH, Fault.NONCE_LOW, Fault.FUNDS, Fault.NEVER),
)
"""Refusals of a transaction, true or not."""
_SEND: Final = "eth_sendRawTransaction"


@dataclass
class Trouble:
    """What is wrong with a node at the moment, for everybody who asks it."""

    faults: dict[Fault, int] = field(default_factory=dict)
    frozen: list[Block] | None = None
    """An older view of the chain, perhaps of a branch that is gone."""

    def end(self) -> None:
        """The node is well again."""
        self.faults.clear()
        self.frozen = None


class FakeNode(Node):
    """One node; `passed` is awaited before and after each batch, and may end the process there."""

    def __init__(
        self,
        name: str,
        chain: FakeChain,
        trouble: Trouble,
        passed: Callable[[str], Awaitable[None]],
    ) -> None:
        # Not the parent's: that opens a provider of HTTP.
        self.name = name
        self.checked = False
        self.chain = chain
        self.trouble = trouble
        self._passed = passed

    async def open(self) -> None:
        """There is nothing to connect to."""

    async def close(self) -> None:
        """Nor to let go."""

    async def batch(self, asked: Sequence[Call]) -> list[Answer]:
        """Answers in order; ChainError when the wire fails."""
        await self._passed(f"before {asked[0][0]}")
        if self._is_armed(Fault.LOST_REQUEST):
            raise self._away("ConnectionError")
        answers = self._answers(asked)
        await self._passed(f"after {asked[0][0]}")
        if self._is_armed(Fault.LOST_REPLY):
            raise self._away("TimeoutError")
        if self._is_armed(Fault.HALF):
            return [None if position % 2 else it for position, it in enumerate(answers)]
        return answers

    def _answers(self, asked: Sequence[Call]) -> list[Answer]:
        methods = {method for method, _ in asked}
        says = self._refusal() if _SEND in methods else None
        loses = _SEND in methods and self._is_armed(Fault.ACCEPTED_BUT_LOST)
        silent = _SEND in methods and self._is_armed(Fault.SILENT)
        hides = "eth_getTransactionReceipt" in methods and self._is_armed(Fault.NO_RECEIPTS)
        blind = "eth_getLogs" in methods and self._is_armed(Fault.NO_LOGS)
        garbage = _SEND not in methods and self._is_armed(Fault.GARBAGE)
        answers: list[Answer] = []
        for method, params in asked:
            if says is not None:
                self._note(params[0])
                answers.append(_error(-32000, says))
            elif loses:
                answers.append(self._pretend(params[0]))
            elif hides:
                answers.append({"result": None})
            elif blind:
                answers.append({"result": []})
            elif garbage:
                answers.append({"result": "0x"})
            else:
                answer = self._answer(method, params)
                answers.append(_error(-32603, "internal error") if silent else answer)
        return answers

    def _answer(self, method: str, params: Sequence[Any]) -> Answer:
        try:
            return {"result": _METHODS[method](self, *params)}
        except RefusedError as exc:
            return _error(exc.code, str(exc))
        except RevertedError as exc:
            data = "0x" + exc.data.hex()
            said = f"execution reverted: {exc}"
            return {"error": {"code": _REVERTED, "message": said, "data": data}}

    def _note(self, raw: str) -> None:
        """What was refused has left the gateway all the same."""
        it = signed.transaction(bytes.fromhex(raw[2:]))
        self.chain.offered[it.tx_hash] = it

    def _pretend(self, raw: str) -> Answer:
        self._note(raw)
        return {"result": signed.transaction(bytes.fromhex(raw[2:])).tx_hash}

    def _refusal(self) -> str | None:
        return next((fault.value for fault in _SAID if self._is_armed(fault)), None)

    def _is_armed(self, fault: Fault) -> bool:
        faults = self.trouble.faults
        left = faults.get(fault, 0)
        if left > 1:
            faults[fault] = left - 1
        else:
            faults.pop(fault, None)
        return left > 0

    def _away(self, said: str) -> ChainError:
        return ChainError(f"node {self.name}: {said}", reply=NodeReply(None, said))

    # --- what it shows ------------------------------------------------------------------------

    @property
    def view(self) -> list[Block]:
        """The blocks as this node knows them."""
        return self.chain.blocks if self.trouble.frozen is None else self.trouble.frozen

    def block(self, tag: str) -> Block | None:
        """A block by number or name; None for one that this node does not have."""
        top = len(self.view) - 1
        number = max(0, top - DEPTHS[tag]) if tag in DEPTHS else int(tag, 16)
        return self.view[number] if number <= top else None

    def known_block(self, tag: str) -> Block:
        """The same; a refusal when there is none."""
        block = self.block(tag)
        if block is None:
            raise RefusedError(-32000, "header not found")
        return block

    def receipt(self, tx_hash: str) -> dict[str, Any] | None:
        """What became of a transaction, as far as this node's view goes."""
        for block in reversed(self.view):
            for mined, logs in _logs(block):
                if mined.tx_hash == tx_hash:
                    return _receipt_json(block, mined, logs)
        return None

    def logs(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        """Logs by address, topics and blocks."""
        last = int(wanted["toBlock"], 16)
        if last >= len(self.view):
            raise RefusedError(-32000, "block range extends beyond current head block")
        address = wanted.get("address", world.TOKEN)
        if world.TOKEN not in ([address] if isinstance(address, str) else address):
            return []
        return [
            log
            for block in self.view[int(wanted["fromBlock"], 16) : last + 1]
            for _, logs in _logs(block)
            for log in logs
            if _matches(log["topics"], wanted.get("topics", []))
        ]

    def call(self, call: dict[str, str], tag: str = "latest") -> str:
        """What a call at the end of a block returns; it changes nothing."""
        block = self.known_block(tag)
        call_ = world.Call(block.world.copy(), block.time_s, call.get("from", _ZEROS[:42]))
        data = bytes.fromhex((call.get("data") or call.get("input") or "0x")[2:])
        if "to" not in call:
            return "0x" + _code_sizes(block, data).hex()
        self.chain.asked.update(signed.authorizations(data))
        result = call_.run(call["to"].lower(), data)
        if "gas" in call and world.intrinsic_gas(data) + call_.gas_used > int(call["gas"], 16):
            raise RefusedError(-32000, "out of gas")
        return "0x" + result.hex()

    def gas(self, call: dict[str, str], tag: str = "latest") -> str:
        """What a call would use."""
        block = self.known_block(tag)
        call_ = world.Call(block.world.copy(), block.time_s, call.get("from", _ZEROS[:42]))
        data = bytes.fromhex((call.get("data") or call.get("input") or "0x")[2:])
        call_.run(call["to"].lower(), data)
        gas = world.intrinsic_gas(data) + call_.gas_used
        return hex(gas // 3 if self._is_armed(Fault.LOW_ESTIMATE) else gas)

    def fee_history(self, count: str | int, tag: str, percentiles: Sequence[float]) -> Any:
        """Base fees of the last blocks and of the next one, with what they paid in tips."""
        last = self.known_block(tag)
        size = int(count, 16) if isinstance(count, str) else count
        blocks = self.view[max(0, last.number - size + 1) : last.number + 1]
        following = (
            self.view[last.number + 1].base_fee_wei
            if last.number + 1 < len(self.view)
            else self.chain.base_fee_wei
        )
        return {
            "oldestBlock": hex(blocks[0].number),
            "baseFeePerGas": [hex(it.base_fee_wei) for it in blocks] + [hex(following)],
            "gasUsedRatio": [it.gas_used / BLOCK_GAS for it in blocks],
            "reward": [[hex(GWEI) for _ in percentiles] for _ in blocks],
        }

    def chain_id(self) -> str:
        """The chain's number."""
        return hex(CHAIN_ID + 1 if self._is_armed(Fault.WRONG_CHAIN) else CHAIN_ID)

    def _block_json(self, tag: str, _full: bool = False) -> dict[str, Any] | None:
        block = self.block(tag)
        return None if block is None else _block_json(block)


def _block_json(block: Block) -> dict[str, Any]:
    return {
        "number": hex(block.number),
        "hash": block.block_hash,
        "parentHash": block.parent_hash,
        "timestamp": hex(block.time_s),
        "baseFeePerGas": hex(block.base_fee_wei),
        "gasLimit": hex(BLOCK_GAS),
        "gasUsed": hex(block.gas_used),
        "transactions": [mined.tx_hash for mined in block.mined],
    }


def _code_sizes(block: Block, program: bytes) -> bytes:
    """What the one program that is ever run without being deployed returns: see `code_sizes`."""
    words = program[_CODE_SIZES_PROGRAM_BYTES:]
    addresses = ["0x" + words[at + 12 : at + 32].hex() for at in range(0, len(words), 32)]
    return b"".join(len(block.world.code(it)).to_bytes(32, "big") for it in addresses)


def _logs(block: Block) -> list[tuple[Mined, list[dict[str, Any]]]]:
    """A block's transactions with their logs, which are numbered through the block."""
    found, index = [], 0
    for mined in block.mined:
        logs = []
        for event in mined.events:
            logs.append(
                {
                    "address": world.TOKEN,
                    "topics": list(event.topics),
                    "data": event.data,
                    "blockNumber": hex(block.number),
                    "blockHash": block.block_hash,
                    "transactionHash": mined.tx_hash,
                    "logIndex": hex(index),
                    "removed": False,
                }
            )
            index += 1
        found.append((mined, logs))
    return found


def _receipt_json(block: Block, mined: Mined, logs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "transactionHash": mined.tx_hash,
        "blockNumber": hex(block.number),
        "blockHash": block.block_hash,
        "from": mined.sender,
        "status": hex(int(mined.succeeded)),
        "gasUsed": hex(mined.gas_used),
        "logs": logs,
    }


def _matches(topics: Sequence[str], wanted: Sequence[str | Sequence[str] | None]) -> bool:
    if len(topics) < len(wanted):
        return False
    for topic, one in zip(topics, wanted, strict=False):
        if one is not None and topic not in ([one] if isinstance(one, str) else one):
            return False
    return True


def _error(code: int, text: str) -> Answer:
    return {"error": {"code": code, "message": text}}


_METHODS: Final[dict[str, Callable[..., Any]]] = {
    "eth_chainId": lambda node: node.chain_id(),
    "eth_blockNumber": lambda node: hex(len(node.view) - 1),
    "eth_getBlockByNumber": lambda node, *params: node._block_json(*params),
    "eth_getTransactionCount": lambda node, address, tag: hex(
        node.known_block(tag).world.nonces.get(address.lower(), 0)
    ),
    "eth_getBalance": lambda node, address, tag: hex(
        node.known_block(tag).world.coins_wei.get(address.lower(), 0)
    ),
    "eth_getCode": lambda node, address, tag: (
        "0x" + node.known_block(tag).world.code(address.lower()).hex()
    ),
    "eth_getTransactionReceipt": lambda node, tx_hash: node.receipt(tx_hash),
    "eth_getLogs": lambda node, wanted: node.logs(wanted),
    "eth_call": lambda node, *params: node.call(*params),
    "eth_estimateGas": lambda node, *params: node.gas(*params),
    "eth_feeHistory": lambda node, *params: node.fee_history(*params),
    "eth_gasPrice": lambda node: hex(node.chain.base_fee_wei + GWEI),
    "eth_sendRawTransaction": lambda node, raw: node.chain.offer(bytes.fromhex(raw[2:])),
}
"""What settlement asks. A question that is not here is a KeyError: the model has to learn it."""

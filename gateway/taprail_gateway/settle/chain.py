"""The chain as settlement sees it: questions about blocks and money, transactions to the pools.

Answers for which node is asked, and for what counts as an answer: `node` carries the calls,
`replies` turns JSON into facts, `errors` reads a node's words. It decides nothing about payments.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import structlog

from taprail_common.clock import Clock, SystemClock
from taprail_gateway.settle import calls, replies
from taprail_gateway.settle.errors import IN_POOL, ChainError, SendClass, WrongChainError, classify
from taprail_gateway.settle.node import Answer, Call, Node, error_of, result_of
from taprail_gateway.settle.plausible import BlockSense
from taprail_gateway.settle.replies import Block, Log, Receipt
from taprail_gateway.settle.signer import SignedTransaction
from taprail_gateway.settle.told import Told

# A node takes 50 to 100 calls a request best (measured); many providers refuse more than 100.
MAX_BATCH: Final = 50
# 500 balances make a 48 kB question and some 130 kB of answer, in about 4 ms.
_BALANCES_PER_CALL: Final = 500
T = TypeVar("T")
_log = structlog.get_logger("settle.chain")


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """The token as it describes itself; `domain_separator` is checked against its own."""

    address: str
    name: str
    version: str
    symbol: str
    decimals: int
    domain_separator: bytes
    chain_id: int


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """What a node, or the best of several, said about one transaction."""

    meaning: SendClass
    text: str = ""


class Chain:
    """The chain with its token, over one or several nodes. Every method may raise ChainError."""

    def __init__(
        self,
        nodes: Sequence[Node],
        token: TokenInfo,
        multicall: str,
        clock: Clock | None = None,
    ) -> None:
        self._nodes = list(nodes)
        self.token = token
        self.multicall = multicall
        self.rpc_calls = 0
        self._clock = clock or SystemClock()
        self._sense = BlockSense()
        self._told = Told()

    @property
    def nodes(self) -> Sequence[Node]:
        """The nodes, in the order in which they are asked."""
        return tuple(self._nodes)

    async def close(self) -> None:
        """Close all connections."""
        for node in self._nodes:
            await node.close()

    # --- reading ------------------------------------------------------------------------------

    async def head(self, tag: str = "latest") -> Block:
        """The newest block, or the newest that the node calls `safe` or `finalized`."""
        asked: list[Call] = [("eth_getBlockByNumber", [tag, False])]
        (block,) = await self.read(asked, self._plausible)
        self._sense.saw(block, self._clock.now_ms(), self._clock.monotonic_s())
        return block

    async def final_block(self, head: Block, confirmations: int | str) -> Block | None:
        """The newest block that counts as final at this head, by a depth (1 is the head itself) or
        by a tag; None while the chain is too short for the depth."""
        if isinstance(confirmations, str):
            final = await self.head(confirmations)
            return final if final.number < head.number else head  # a block may have come between
        number = head.number - confirmations + 1
        if number < 0:
            return None
        return head if number == head.number else await self.block(number)

    async def block(self, number: int) -> Block:
        """The block of this number; ChainError while the node has none."""
        (block,) = await self.blocks([number])
        if block is None:
            raise ChainError("the node has no such block yet")
        return block

    async def blocks(self, numbers: Sequence[int]) -> list[Block | None]:
        """The blocks of these numbers, None for one that the node does not have."""
        found: list[Block | None] = []
        for part in chunks(numbers, MAX_BATCH):
            asked: list[Call] = [("eth_getBlockByNumber", [hex(each), False]) for each in part]
            found += await self.ask(asked, [partial(self._numbered, number=each) for each in part])
        return found

    def _numbered(self, value: object, *, number: int) -> Block | None:
        if value is None:
            return None
        block = self._plausible(value)
        if block.number != number:
            raise ChainError("the node gave another block")
        return block

    def _plausible(self, value: object) -> Block:
        block = replies.block(value)
        self._sense.check(block, self._clock.now_ms(), self._clock.monotonic_s())
        return block

    async def transaction_counts(self, address: str, block_numbers: Sequence[int]) -> list[int]:
        """How many of an address's transactions are mined up to each block."""
        (counts,) = await self.watermarks([address], block_numbers)
        return counts

    async def watermarks(
        self, addresses: Sequence[str], block_numbers: Sequence[int]
    ) -> list[list[int]]:
        """How many transactions of each address are mined up to each block.

        Asked together with the chain's id: a node that was put on another chain while we run
        must not tell which of our nonces are used up.
        """
        asked: list[Call] = [("eth_chainId", [])]
        asked += [
            ("eth_getTransactionCount", [address, hex(number)])
            for address in addresses
            for number in block_numbers
        ]
        parsers = [self._same_chain, *[replies.quantity] * (len(asked) - 1)]
        _, *counts = await self.ask(asked, parsers)
        return [list(part) for part in chunks(counts, len(block_numbers))]

    def _same_chain(self, value: object) -> int:
        chain_id = replies.quantity(value)
        if chain_id != self.token.chain_id:
            raise WrongChainError(f"a node is on chain {chain_id}, not on {self.token.chain_id}")
        return chain_id

    async def receipts(self, tx_hashes: Sequence[str]) -> dict[str, Receipt]:
        """The receipts of those transactions that the node has mined."""
        found: dict[str, Receipt] = {}
        for part in chunks(tx_hashes, MAX_BATCH):
            asked: list[Call] = [("eth_getTransactionReceipt", [tx_hash]) for tx_hash in part]
            parsers = [partial(replies.receipt, tx_hash=tx_hash) for tx_hash in part]
            for receipt in await self.ask(asked, parsers):
                if receipt is not None:
                    found[receipt.tx_hash] = receipt
        return found

    async def balances(self, accounts: Sequence[str], block_number: int) -> dict[str, int]:
        """Token units of each account at the end of a block, all from the same block."""
        wanted = [calls.balance_of(account) for account in accounts]
        words = await self._token_views(wanted, block_number)
        return dict(zip(accounts, map(calls.decode_uint, words), strict=True))

    async def authorizations_spent(
        self, payer_nonces: Sequence[tuple[str, str]], block_number: int
    ) -> list[bool]:
        """Whether each (payer, nonce) was used *or* cancelled by the end of a block."""
        wanted = [calls.authorization_state(payer, nonce) for payer, nonce in payer_nonces]
        words = await self._token_views(wanted, block_number)
        return [calls.decode_uint(word) == 1 for word in words]

    async def token_logs(
        self, topics: Sequence[str | Sequence[str] | None], first_block: int, last_block: int
    ) -> tuple[Log, ...]:
        """The token's logs with such topics, in the chain's order."""
        wanted = {
            "address": self.token.address,
            "topics": [list(t) if isinstance(t, tuple | list) else t for t in topics],
            "fromBlock": hex(first_block),
            "toBlock": hex(last_block),
        }
        (found,) = await self.read([("eth_getLogs", [wanted])], replies.logs)
        if any(log.address != self.token.address for log in found):
            raise ChainError("the node gave logs of another contract")
        if any(not first_block <= log.block_number <= last_block for log in found):
            raise ChainError("the node gave logs of other blocks")
        return found

    async def _token_views(self, wanted: Sequence[bytes], block_number: int) -> list[bytes | None]:
        results: list[bytes | None] = []
        for part in chunks(wanted, _BALANCES_PER_CALL):
            data = calls.aggregate3([(self.token.address, view) for view in part])
            reply = await self.view(self.multicall, data, hex(block_number))
            results += calls.decode_aggregate3(reply, len(part))
        return results

    async def view(self, contract: str, data: bytes, block: str = "latest") -> bytes:
        """What a contract's view returns; ChainError when it reverts."""
        asked = [("eth_call", [{"to": contract, "data": "0x" + data.hex()}, block])]
        (result,) = await self.read(asked, replies.data_bytes)
        return result

    async def read(self, asked: Sequence[Call], parse: Callable[[object], T]) -> list[T]:
        """The same parser for the results of all calls: see `ask`."""
        return await self.ask(asked, [parse] * len(asked))

    async def ask(self, asked: Sequence[Call], parsers: Sequence[Callable[[object], T]]) -> list[T]:
        """Parsed results of all calls, from the first node that gives them all in good form.

        A parser raises ChainError for what it cannot believe; then the next node is asked.
        """
        failure = ChainError("no node is configured")
        for node in list(self._nodes):
            try:
                return await self._ask_node(node, asked, parsers)
            except ChainError as exc:
                failure = exc
                self._note(node, exc)
                # Whoever failed is asked last from now on.
                self._nodes.remove(node)
                self._nodes.append(node)
        raise failure

    async def _ask_node(
        self, node: Node, asked: Sequence[Call], parsers: Sequence[Callable[[object], T]]
    ) -> list[T]:
        await self.check_node(node)
        self.rpc_calls += len(asked)
        answers = await node.batch(asked)
        return [parse(result_of(it)) for parse, it in zip(parsers, answers, strict=True)]

    async def check_node(self, node: Node) -> None:
        """A node of another chain must not be heeded: whoever failed before is asked again."""
        if node.checked:
            return
        self.rpc_calls += 1
        (answer,) = await node.batch([("eth_chainId", [])])
        chain_id = replies.quantity(result_of(answer))
        if chain_id != self.token.chain_id:
            raise WrongChainError(
                f"node {node.name} is on chain {chain_id}, not on {self.token.chain_id}"
            )
        node.checked = True

    def check_again(self) -> None:
        """Have every node say its chain's id before it is asked anything else."""
        for node in self._nodes:
            node.checked = False

    def _note(self, node: Node, exc: ChainError) -> None:
        """A node that failed may come back as another one; that it failed is said once. One that
        says that a call reverts is well."""
        if classify(exc.reply) is SendClass.PERMANENT:
            return
        node.checked = False
        if self._told.is_new((node.name, exc.message), self._clock.monotonic_s()):
            _log.warning("settle.node_failed", node=node.name, reason=exc.message)

    # --- sending ------------------------------------------------------------------------------

    async def send(self, transactions: Sequence[SignedTransaction]) -> list[SendOutcome]:
        """Offer up to MAX_BATCH transactions in nonce order to every node; the best answer counts.

        Never raises for what a node does: no answer is an outcome too, an ambiguous one.
        """
        if len(transactions) > MAX_BATCH:
            raise ValueError(f"at most {MAX_BATCH} transactions a batch")
        answers = await asyncio.gather(*(self._send_to(node, transactions) for node in self._nodes))
        return [_best(outcomes) for outcomes in zip(*answers, strict=True)]

    async def _send_to(
        self, node: Node, transactions: Sequence[SignedTransaction]
    ) -> list[SendOutcome]:
        asked: list[Call] = [
            ("eth_sendRawTransaction", ["0x" + item.raw.hex()]) for item in transactions
        ]
        try:
            await self.check_node(node)
            self.rpc_calls += len(asked)
            answers = await node.batch(asked)
        except ChainError as exc:
            self._note(node, exc)
            is_strange = isinstance(exc, WrongChainError)
            meaning = SendClass.WRONG_CHAIN if is_strange else classify(exc.reply)
            whole = SendOutcome(meaning, exc.reply.text[:200])
            return [whole] * len(transactions)
        outcomes = [_outcome(sent, got) for sent, got in zip(transactions, answers, strict=True)]
        if any(outcome.meaning is SendClass.WRONG_CHAIN for outcome in outcomes):
            node.checked = False
        return outcomes


def _outcome(sent: SignedTransaction, answer: Answer) -> SendOutcome:
    """TAKEN only for the hash of exactly these bytes: anything else proves nothing."""
    error = error_of(answer)
    if error is not None:
        return SendOutcome(classify(error), error.text)
    result = answer.get("result") if answer is not None else None
    if isinstance(result, str) and result.lower() == sent.tx_hash:
        return SendOutcome(SendClass.TAKEN)
    return SendOutcome(SendClass.AMBIGUOUS, "no answer with this transaction's hash")


def _best(outcomes: Sequence[SendOutcome]) -> SendOutcome:
    """One node's yes is enough; that it can never run is believed only when all say so."""
    return min(outcomes, key=_rank)


def _rank(outcome: SendOutcome) -> int:
    if outcome.meaning in IN_POOL:
        return 0
    last = (SendClass.AMBIGUOUS, SendClass.WRONG_CHAIN, SendClass.PERMANENT)
    return 1 if outcome.meaning not in last else 2 + last.index(outcome.meaning)


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """The items in order, so many at a time."""
    return [items[start : start + size] for start in range(0, len(items), size)]

"""The way to the nodes: questions to the chain, transactions to its pools.

The only module that imports web3. Answers for time-outs, the size of an answer, batches, and which
node is asked; `replies` turns JSON into facts and `errors` reads a node's words. It decides
nothing about payments. All calls go through `make_batch_request`: one HTTP request for several
questions, a fifth of the cost per transaction of sending one by one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import aiohttp
import structlog
from web3 import AsyncHTTPProvider
from web3.exceptions import Web3Exception
from web3.types import RPCEndpoint

from taprail_common.eip3009 import domain_separator
from taprail_common.errors import OperatorError
from taprail_common.money import MAX_DECIMALS
from taprail_gateway.settle import calls, replies
from taprail_gateway.settle.errors import IN_POOL, ChainError, NodeReply, SendClass, classify
from taprail_gateway.settle.replies import Block, Log, Receipt
from taprail_gateway.settle.settings import ChainSettings
from taprail_gateway.settle.signer import SignedTransaction

# web3 brings py_ecc, which raises the recursion limit of the whole process to 100,000. At that
# depth json's decoder overruns the C stack: a body of nested brackets, from a node or from anybody
# who posts one, would end the gateway. CPython's own default is enough for everything here.
sys.setrecursionlimit(1_000)

# A node takes 50 to 100 calls a request best (measured); many providers refuse more than 100.
MAX_BATCH: Final = 50
# 500 balances make a 48 kB question and some 130 kB of answer, in about 4 ms.
_BALANCES_PER_CALL: Final = 500
# Receipts of 50 full batches of 50 payments are about 4 MB; far more is no answer to a question.
MAX_REPLY_BYTES: Final = 32 * 1024 * 1024
_READ_BYTES: Final = 64 * 1024
# A node that is there answers the connection at once; the rest of the time is for the answer.
_CONNECTIONS_PER_NODE: Final = 8

Call = tuple[str, list[Any]]
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

    @property
    def in_pool(self) -> bool:
        """Whether the transaction counts as sent."""
        return self.meaning in IN_POOL


class _ReplyTooLargeError(aiohttp.ClientError):
    """More bytes than any answer to our questions has."""


class _BoundedResponse(aiohttp.ClientResponse):
    """A response that stops reading when it has read too much."""

    async def read(self) -> bytes:
        body = bytearray()
        async for chunk in self.content.iter_chunked(_READ_BYTES):
            body += chunk
            if len(body) > MAX_REPLY_BYTES:
                self.close()
                raise _ReplyTooLargeError(f"the answer exceeds {MAX_REPLY_BYTES} bytes")
        return bytes(body)


class _Node:
    """One URL. `batch` gives one answer per call, in order, whatever the node does to the order."""

    def __init__(self, url: str, timeout_ms: int) -> None:
        self.url = url
        timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000)
        # Our callers decide what is tried again: a library that repeats a call hides an outage.
        self._provider = AsyncHTTPProvider(
            url, request_kwargs={"timeout": timeout}, exception_retry_configuration=None
        )
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Give the provider a session that keeps connections alive and bounds what it reads."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS_PER_NODE),
            response_class=_BoundedResponse,
            raise_for_status=True,
        )
        await self._provider.cache_async_session(self._session)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        # The provider's pool of threads serves its locks; web3 has no call that ends it.
        self._provider._request_session_manager.session_pool.shutdown(wait=False)

    async def batch(self, asked: Sequence[Call]) -> list[Mapping[str, Any] | None]:
        """The JSON-RPC answer to each call, None where there is none; ChainError for no answer."""
        # The provider numbers the calls of a batch from here on, before it first awaits.
        first_id = next(self._provider.request_counter) + 1
        try:
            answer = await self._provider.make_batch_request(
                [(RPCEndpoint(method), params) for method, params in asked]
            )
        except aiohttp.ClientResponseError as exc:
            raise self._failed(NodeReply(exc.status, f"HTTP {exc.status}")) from exc
        except (OSError, aiohttp.ClientError, Web3Exception) as exc:
            raise self._failed(NodeReply(None, type(exc).__name__)) from exc
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as exc:
            # Garbage reaches web3's decoding and sorting, which expect JSON-RPC.
            raise self._failed(NodeReply(None, "the answer is not JSON-RPC")) from exc
        if not isinstance(answer, list):
            raise self._failed(_error_of(answer) or NodeReply(None, "the answer is no list"))
        by_id = {item.get("id"): item for item in answer if isinstance(item, dict)}
        return [by_id.get(first_id + position) for position in range(len(asked))]

    def _failed(self, reply: NodeReply) -> ChainError:
        return ChainError(f"node {self.url}: {reply.text[:200]}", reply=reply)


class Chain:
    """The chain with its token, over one or several nodes. Every method may raise ChainError."""

    def __init__(self, nodes: Sequence[_Node], token: TokenInfo, multicall: str) -> None:
        self._nodes = list(nodes)
        self.token = token
        self.multicall = multicall
        self.rpc_calls = 0

    @classmethod
    async def connect(cls, settings: ChainSettings) -> Chain:
        """Reach the nodes and check that this is the chain, and the token, that is meant.

        Raises OperatorError when it is not, ChainError when no node answers.
        """
        nodes = [_Node(url, settings.rpc_timeout_ms) for url in settings.rpc_urls]
        token = TokenInfo(settings.token.lower(), "", "", "", 0, b"", settings.chain_id)
        chain = cls(nodes, token, settings.multicall.lower())
        try:
            for node in nodes:
                await node.open()
            await chain._check_chain()
            chain.token = await chain._read_token()
        except BaseException:
            await chain.close()
            raise
        return chain

    async def close(self) -> None:
        """Close all connections."""
        for node in self._nodes:
            await node.close()

    # --- reading ------------------------------------------------------------------------------

    async def head(self) -> Block:
        """The newest block."""
        (block,) = await self._read([("eth_getBlockByNumber", ["latest", False])], replies.block)
        return block

    async def block(self, number: int) -> Block:
        """The block of this number; ChainError while the node has none."""
        asked = [("eth_getBlockByNumber", [hex(number), False])]
        (block,) = await self._read(asked, replies.block)
        if block.number != number:
            raise ChainError("the node gave another block")
        return block

    async def transaction_counts(self, address: str, block_numbers: Sequence[int]) -> list[int]:
        """How many of an address's transactions are mined up to each block."""
        asked = [("eth_getTransactionCount", [address, hex(number)]) for number in block_numbers]
        return await self._read(asked, replies.quantity)

    async def receipts(self, tx_hashes: Sequence[str]) -> dict[str, Receipt]:
        """The receipts of those transactions that the node has mined."""
        found: dict[str, Receipt] = {}
        for part in _chunks(tx_hashes, MAX_BATCH):
            answers = await self._ask([("eth_getTransactionReceipt", [item]) for item in part])
            for tx_hash, answer in zip(part, answers, strict=True):
                receipt = replies.receipt(answer, tx_hash)
                if receipt is not None:
                    found[tx_hash] = receipt
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
        (found,) = await self._read([("eth_getLogs", [wanted])], replies.logs)
        if any(log.address != self.token.address for log in found):
            raise ChainError("the node gave logs of another contract")
        return found

    async def _token_views(self, wanted: Sequence[bytes], block_number: int) -> list[bytes | None]:
        results: list[bytes | None] = []
        for part in _chunks(wanted, _BALANCES_PER_CALL):
            data = calls.aggregate3([(self.token.address, view) for view in part])
            reply = await self._view(self.multicall, data, hex(block_number))
            results += calls.decode_aggregate3(reply, len(part))
        return results

    async def _view(self, contract: str, data: bytes, block: str = "latest") -> bytes:
        asked = [("eth_call", [{"to": contract, "data": "0x" + data.hex()}, block])]
        (result,) = await self._read(asked, replies.data_bytes)
        return result

    async def _read(self, asked: Sequence[Call], parse: Callable[[object], T]) -> list[T]:
        return [parse(answer) for answer in await self._ask(asked)]

    async def _ask(self, asked: Sequence[Call]) -> list[object]:
        """Results of all calls, from the first node that gives them all."""
        self.rpc_calls += len(asked)
        failure = ChainError("no node is configured")
        for node in list(self._nodes):
            try:
                return [_result(answer) for answer in await node.batch(asked)]
            except ChainError as exc:
                failure = exc
                # Whoever failed is asked last from now on.
                self._nodes.remove(node)
                self._nodes.append(node)
        raise failure

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
        self, node: _Node, transactions: Sequence[SignedTransaction]
    ) -> list[SendOutcome]:
        self.rpc_calls += len(transactions)
        asked = [("eth_sendRawTransaction", ["0x" + item.raw.hex()]) for item in transactions]
        try:
            answers = await node.batch(asked)
        except ChainError as exc:
            whole = SendOutcome(classify(exc.reply), exc.reply.text[:200])
            return [whole] * len(transactions)
        return [_outcome(sent, got) for sent, got in zip(transactions, answers, strict=True)]

    # --- at start -----------------------------------------------------------------------------

    async def _check_chain(self) -> None:
        (chain_id,) = await self._read([("eth_chainId", [])], replies.quantity)
        if chain_id != self.token.chain_id:
            raise OperatorError(
                f"the node is on chain {chain_id}, not on {self.token.chain_id}",
                fix="check rpc_urls and chain_id",
            )
        for what, address in (("token", self.token.address), ("multicall", self.multicall)):
            asked = [("eth_getCode", [address, "latest"])]
            (code,) = await self._read(asked, replies.data_bytes)
            if not code:
                raise OperatorError(
                    f"there is no contract at the {what} address {address}",
                    fix=f"check {what} and chain_id",
                )

    async def _read_token(self) -> TokenInfo:
        address, chain_id = self.token.address, self.token.chain_id
        parts = (calls.NAME, calls.VERSION, calls.SYMBOL, calls.DECIMALS, calls.DOMAIN_SEPARATOR)
        try:
            name, version, symbol, decimals, separator = [
                await self._view(address, part) for part in parts
            ]
            token = TokenInfo(
                address=address,
                name=calls.decode_text(name),
                version=calls.decode_text(version),
                symbol=calls.decode_text(symbol),
                decimals=calls.decode_uint(decimals),
                domain_separator=separator,
                chain_id=chain_id,
            )
        except ChainError as exc:
            if exc.reply.code is None and exc.reply.text != exc.message:
                raise  # no node answered: that says nothing about the token
            raise OperatorError(
                f"the contract at {address} is no EIP-3009 token ({exc.message})",
                fix="check token and chain_id",
            ) from exc
        _check_token(token)
        return token


def _check_token(token: TokenInfo) -> None:
    expected = domain_separator(token.name, token.version, token.chain_id, token.address)
    if token.domain_separator != expected:
        raise OperatorError(
            f"the token at {token.address} has a DOMAIN_SEPARATOR() that does not match its name, "
            "version, chain and address",
            fix="this token cannot be used: signatures for it would not hold",
        )
    if token.decimals > MAX_DECIMALS:
        raise OperatorError(
            f"the token {token.symbol} has {token.decimals} decimals, more than {MAX_DECIMALS}",
            fix="use a token with at most 6, like USDC",
        )


def _error_of(answer: object) -> NodeReply | None:
    if not isinstance(answer, dict) or not isinstance(answer.get("error"), dict):
        return None
    code, text = answer["error"].get("code"), answer["error"].get("message")
    return NodeReply(code if isinstance(code, int) else 0, str(text)[:500])


def _result(answer: Mapping[str, Any] | None) -> object:
    if answer is None:
        raise ChainError("the node left a call of the batch unanswered")
    error = _error_of(answer)
    if error is not None:
        raise ChainError(f"the node refused a call: {error.text[:200]}", reply=error)
    if "result" not in answer:
        raise ChainError("the node gave neither a result nor an error")
    return answer["result"]


def _outcome(sent: SignedTransaction, answer: Mapping[str, Any] | None) -> SendOutcome:
    """TAKEN only for the hash of exactly these bytes: anything else proves nothing."""
    error = _error_of(answer)
    if error is not None:
        return SendOutcome(classify(error), error.text[:200])
    result = answer.get("result") if answer is not None else None
    if isinstance(result, str) and result.lower() == sent.tx_hash:
        return SendOutcome(SendClass.TAKEN)
    return SendOutcome(SendClass.AMBIGUOUS, "no answer with this transaction's hash")


def _best(outcomes: Sequence[SendOutcome]) -> SendOutcome:
    """One node's yes is enough; else what a node really said tells more than silence."""
    for outcome in outcomes:
        if outcome.in_pool:
            return outcome
    said = [item for item in outcomes if item.meaning is not SendClass.AMBIGUOUS]
    return (said or list(outcomes))[0]


def _chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]

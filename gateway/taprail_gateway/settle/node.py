"""One node: JSON-RPC over HTTP in batches, bounded in time and in size.

The only module that imports web3. It knows nothing of what is asked. All calls go through
`make_batch_request`: one HTTP request for several questions, and a fifth of the cost per
transaction of sending one by one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from web3 import AsyncHTTPProvider
from web3.exceptions import Web3Exception
from web3.types import RPCEndpoint

from taprail_gateway.settle.errors import ChainError, NodeReply

# web3 brings py_ecc, which raises the recursion limit of the whole process to 100,000. At that
# depth json's decoder overruns the C stack: a body of nested brackets, from a node or from anybody
# who posts one, would end the gateway. CPython's own default is enough for everything here.
sys.setrecursionlimit(1_000)

# Receipts of 50 full batches of 50 payments are about 4 MB; far more is no answer to a question.
MAX_REPLY_BYTES: Final = 32 * 1024 * 1024
_READ_BYTES: Final = 64 * 1024
_CONNECTIONS: Final = 8
_SHOWN_CHARS: Final = 200

Call = tuple[str, list[Any]]
Answer = Mapping[str, Any] | None
"""A JSON-RPC answer; None where the node gave none."""


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
                raise _ReplyTooLargeError
        return bytes(body)


class Node:
    """One URL. `checked` is set by whoever has seen that it is on the right chain."""

    def __init__(self, url: str, timeout_ms: int) -> None:
        # A provider's URL often holds a secret in its path or its user part: show neither.
        self.name = urlsplit(url).netloc.rpartition("@")[2]
        self.checked = False
        timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000)
        # Our callers decide what is tried again: a library that repeats a call hides an outage.
        self._provider = AsyncHTTPProvider(
            url, request_kwargs={"timeout": timeout}, exception_retry_configuration=None
        )
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Give the provider a session that keeps connections alive and bounds what it reads."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
            response_class=_BoundedResponse,
            raise_for_status=True,
        )
        # web3 looks its session up under a lock that a thread waits for. A call that is cancelled
        # meanwhile never gives that lock back, and every later call would hang.
        manager: Any = self._provider._request_session_manager
        manager.async_cache_and_return_session = self._our_session

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
        # The provider's pool of threads serves its locks; web3 has no call that ends it.
        self._provider._request_session_manager.session_pool.shutdown(wait=False)

    async def _our_session(self, *_: object, **__: object) -> aiohttp.ClientSession | None:
        return self._session

    async def batch(self, asked: Sequence[Call]) -> list[Answer]:
        """One answer per call, in order, whatever the node did to the order; or ChainError."""
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
            raise self._failed(error_of(answer) or NodeReply(None, "the answer is no list"))
        by_id = {
            item["id"]: item
            for item in answer
            if isinstance(item, dict) and isinstance(item.get("id"), int)
        }
        return [by_id.get(first_id + position) for position in range(len(asked))]

    def _failed(self, reply: NodeReply) -> ChainError:
        return ChainError(f"node {self.name}: {reply.text[:_SHOWN_CHARS]}", reply=reply)


def error_of(answer: object) -> NodeReply | None:
    """The error in a JSON-RPC answer, if it is one."""
    if not isinstance(answer, dict) or not isinstance(answer.get("error"), dict):
        return None
    code, text = answer["error"].get("code"), answer["error"].get("message")
    return NodeReply(code if isinstance(code, int) else None, str(text)[:_SHOWN_CHARS])


def result_of(answer: Answer) -> object:
    """What a call gave; ChainError when it was refused or left unanswered."""
    if answer is None:
        raise ChainError("a node left a call of a batch unanswered")
    error = error_of(answer)
    if error is not None:
        raise ChainError(f"a node refused a call: {error.text}", reply=error)
    if "result" not in answer:
        raise ChainError("a node gave neither a result nor an error")
    return answer["result"]

"""The proxy's HTTP edge: takes requests, asks the node, answers, and notes what it has injected.

Everything is bounded: bodies, exchanges under way, what is remembered. A client that vanishes ends
only its own answer; what it asked for still reaches the node, as it would on a real wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from aiohttp import web

from taprail_hwsim.rpc_proxy.decide import Meeting, Rule, choose
from taprail_hwsim.rpc_proxy.exchange import Call, Ending, Exchange, put_answers, take_apart
from taprail_hwsim.rpc_proxy.table import parse_rule

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""Of a request and of a node's answer: a page of a busy block's logs is some 3 MB."""
_MAX_UNDER_WAY: Final = 512
_MAX_NOTES: Final = 100_000
_NODE_TIMEOUT_S: Final = 60.0
"""Longer than any client waits, so that it is the client who gives up."""
_CHUNK_BYTES: Final = 256 * 1024


@dataclass(frozen=True)
class Injection:
    """A fault that was injected: when (monotonic seconds), which, into which calls."""

    at_s: float
    fault: str
    methods: tuple[str, ...]


class RpcProxy:
    """Use as `async with RpcProxy(node_url, seed=7) as proxy`; clients then use `proxy.url`.

    `node_url` may be changed at any time, when the node has come back elsewhere.
    """

    def __init__(
        self, node_url: str, *, seed: int = 0, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.node_url = node_url
        self.url = ""
        self.rules: list[Rule] = []
        self.injected: deque[Injection] = deque(maxlen=_MAX_NOTES)
        self.calls: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._place = (host, port)
        self._listeners: list[Callable[[Injection], None]] = []
        self._under_way: set[asyncio.Task[Exchange]] = set()
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._room = asyncio.Semaphore(_MAX_UNDER_WAY)
        self._closing = asyncio.Event()
        self._session: aiohttp.ClientSession
        self._runner: web.AppRunner

    # --- what is injected -------------------------------------------------------------------------

    def inject(self, *rules: Rule | str) -> list[Rule]:
        """Add rules, as objects or as text (see `parse_rule`); gives them, to be withdrawn."""
        added = [parse_rule(rule) if isinstance(rule, str) else rule for rule in rules]
        self.rules += added
        return added

    def withdraw(self, rules: Sequence[Rule]) -> None:
        """Take rules away again. What hangs or travels already is not touched."""
        self.rules = [rule for rule in self.rules if rule not in rules]

    def listen(self, listener: Callable[[Injection], None]) -> None:
        """Be told of each injection."""
        self._listeners.append(listener)

    async def quiet(self) -> None:
        """Wait until nothing is under way and nobody hangs on it any more."""
        await self._idle.wait()

    # --- life -------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_NODE_TIMEOUT_S),
            connector=aiohttp.TCPConnector(limit=_MAX_UNDER_WAY),
        )
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, *self._place).start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        await self._runner.cleanup()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._session.close()

    # --- one request ------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        taken = take_apart(body)
        if taken is None:
            error = {"code": -32700, "message": "not JSON-RPC"}
            return web.json_response({"jsonrpc": "2.0", "id": None, "error": error})
        calls, is_batch, asked = taken
        self.calls.update(call.method for call in calls)
        exchange = Exchange(calls, is_batch, self._random, self._ask, asked=asked)
        # A task of its own: a client that goes away must not take back what it has asked for.
        task = asyncio.create_task(self._carry(exchange))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await self._end(request, await asyncio.shield(task))

    async def _carry(self, exchange: Exchange) -> Exchange:
        """Take an exchange to the node and back, through its faults."""
        try:
            with self._counted():
                async with self._room:
                    await self._through_faults(exchange)
        except (OSError, aiohttp.ClientError, TimeoutError, ValueError):
            # The node is away or talks nonsense: without a fault a client would see the same.
            if exchange.ending is Ending.ANSWER and exchange.body is None:
                exchange.ending = Ending.HANG_UP
        return exchange

    async def _through_faults(self, exchange: Exchange) -> None:
        met = self._meet(exchange, answered=False)
        for rule, calls in met:
            await rule.fault.before(exchange, calls)
        await asyncio.sleep(exchange.delay_s)
        if not exchange.is_heard:
            return
        open_calls = [call for call in exchange.calls if call.answer is None]
        for _ in range(exchange.copies):
            await self._ask_node(open_calls, exchange.is_batch)
        met += self._meet(exchange, answered=True)
        for rule, calls in sorted(met, key=lambda meeting: meeting.rank):
            await rule.fault.after(exchange, calls)

    def _meet(self, exchange: Exchange, *, answered: bool) -> list[Meeting]:
        met = choose(self.rules, exchange.calls, self._random, answered=answered)
        for rule, calls in met:
            methods = tuple(sorted({call.method for call in calls}))
            injection = Injection(time.monotonic(), rule.name, methods)
            self.injected.append(injection)
            for listener in self._listeners:
                listener(injection)
        return met

    async def _ask_node(self, calls: Sequence[Call], is_batch: bool) -> None:
        if calls:
            requests = [call.request for call in calls]
            put_answers(calls, await self._post(requests if is_batch else requests[0]))

    async def _ask(self, method: str, *params: Any) -> Any:
        """A fault's own question."""
        call = Call({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})
        put_answers([call], await self._post(call.request))
        return call.result

    async def _post(self, document: Any) -> Any:
        async with self._session.post(self.node_url, json=document) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise ValueError("the node's answer is too large")
            return json.loads(bytes(body))

    # --- its end ----------------------------------------------------------------------------------

    async def _end(self, request: web.Request, exchange: Exchange) -> web.StreamResponse:
        if exchange.ending is Ending.HANG:
            with self._counted():
                await self._closing.wait()  # or until the client goes, which cancels this
        if exchange.ending is not Ending.ANSWER:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        body = exchange.answer_bytes()
        body = body[: int(len(body) * exchange.cut)]
        if exchange.padding_bytes:
            return await _pour(request, exchange, body)
        return web.Response(body=body, status=exchange.status, content_type=_type_of(exchange))

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """What `quiet` waits for."""
        self._busy += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()


async def _pour(request: web.Request, exchange: Exchange, body: bytes) -> web.StreamResponse:
    """Send the padding before the body, in pieces; a client that has had enough may go."""
    response = web.StreamResponse(status=exchange.status)
    response.content_type = _type_of(exchange)
    try:
        await response.prepare(request)
        blanks = b" " * _CHUNK_BYTES
        for _ in range(exchange.padding_bytes // _CHUNK_BYTES):
            await response.write(blanks)
        await response.write(body)
        await response.write_eof()
    except ConnectionError:
        if request.transport is not None:
            request.transport.abort()
    return response


def _type_of(exchange: Exchange) -> str:
    return "application/json" if exchange.body is None else "text/html"

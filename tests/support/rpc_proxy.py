"""A proxy before a node that loses requests or replies, or answers in the node's place."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

Answer = Callable[[Any], Any]
"""Makes a reply of the request's JSON: bytes as they are, an int as HTTP status, else JSON."""

SEND = "eth_sendRawTransaction"


class RpcProxy:
    """Faults apply to the next requests that hold a call of the method, one each, then end."""

    def __init__(self, node_url: str) -> None:
        self.node_url = node_url
        self.url = ""
        self._faults: list[tuple[str, str, Answer | None]] = []
        self.calls: list[str] = []

    def lose_request(self, method: str = SEND, times: int = 1) -> None:
        """The node never hears of it."""
        self._faults += [("lose_request", method, None)] * times

    def lose_reply(self, method: str = SEND, times: int = 1) -> None:
        """The node does it, and nobody hears of that."""
        self._faults += [("lose_reply", method, None)] * times

    def answer(self, answer: Answer, method: str = SEND, times: int = 1) -> None:
        """Answer in the node's place."""
        self._faults += [("answer", method, answer)] * times

    def change(self, answer: Answer, method: str = SEND, times: int = 1) -> None:
        """Ask the node, and give something else: made out of its answer."""
        self._faults += [("change", method, answer)] * times

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One HTTP request of a client."""
        body = await request.read()
        asked = json.loads(body)
        methods = [call["method"] for call in (asked if isinstance(asked, list) else [asked])]
        self.calls += methods
        kind, answer = self._next_fault(methods)
        if kind == "lose_request":
            return _hang_up(request)
        if kind == "answer" and answer is not None:
            return _reply(answer(asked))
        given = await self._forward(body)
        if kind == "lose_reply":
            return _hang_up(request)
        if kind == "change" and answer is not None:
            return _reply(answer(json.loads(given)))
        return _reply(given)

    def _next_fault(self, methods: list[str]) -> tuple[str, Answer | None]:
        for fault in self._faults:
            if fault[1] in methods:
                self._faults.remove(fault)
                return fault[0], fault[2]
        return "", None

    async def _forward(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(self.node_url, data=body, headers=headers) as response,
        ):
            return await response.read()


def _hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _reply(given: Any) -> web.StreamResponse:
    if isinstance(given, int):
        return web.Response(status=given)
    body = given if isinstance(given, bytes) else json.dumps(given).encode()
    return web.Response(body=body, content_type="application/json")


@asynccontextmanager
async def running_proxy(node_url: str) -> AsyncIterator[RpcProxy]:
    """A proxy on an ephemeral port."""
    proxy = RpcProxy(node_url)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/", proxy.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    proxy.url = f"http://{host}:{port}"
    try:
        yield proxy
    finally:
        await runner.cleanup()

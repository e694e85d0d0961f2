"""The fault-injecting proxy with faults that a test writes by itself, one after the other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from taprail_hwsim.rpc_proxy import Call, Exchange, Fault, Rule
from taprail_hwsim.rpc_proxy import RpcProxy as NamedFaultsProxy
from taprail_hwsim.rpc_proxy.exchange import Ending

Answer = Callable[[Any], Any]
"""Makes a reply of the request's JSON: bytes as they are, an int as HTTP status, else JSON."""

SEND = "eth_sendRawTransaction"


@dataclass
class _Step:
    """What happens to the next request that holds a call of the method."""

    method: str
    is_heard: bool
    answer: Answer | None


class _Script(Fault):
    """Steps that a test has written down; each is done once."""

    rank = 3

    def __init__(self) -> None:
        self.steps: list[_Step] = []
        self._changing: dict[int, Answer] = {}

    def wants(self, call: Call) -> bool:
        return any(step.method == call.method for step in self.steps)

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        methods = [call.method for call in calls]
        step = next(step for step in self.steps if step.method in methods)
        self.steps.remove(step)
        exchange.is_heard = step.is_heard
        if step.answer is None:
            exchange.ending = Ending.HANG_UP
        elif step.is_heard:
            self._changing[id(exchange)] = step.answer
        else:
            _reply(exchange, step.answer(exchange.asked))

    async def after(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        change = self._changing.pop(id(exchange), None)
        if change is not None:
            _reply(exchange, change(json.loads(exchange.answer_bytes())))


def _reply(exchange: Exchange, given: Any) -> None:
    if isinstance(given, int):
        exchange.status, exchange.body = given, b""
    else:
        exchange.body = given if isinstance(given, bytes) else json.dumps(given).encode()


class RpcProxy(NamedFaultsProxy):
    """Faults apply to the next requests that hold a call of the method, one each, then end."""

    def __init__(self, node_url: str) -> None:
        super().__init__(node_url)
        self._script = _Script()
        self.inject(Rule("script", self._script))

    def lose_request(self, method: str = SEND, times: int = 1) -> None:
        """The node never hears of it."""
        self._write(method, times, is_heard=False)

    def lose_reply(self, method: str = SEND, times: int = 1) -> None:
        """The node does it, and nobody hears of that."""
        self._write(method, times, is_heard=True)

    def answer(self, answer: Answer, method: str = SEND, times: int = 1) -> None:
        """Answer in the node's place."""
        self._write(method, times, is_heard=False, answer=answer)

    def change(self, answer: Answer, method: str = SEND, times: int = 1) -> None:
        """Ask the node, and give something else: made out of its answer."""
        self._write(method, times, is_heard=True, answer=answer)

    def _write(
        self, method: str, times: int, *, is_heard: bool, answer: Answer | None = None
    ) -> None:
        self._script.steps += [_Step(method, is_heard, answer) for _ in range(times)]


@asynccontextmanager
async def running_proxy(node_url: str) -> AsyncIterator[RpcProxy]:
    """A proxy on an ephemeral port."""
    async with RpcProxy(node_url) as proxy:
        yield proxy

"""Faults of the wire and of what stands before a node: each meets an HTTP request as a whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from taprail_hwsim.rpc_proxy.exchange import Call, Ending, Exchange, Fault

_BATCH_RANK = 1
_BYTES_RANK = 2
_WIRE_RANK = 3
_PAGE = b"<html><head><title>Bad gateway</title></head><body>nginx</body></html>"
_MIB = 1024 * 1024


@dataclass
class DropRequest(Fault):
    """The connection is cut before the node hears of the request."""

    rank = _WIRE_RANK

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        exchange.is_heard = False
        exchange.ending = Ending.HANG_UP


@dataclass
class DropReply(Fault):
    """The node does what it is asked, and the connection is cut before its answer."""

    rank = _WIRE_RANK

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        exchange.ending = Ending.HANG_UP


@dataclass
class Delay(Fault):
    """The request travels for `ms` before the node gets it, even when the client has gone."""

    ms: int = 500
    rank = _WIRE_RANK

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        exchange.delay_s += self.ms / 1000


@dataclass
class Duplicate(Fault):
    """The node gets the request twice, and the client the second answer."""

    rank = _WIRE_RANK

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        exchange.copies += 1


@dataclass
class Hang(Fault):
    """The request is taken and never answered; with `heard=1` the node does it."""

    heard: int = 0
    rank = _WIRE_RANK

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        exchange.is_heard = exchange.is_heard and bool(self.heard)
        exchange.ending = Ending.HANG


@dataclass
class TooManyRequests(Fault):
    """HTTP 429: a provider's rate limit; the node does not hear of the request."""

    rank = _WIRE_RANK

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        exchange.is_heard = False
        exchange.status = HTTPStatus.TOO_MANY_REQUESTS
        error = {"code": -32005, "message": "Too Many Requests"}
        exchange.body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()


@dataclass
class BadGateway(Fault):
    """HTTP 502 with a page of HTML; with `heard=1` the node has done it all the same."""

    heard: int = 0
    rank = _WIRE_RANK

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        exchange.is_heard = exchange.is_heard and bool(self.heard)
        exchange.status = HTTPStatus.BAD_GATEWAY
        exchange.body = _PAGE


@dataclass
class Reorder(Fault):
    """A batch's calls reach the node in another order, and are answered in that one."""

    rank = _BATCH_RANK

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        order = list(exchange.calls)
        exchange.random.shuffle(order)
        exchange.calls = order if order != exchange.calls else order[::-1]


@dataclass
class PartialBatch(Fault):
    """Answers of a batch are missing, at least one of them, though the node has done it all."""

    rank = _BATCH_RANK

    async def after(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        missing = exchange.random.randint(1, len(exchange.calls))
        for call in exchange.random.sample(exchange.calls, missing):
            call.answer = None


@dataclass
class HugeReply(Fault):
    """The true answer comes after `mib` mebibytes of blanks: valid JSON without a sensible end."""

    mib: int = 64
    rank = _BYTES_RANK

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        exchange.padding_bytes = self.mib * _MIB


@dataclass
class TruncatedJson(Fault):
    """The answer's bytes end in the middle, in a response that is whole by its headers."""

    rank = _BYTES_RANK

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        exchange.cut = exchange.random.uniform(0.1, 0.9)


@dataclass
class Garbage(Fault):
    """HTTP 200 with a page of HTML in place of the answer, though the node has done it."""

    rank = _BYTES_RANK

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        exchange.body = _PAGE

"""One HTTP request of JSON-RPC on its way through the proxy, and the form that every fault has.

Answers for taking a request apart and for putting its answer together. It knows no fault: faults
change an `Exchange` before the node is asked and after it has answered.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

Answer = dict[str, Any]
"""A JSON-RPC answer: `jsonrpc`, `id`, and `result` or `error`."""

Ask = Callable[..., Awaitable[Any]]
"""Asks the node a question of the fault's own: (method, *params) -> result, None if refused."""


class Ending(Enum):
    """How the client's request ends."""

    ANSWER = "answer"
    HANG_UP = "hang up"
    HANG = "hang"


@dataclass(slots=True)
class Call:
    """One call. With an answer before the node is asked, the node is not asked."""

    request: dict[str, Any]
    answer: Answer | None = None

    @property
    def method(self) -> str:
        return str(self.request.get("method", ""))

    @property
    def params(self) -> list[Any]:
        params = self.request.get("params")
        return params if isinstance(params, list) else []

    @property
    def result(self) -> Any:
        """What the node gave; None too when it refused."""
        return None if self.answer is None else self.answer.get("result")

    def ask_with(self, params: Sequence[Any]) -> None:
        """Let the node be asked something else than the client did."""
        self.request = {**self.request, "params": list(params)}

    def give(self, result: Any) -> None:
        """Answer with a result."""
        self.answer = {"jsonrpc": "2.0", "id": self.request.get("id"), "result": result}

    def refuse(self, code: int, message: str) -> None:
        """Answer with an error."""
        error = {"code": code, "message": message}
        self.answer = {"jsonrpc": "2.0", "id": self.request.get("id"), "error": error}


@dataclass
class Exchange:
    """A request and what becomes of it. The defaults are those of a wire without faults."""

    calls: list[Call]
    """In the order in which the node gets them, and the client their answers."""
    is_batch: bool
    random: random.Random
    ask: Ask
    is_heard: bool = True
    """Whether the node is asked at all."""
    copies: int = 1
    delay_s: float = 0.0
    ending: Ending = Ending.ANSWER
    status: int = 200
    body: bytes | None = None
    """What is answered instead of the calls' answers."""
    cut: float = 1.0
    """How much of the body arrives."""
    padding_bytes: int = 0
    asked: Any = field(default=None, repr=False)
    """The request's JSON as it came."""

    def answer_bytes(self) -> bytes:
        """The body of the answer; a call without an answer is left out of a batch."""
        if self.body is not None:
            return self.body
        answers = [call.answer for call in self.calls if call.answer is not None]
        document: Any = answers if self.is_batch else next(iter(answers), {})
        return json.dumps(document, separators=(",", ":")).encode()


class Fault:
    """One kind of fault. A subclass's docstring is the sentence that people read about it.

    Its parameters are the fields of its dataclass. A fault of a call is drawn for each call by
    itself, one of the wire once for each HTTP request that holds such a call.
    """

    methods: ClassVar[tuple[str, ...]] = ()
    """Which calls it meets unless its rule says otherwise; empty: all."""
    is_per_call: ClassVar[bool] = False
    is_of_answer: ClassVar[bool] = False
    """Drawn when the node has answered, so that `wants` can look at the answer."""
    rank: ClassVar[int] = 0
    """Several faults of one exchange act in this order: calls, batch, bytes, wire."""

    def wants(self, call: Call) -> bool:
        """Whether it can bite here at all; what it does not want is not counted."""
        return True

    def goes_on(self, call: Call) -> bool:
        """Whether it has begun with an earlier call and goes on with this one, without a draw."""
        return False

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        """Act before the node is asked."""

    async def after(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        """Act on what the node has answered."""


def take_apart(body: bytes) -> tuple[list[Call], bool, Any] | None:
    """The calls of a request, whether it is a batch, and its JSON; None for no JSON-RPC."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    is_batch = isinstance(document, list)
    requests = document if is_batch else [document]
    if not requests or not all(isinstance(request, dict) for request in requests):
        return None
    return [Call(request) for request in requests], is_batch, document


def put_answers(calls: Sequence[Call], given: Any) -> None:
    """Give each call its answer out of what a node gave to all of them.

    An error for the whole batch is everybody's; raises ValueError for what is no JSON-RPC.
    """
    if isinstance(given, dict):
        answers = [given] * len(calls)
    elif isinstance(given, list) and all(isinstance(item, dict) for item in given):
        by_id = {json.dumps(item.get("id")): item for item in given}
        answers = [by_id.get(json.dumps(call.request.get("id")), {}) for call in calls]
    else:
        raise ValueError("the node's answer is no JSON-RPC")
    for call, answer in zip(calls, answers, strict=True):
        call.answer = {**answer, "id": call.request.get("id")} if answer else None

"""One broadcast at a time, in order, and none left running when the block is left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from taprail_gateway.settle.broadcast import Obstacle, StoredTransaction
from taprail_gateway.settle.chain import SendOutcome
from taprail_gateway.settle.errors import SendClass
from taprail_gateway.settle.outbound import Outbound
from taprail_gateway.settle.signer import SignedTransaction

OBSTACLE = Obstacle(
    StoredTransaction(1, 0, SignedTransaction("0x01", b"\1")), SendOutcome(SendClass.FUNDS, "none")
)


class Wire:
    """Where it is sent: each waits until it is let go."""

    def __init__(self) -> None:
        self.begun: list[list[int]] = []
        self.done: list[list[int]] = []
        self.has_begun = asyncio.Event()
        self.may_go = asyncio.Event()
        self.answer: Obstacle | None = None

    async def send(self, items: Sequence[int]) -> Obstacle | None:
        self.begun.append(list(items))
        self.has_begun.set()
        await self.may_go.wait()
        self.done.append(list(items))
        return self.answer


async def test_what_is_put_is_out_when_the_block_is_left() -> None:
    wire = Wire()
    async with Outbound(wire.send) as outbound:
        outbound.put([1, 2])
        await wire.has_begun.wait()
        wire.may_go.set()
    assert wire.done == [[1, 2]]


async def test_nothing_is_put_on_top_of_what_is_on_its_way() -> None:
    wire = Wire()
    wire.may_go.set()
    async with Outbound(wire.send) as outbound:
        outbound.put([1])
        with pytest.raises(RuntimeError, match="on its way"):
            outbound.put([2])
        assert await outbound.settled() is None
        outbound.put([])
        outbound.put([3])
    assert wire.done == [[1], [3]]


async def test_an_obstacle_is_told_of_until_something_else_was_taken() -> None:
    wire = Wire()
    wire.may_go.set()
    async with Outbound(wire.send) as outbound:
        wire.answer = OBSTACLE
        outbound.put([1])
        assert await outbound.settled() is OBSTACLE
        assert await outbound.settled() is OBSTACLE
        wire.answer = None
        outbound.put([2])
        assert await outbound.settled() is None


async def test_a_failure_outside_waits_for_what_is_on_its_way_and_comes_out() -> None:
    wire = Wire()
    wire.may_go.set()

    async def block() -> None:
        async with Outbound(wire.send) as outbound:
            outbound.put([1])
            raise LookupError

    with pytest.raises(LookupError):
        await block()
    assert wire.done == [[1]]


async def test_a_cancelled_block_leaves_nothing_running() -> None:
    wire = Wire()

    async def block() -> None:
        async with Outbound(wire.send) as outbound:
            outbound.put([1])
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await wire.has_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (wire.begun, wire.done) == ([[1]], [])
    assert asyncio.all_tasks() == {asyncio.current_task()}

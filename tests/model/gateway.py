"""A gateway in the model's world: the real settlement on a real SQLite file, in one thread.

Every durable write and every call of a node is a point where the process may be ended. What is left
of an ended process can do nothing more, like one that kill -9 has met.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection, make_url

from taprail_common.clock import Clock
from taprail_common.errors import TapRailError
from taprail_gateway.custody import Custody
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.group_commit import Batcher
from taprail_gateway.settle.chain import Chain, TokenInfo
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.settle.settings import SettlementSettings
from taprail_gateway.wakeups import Wakeups
from tests.model.fake_chain import FakeChain
from tests.model.fake_node import FakeNode, Trouble
from tests.model.world import CHAIN_ID, DOMAIN_SEPARATOR, MULTICALL, TOKEN, TOKEN_NAME
from tests.support.manual_clock import ManualClock

P = ParamSpec("P")
T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item, as in `group_commit`

TOKEN_INFO = TokenInfo(TOKEN, TOKEN_NAME, "1", "MUSD", 6, DOMAIN_SEPARATOR, CHAIN_ID)


class KilledError(BaseException):
    """kill -9: no handler of an Exception sees it."""


class Process:
    """One life of a gateway: `passed` counts the points, and ends it at the one that was chosen."""

    def __init__(self) -> None:
        self.is_dead = False
        self.points_left: int | None = None

    def passed(self, _point: str) -> None:
        """Go on, or die here; the dead die again at everything that they still try."""
        if self.points_left is not None:
            self.points_left -= 1
            self.is_dead |= self.points_left < 0
        if self.is_dead:
            raise KilledError


class ModelLedger(Ledger):
    """The real ledger with its real commits, each at once and in the caller's thread."""

    process: Process
    shared = False

    @property
    def is_exclusive(self) -> bool:
        """With a second gateway in play a lease counts until its end, as on a server."""
        return not self.shared

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Commit at once; the process may die just before and just after."""
        self.process.passed("before commit")
        result = self.write_now(work)
        self.process.passed("after commit")
        return result

    async def write_batched(self, batcher: Batcher[I, T], item: I) -> T:
        """One item, one commit."""
        return await self.write(lambda connection: batcher.run(connection, [item])[0])

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Read at once."""
        if self.process.is_dead:
            raise KilledError
        return self.read_now(query)


def open_ledger(url: str, clock: Clock, process: Process) -> ModelLedger:
    """The ledger in the hands of a process."""
    ledger = ModelLedger(make_url(url), clock)
    ledger.process = process
    return ledger


class InlineExecutor(ThreadPoolExecutor):
    """Does what is meant for a thread where it is asked for, so that every run is the same."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """The result, in a future that is done."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as exc:  # noqa: BLE001 - handed to who asked, as a pool does
            future.set_exception(exc)
        return future


class Gateway:
    """One process: its ledger, its settlement and its view of the nodes."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ledger_url: str,
        clock: ManualClock,
        chain: FakeChain,
        troubles: Sequence[Trouble],
        custody: Custody,
        settings: SettlementSettings,
    ) -> None:
        self._loop = loop
        self.process = Process()
        self.ledger = open_ledger(ledger_url, clock, self.process)
        self.live = LiveSettings(settings)
        nodes = [
            FakeNode(f"node {number}", chain, trouble, self.process.passed)
            for number, trouble in enumerate(troubles)
        ]
        self.settlement = Settlement(
            self.ledger,
            Chain(nodes, TOKEN_INFO, MULTICALL),
            custody,
            self.live,
            clock,
            Wakeups(),
        )
        self.hindered: str | None = None

    def do(self, step: Callable[[], Any]) -> Any:
        """Take one step of a loop, as the engine's supervisor does; None when it was hindered.

        What settlement reports as an error of its own is an obstacle. Anything else but a kill is
        a bug, and is raised.
        """
        self.hindered = None
        try:
            return self._loop.run_until_complete(step())
        except TapRailError as exc:
            self.hindered = str(exc)
        except BaseException:
            if not self.process.is_dead:
                raise
            self.end()
        return None

    def end(self) -> None:
        """kill -9, wherever it is."""
        self.process.is_dead = True
        self._loop.run_until_complete(_end_tasks())
        self.ledger.dispose()


async def _end_tasks() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)

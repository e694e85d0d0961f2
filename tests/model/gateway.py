"""A gateway in the model's world: the real settlement on a real SQLite file, in one thread.

Every durable write and every call of a node is a point. There a process may be ended: what is left
of it can do nothing more, like one that kill -9 has met. And there a step of one loop may be held,
for as long as the machine likes, while everything else goes on: the other loops of the same
gateway, another gateway, blocks, time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import Any, Final, ParamSpec, TypeVar

from sqlalchemy import Connection, make_url

from taprail_common.clock import Clock
from taprail_common.errors import TapRailError
from taprail_gateway.custody import Custody
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.group_commit import Batcher
from taprail_gateway.settle.chain import Chain, TokenInfo
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.settle.sender import LaneSender
from taprail_gateway.settle.settings import SettlementSettings
from taprail_gateway.wakeups import Wakeups
from tests.model.fake_chain import FakeChain
from tests.model.fake_node import DEPTHS, FakeNode, Trouble
from tests.model.fences import Fences
from tests.model.world import CHAIN_ID, DOMAIN_SEPARATOR, MULTICALL, TOKEN, TOKEN_NAME
from tests.support.manual_clock import ManualClock

P = ParamSpec("P")
T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item, as in `group_commit`

TOKEN_INFO = TokenInfo(TOKEN, TOKEN_NAME, "1", "MUSD", 6, DOMAIN_SEPARATOR, CHAIN_ID)
_TICKS_AT_ONCE: Final = 20


class KilledError(BaseException):
    """kill -9: no handler of an Exception sees it."""


class Step:
    """One step of one loop, which may be held at a point."""

    def __init__(self, points_until_held: int | None) -> None:
        self._points_left = points_until_held
        self._may_go_on = asyncio.Event()
        self._turn: asyncio.Future[None] | None = None

    async def begun(self) -> None:
        """Wait for the first turn: what ran before it could not be held."""
        await self._may_go_on.wait()

    async def passed(self) -> None:
        """Go on, or wait here with all that belongs to this step until it is let go."""
        if self._points_left is not None:
            self._points_left -= 1
            if self._points_left < 0:
                self._points_left = None
                self._may_go_on.clear()
                self._end_turn()
        await self._may_go_on.wait()

    async def turn(self, task: asyncio.Task[Any]) -> None:
        """Let the step's task go on until it is done or held."""
        self._turn = asyncio.get_running_loop().create_future()
        task.add_done_callback(self._end_turn)
        self._may_go_on.set()
        await self._turn

    def _end_turn(self, _task: object = None) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)


_step: ContextVar[Step | None] = ContextVar("step", default=None)
"""Whatever a step starts beside itself inherits it."""


class Process:
    """One life of a gateway: `passed` counts the points, and ends it at the one that was chosen."""

    def __init__(self) -> None:
        self.is_dead = False
        self.points_left: int | None = None

    async def passed(self, _point: str) -> None:
        """Go on, wait, or die here; the dead die again at everything that they still try."""
        if self.points_left is not None:
            self.points_left -= 1
            self.is_dead |= self.points_left < 0
        step = _step.get()
        if step is not None and not self.is_dead:
            await step.passed()
        if self.is_dead:
            raise KilledError


class ModelLedger(Ledger):
    """The real ledger with its real commits, each at once and in the caller's thread."""

    process: Process
    fences: Fences | None = None
    shared = False

    @property
    def is_exclusive(self) -> bool:
        """With a second gateway in play a lease counts until its end, as on a server."""
        return not self.shared

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Commit at once; the process may die just before and just after."""
        await self.process.passed("before commit")
        result = self.write_now(work if self.fences is None else self.fences.watching(work))
        await self.process.passed("after commit")
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
        nodes = [
            FakeNode(f"node {number}", chain, trouble, self.process.passed)
            for number, trouble in enumerate(troubles)
        ]
        self._live = LiveSettings(settings)
        self.settlement = Settlement(
            self.ledger,
            Chain(nodes, TOKEN_INFO, MULTICALL, clock),
            custody,
            self._live,
            clock,
            Wakeups(),
        )
        self.fences = self.ledger.fences = Fences(self.settlement.keeper)
        self.hindered: str | None = None
        self.hold_after: int | None = None
        """The next step that begins is held after so many points."""
        self._held: dict[str, tuple[Step, asyncio.Task[Any]]] = {}

    @property
    def depth_wanted(self) -> int:
        """How deep a block has to be, the head being 1, before it counts for this gateway."""
        wanted = self._live.now.confirmations
        return wanted if isinstance(wanted, int) else DEPTHS[wanted] + 1

    # --- its loops ----------------------------------------------------------------------------

    def start(self, *, calibrates: bool) -> None:
        """What the engine does before its loops run."""

        async def begin() -> None:
            await self.settlement.follow_settings()
            if calibrates:
                await self.settlement.calibrate()
            await self.settlement.take_lanes()

        self._do("start", begin)

    def send(self) -> None:
        """Steps of all its senders, until nothing is left to do at once."""
        for sender in list(self.settlement.senders.values()):
            for _ in range(_TICKS_AT_ONCE):
                tick = self._do(_loop_of(sender), sender.tick)
                if tick is None or not tick.may_be_more or tick.obstacle:
                    break

    def confirm(self) -> None:
        """One look at the chain."""
        self._do("confirm", self.settlement.confirmer.tick)

    def keep(self) -> None:
        """Renew leases and take free ones; a lane that is lost has its loop ended."""
        self._do("keep", self.settlement.take_lanes)
        ours = {_loop_of(sender) for sender in self.settlement.senders.values()}
        for loop in [each for each in self._held if each.startswith("send")]:
            if loop not in ours:
                self._cancel(loop)

    def follow(self) -> None:
        """Hear what operators have set."""
        self._do("follow", self.settlement.follow_settings)

    # --- one step -----------------------------------------------------------------------------

    def _do(self, loop: str, begin: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Take a step of a loop, or go on with the one that is held; None: hindered, or held.

        What settlement reports as an error of its own is an obstacle. Anything else but a kill is
        a bug, and is raised.
        """
        if self.process.is_dead:
            return None
        step, task = self._held.pop(loop) if loop in self._held else self._begin(begin)
        self._loop.run_until_complete(step.turn(task))
        if not task.done():
            self._held[loop] = (step, task)
            return None
        self.hindered = None
        try:
            return task.result()
        except TapRailError as exc:
            self.hindered = f"{loop}: {exc}"
        except BaseException:
            if not self.process.is_dead:
                raise
            self.end()
        return None

    def _begin(
        self, begin: Callable[[], Coroutine[Any, Any, Any]]
    ) -> tuple[Step, asyncio.Task[Any]]:
        step, self.hold_after = Step(self.hold_after), None
        context = copy_context()
        context.run(_step.set, step)

        async def begun() -> Any:
            await step.begun()
            return await begin()

        return step, self._loop.create_task(begun(), context=context)

    def _cancel(self, loop: str) -> None:
        _step, task = self._held.pop(loop)
        task.cancel()
        self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))

    def end(self) -> None:
        """kill -9, wherever it is."""
        self.process.is_dead = True
        for step, task in self._held.values():
            self._loop.run_until_complete(step.turn(task))
            task.exception()
        self._held.clear()
        self.ledger.dispose()


def _loop_of(sender: LaneSender) -> str:
    return f"send {sender.address}"

"""Settlement as a whole: the send loop and the confirm loop, two tasks that never wait for another.

A step that fails is logged with its reason and tried again after a pause that grows; whatever it
is, it ends neither its own loop nor the other. All that matters is in the ledger, so a loop that
was cut off anywhere goes on from there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from taprail_common.clock import Clock
from taprail_common.errors import TapRailError
from taprail_gateway.custody import Custody
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.broadcast import Broadcaster
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.confirmer import Confirmer
from taprail_gateway.settle.heads import LatestHead
from taprail_gateway.settle.lane_keeper import RENEW_MS, LaneKeeper
from taprail_gateway.settle.lanes import the_lane
from taprail_gateway.settle.live import LOOK_EVERY_S, LiveSettings
from taprail_gateway.settle.sender import Sender
from taprail_gateway.settle.stuck import Rescuer
from taprail_gateway.wakeups import Wakeups

# A node that is back is used within 5 s; one that is away is asked no more than that often.
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0

_log = structlog.get_logger("settle.engine")


class Settlement:
    """One gateway's settlement. `start` needs a lane in the ledger and a started ledger."""

    def __init__(
        self,
        ledger: Ledger,
        chain: Chain,
        custody: Custody,
        live: LiveSettings,
        clock: Clock,
        wakeups: Wakeups,
    ) -> None:
        self._ledger = ledger
        self._custody = custody
        self._live = live
        self._pending = wakeups.pending.listen()
        self._bound = wakeups.bound.listen()
        self.keeper = LaneKeeper(ledger, clock, secrets.token_hex(8))
        head = LatestHead()
        broadcaster = Broadcaster(ledger, chain, clock, wakeups)
        self.sender = Sender(ledger, chain, custody, live, clock, broadcaster, head, self.keeper)
        rescuer = Rescuer(ledger, custody, live, clock, broadcaster)
        self.confirmer = Confirmer(ledger, chain, live, clock, rescuer, head, wakeups, self.keeper)
        self._clock = clock
        self._lane = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._obstacles: dict[str, str] = {}

    def obstacles(self) -> list[str]:
        """What keeps the loops from their work right now, a line each; empty: nothing does."""
        return [f"{loop}: {reason}" for loop, reason in self._obstacles.items()]

    async def start(self) -> None:
        """Check that the lane's key opens, then run; raises OperatorError if it does not."""
        lane = await self._ledger.read(the_lane)
        self._custody.unwrap(lane.address, lane.wrapped_key)
        self._lane = lane.address
        await self.follow_settings()
        await self.take_lanes()
        self._tasks = [
            asyncio.create_task(self._supervise("lanes", self._keep_lanes)),
            asyncio.create_task(self._supervise("settings", self._follow_settings)),
            asyncio.create_task(self._supervise("sender", self._send_once)),
            asyncio.create_task(self._supervise("confirmer", self._confirm_once)),
        ]

    async def stop(self) -> None:
        """End both loops, wherever they are: the next start takes up what they leave."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self.keeper.give_back()

    async def take_lanes(self) -> None:
        """Take the leases of all lanes that are free."""
        await self.keeper.look()

    async def follow_settings(self) -> None:
        """Take over what operators have set meanwhile, and wake who may now go on."""
        if await self._live.look(self._ledger):
            self._pending.ring()

    async def _follow_settings(self) -> str | None:
        await self.follow_settings()
        await asyncio.sleep(LOOK_EVERY_S)
        return None

    async def _keep_lanes(self) -> str | None:
        await asyncio.sleep(RENEW_MS / 1000)
        await self.keeper.look()
        return None

    async def _send_once(self) -> str | None:
        if self._lane not in self.keeper.leases:
            await self._pending.wait(RENEW_MS)  # another gateway has it; the keeper looks again
            return None
        self._pending.clear()  # before looking: what comes meanwhile rings again
        tick = await self.sender.tick()
        if tick.obstacle is None and not tick.may_be_more:
            await self._pending.wait(self._live.now.payment_batch_interval_ms)
        return tick.obstacle

    async def _confirm_once(self) -> str | None:
        if self._lane not in self.keeper.leases:
            await self._bound.wait(RENEW_MS)
            return None
        self._bound.clear()
        if await self.confirmer.tick():
            await asyncio.sleep(self.confirmer.rhythm.wait_s(self._clock.monotonic_s()))
        else:
            await self._bound.wait(self._live.now.confirmation_interval_ms)
        return None

    async def _supervise(self, loop: str, once: Callable[[], Awaitable[str | None]]) -> None:
        """Call for ever; after an error or an obstacle (the text given) pause, ever longer."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                obstacle = await once()
            except TapRailError as exc:
                obstacle = str(exc)
            except Exception:  # noqa: BLE001 - a bug must not stop the money: logged whole, tried again
                _log.exception("settle.bug", loop=loop)
                obstacle = "an unforeseen error"
            if obstacle is None:
                self._obstacles.pop(loop, None)
                pause_s = _FIRST_PAUSE_S
                continue
            self._obstacles[loop] = obstacle
            _log.warning("settle.hindered", loop=loop, reason=obstacle, pause_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

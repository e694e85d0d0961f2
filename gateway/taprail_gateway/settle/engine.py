"""Settlement as a whole: a send loop for each lane that is ours, the confirm loop, the lanes.

None waits for another. A step that fails is logged with its reason and tried again after a pause
that grows, for each loop by itself; whatever it is, it ends neither its own loop nor the others. A
lane that is taken while running starts its loop, one that is lost ends it. All that matters is in
the ledger, so a loop that was cut off anywhere goes on from there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_common.errors import OperatorError, TapRailError
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import queries
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.queries import Lane
from taprail_gateway.settle.broadcast import Broadcaster
from taprail_gateway.settle.calibrate import calibrated
from taprail_gateway.settle.cargo import Cargo
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.confirmer import Confirmer
from taprail_gateway.settle.fee_watch import FeeWatch
from taprail_gateway.settle.lane_keeper import RENEW_MS, LaneKeeper
from taprail_gateway.settle.live import LOOK_EVERY_S, LiveSettings
from taprail_gateway.settle.office import Office
from taprail_gateway.settle.payment_cargo import PaymentCargo
from taprail_gateway.settle.reward_confirmer import RewardConfirmer
from taprail_gateway.settle.rewards import RewardCargo
from taprail_gateway.settle.sender import LaneSender
from taprail_gateway.settle.stuck import Rescuer
from taprail_gateway.wakeups import Wakeups

# A node that is back is used within 5 s; one that is away is asked no more than that often.
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0

_SENDER: Final = "sender "
"""How the names of send loops begin."""

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
        *,
        rewards_contract: str | None = None,
    ) -> None:
        self._ledger = ledger
        self._custody = custody
        self._live = live
        self._clock = clock
        self._wakeups = wakeups
        self._bound = wakeups.bound.listen()
        self._bound_for_rewards = wakeups.bound.listen()
        self._chain = chain
        self._payments = PaymentCargo(ledger, chain, custody, live, clock)
        cargoes: list[Cargo] = [self._payments]
        if rewards_contract is not None:
            cargoes.append(RewardCargo(ledger, chain, rewards_contract, clock))
        self._cargoes: Mapping[str, Cargo] = {cargo.purpose: cargo for cargo in cargoes}
        self.keeper = LaneKeeper(ledger, clock, secrets.token_hex(8), self._may_take)
        broadcaster = Broadcaster(ledger, chain, clock, wakeups, self._cargoes)
        fee_watch = FeeWatch(chain, live)
        self._office = Office(
            ledger, chain, custody, live, clock, broadcaster, self.keeper, fee_watch
        )
        self.senders: dict[str, LaneSender] = {}
        """Of the lanes that are ours now, by address."""
        rescuer = Rescuer(ledger, custody, live, clock, broadcaster, fee_watch)
        head = self._office.head
        self.confirmer = Confirmer(ledger, chain, live, clock, rescuer, head, wakeups, self.keeper)
        self.rewards: RewardConfirmer | None = None
        if rewards_contract is not None:
            self.rewards = RewardConfirmer(self._office, rewards_contract, rescuer, wakeups)
        self._tasks: list[asyncio.Task[None]] = []
        self._lane_tasks: dict[str, asyncio.Task[None]] = {}
        self._hindered: dict[str, _Hindrance] = {}

    @property
    def sender(self) -> LaneSender:
        """The only lane's sender; ValueError when there are several or none."""
        (sender,) = self.senders.values()
        return sender

    def obstacles(self) -> list[str]:
        """What keeps payments from being settled right now, a line each; empty: nothing does.

        A lane in trouble does not, as long as another of ours has none.
        """
        a_lane_is_well = any(
            purpose == PaymentCargo.purpose and _name(address) not in self._hindered
            for address, purpose in self.keeper.purposes.items()
        )
        return [
            f"{loop}: {it.reason}"
            for loop, it in self._hindered.items()
            if it.is_vital and not (a_lane_is_well and loop.startswith(_SENDER))
        ]

    async def start(self) -> None:
        """Check that every payment lane's key opens, then run; OperatorError if one does not."""
        await self._ledger.read(self._check_lanes)
        await self.follow_settings()
        await self.calibrate()
        await self.take_lanes()
        self._tasks = [
            asyncio.create_task(self._supervise("lanes", self._keep_lanes)),
            asyncio.create_task(self._supervise("settings", self._follow_settings)),
            asyncio.create_task(self._supervise("confirmer", self._confirm_once)),
        ]
        if self.rewards is not None:
            once = partial(self._reward_once, self.rewards)
            loop = self._supervise("rewards", once, vital=False)
            self._tasks.append(asyncio.create_task(loop))
        self._match_loops()

    async def stop(self) -> None:
        """End all loops, wherever they are: the next start takes up what they leave."""
        tasks = [*self._tasks, *self._lane_tasks.values()]
        self._tasks, self._lane_tasks = [], {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.keeper.give_back()
        self.senders.clear()

    async def calibrate(self) -> None:
        """Find out what this token's payments use; takes a tenth of a second."""
        self._payments.gas = await calibrated(self._chain)

    async def take_lanes(self) -> None:
        """Renew the leases of our lanes and take those that are free."""
        await self.keeper.look()
        for address, purpose in self.keeper.purposes.items():
            if address not in self.senders:
                self.senders[address] = LaneSender(self._office, address, self._cargoes[purpose])
        for address in set(self.senders) - set(self.keeper.leases):
            del self.senders[address]

    async def follow_settings(self) -> None:
        """Take over what operators have set meanwhile, and wake who may now go on."""
        if await self._live.look(self._ledger):
            self._wakeups.pending.ring()
            self._wakeups.bound.ring()

    def _check_lanes(self, connection: Connection) -> None:
        """Those of payments: a rewards lane in trouble is no reason not to settle."""
        lanes = [
            lane for lane in queries.all_lanes(connection) if lane.purpose == PaymentCargo.purpose
        ]
        if not lanes:
            raise OperatorError(
                "the ledger has no lane to send from", fix="create its wallet first"
            )
        for lane in lanes:
            self._custody.unwrap(lane.address, lane.wrapped_key)

    def _may_take(self, lane: Lane) -> bool:
        """A lane that was added while running may have a key that is not ours to open."""
        if lane.purpose not in self._cargoes:
            return False
        try:
            self._custody.unwrap(lane.address, lane.wrapped_key)
        except OperatorError as exc:
            self._hinder(_name(lane.address), str(exc), lane.purpose == PaymentCargo.purpose)
            return False
        return True

    # --- the loops ----------------------------------------------------------------------------

    async def _follow_settings(self) -> str | None:
        await self.follow_settings()
        await asyncio.sleep(LOOK_EVERY_S)
        return None

    async def _keep_lanes(self) -> str | None:
        await asyncio.sleep(RENEW_MS / 1000)
        await self.take_lanes()
        self._match_loops()
        return None

    def _match_loops(self) -> None:
        """A running loop for each lane that is ours, none for any other."""
        for address in set(self._lane_tasks) - set(self.senders):
            self._lane_tasks.pop(address).cancel()
            self._hindered.pop(_name(address), None)
        for address, sender in self.senders.items():
            if address not in self._lane_tasks:
                self._lane_tasks[address] = asyncio.create_task(self._send_loop(sender))

    async def _send_loop(self, sender: LaneSender) -> None:
        pending = self._wakeups.pending.listen()

        async def once() -> str | None:
            pending.clear()  # before looking: what comes meanwhile rings again
            tick = await sender.tick()
            if tick.obstacle is None and not tick.may_be_more:
                await pending.wait(self._live.now.payment_batch_interval_ms)
            return tick.obstacle

        vital = self.keeper.purposes.get(sender.address) == PaymentCargo.purpose
        await self._supervise(_name(sender.address), once, vital=vital)

    async def _confirm_once(self) -> str | None:
        self._bound.clear()
        if await self.confirmer.tick():
            await asyncio.sleep(self.confirmer.rhythm.wait_s(self._clock.monotonic_s()))
        else:
            await self._bound.wait(self._live.now.confirmation_interval_ms)
        return None

    async def _reward_once(self, rewards: RewardConfirmer) -> str | None:
        self._bound_for_rewards.clear()
        await rewards.tick()
        await self._bound_for_rewards.wait(self._live.now.confirmation_interval_ms)
        return None

    async def _supervise(
        self, loop: str, once: Callable[[], Awaitable[str | None]], *, vital: bool = True
    ) -> None:
        """Call for ever; after an error or an obstacle (the text given) pause, ever longer.

        What hinders a loop that is not vital is no reason to send taps away.
        """
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
                self._hindered.pop(loop, None)
                pause_s = _FIRST_PAUSE_S
                continue
            self._hinder(loop, obstacle, vital)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _hinder(self, loop: str, reason: str, is_vital: bool) -> None:
        if self._hindered.get(loop, _Hindrance("", False)).reason != reason:
            _log.warning("settle.hindered", loop=loop, reason=reason)
        self._hindered[loop] = _Hindrance(reason, is_vital)


class _Hindrance(NamedTuple):
    reason: str
    is_vital: bool


def _name(address: str) -> str:
    """Of a lane's send loop, as obstacles tell it."""
    return _SENDER + address

"""This terminal as one of many: tells the gateway how it is, and does what is wanted from afar.

Answers for the heartbeat and for its order: what became of a configuration, how things are, what
is wanted now. Nothing here is on the way of a payment, and nothing that fails here stops a sale:
it is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from typing import Final

import structlog

from taprail_common.clock import Clock
from taprail_common.errors import TapRailError
from taprail_common.fleet_wire import (
    DIAGNOSIS_PATH,
    HEARTBEAT_PATH,
    MAX_DETAIL,
    Diagnose,
    DiagnosisReport,
    Heartbeat,
    HeartbeatNoted,
)
from taprail_common.signing import Domain
from taprail_common.terminal_settings import ConfigCalled
from taprail_common.wire import from_ms, parse
from taprail_terminal.agent import Agent
from taprail_terminal.config import TerminalConfig
from taprail_terminal.console.answers import plain
from taprail_terminal.console.selftest import Probes
from taprail_terminal.fleet_config import PushedSettings
from taprail_terminal.fleet_diagnosis import Diagnoses
from taprail_terminal.gateway_link import GatewayLink, retry_pauses_s
from taprail_terminal.outbox import Outbox
from taprail_terminal.sale import Phase

BEAT_EVERY_S: Final = 20.0
"""A terminal of which nothing was heard for 90 s is shown as silent (`gateway.heartbeats`)."""
_TRIAL_LOOK_S: Final = 0.5
_QUIET: Final = frozenset({Phase.IDLE, Phase.READY, Phase.OUT_OF_SERVICE})
"""Phases in which the agent may start anew: nobody waits for an answer."""

_log = structlog.get_logger()


class Fleet:
    """One terminal's word to its gateway. `restart` is called when the agent is to start anew."""

    def __init__(
        self,
        config: TerminalConfig,
        link: GatewayLink,
        clock: Clock,
        *,
        agent: Agent,
        outbox: Outbox,
        probes: Probes,
        restart: Callable[[], None],
    ) -> None:
        self._terminal_id = config.terminal.id
        self._link = link
        self._clock = clock
        self._agent = agent
        self._outbox = outbox
        self._probes = probes
        self._began_s = clock.monotonic_s()
        self._called = asyncio.Event()
        self._asked: set[asyncio.Task[None]] = set()
        self._diagnoses = Diagnoses(probes, clock, link.clock_offset_ms, self._tell_diagnosis)
        self.settings = PushedSettings(
            config,
            link,
            clock,
            is_quiet=lambda: agent.state.phase in _QUIET,
            restart=restart,
        )

    def on_command(self, command: ConfigCalled | Diagnose) -> None:
        """What the gateway has pushed: there is something to be fetched, or to be looked at."""
        match command:
            case ConfigCalled():
                self._called.set()
            case Diagnose():
                task = asyncio.create_task(self._diagnose(command))
                self._asked.add(task)
                task.add_done_callback(self._asked.discard)

    async def run(self) -> None:
        """Until cancelled."""
        pauses_s = retry_pauses_s()
        try:
            while True:
                self._called.clear()
                wait_s = BEAT_EVERY_S
                try:
                    await self._beat()
                    pauses_s = retry_pauses_s()
                except (TapRailError, OSError) as exc:
                    _log.debug("no heartbeat", reason=str(exc)[:200])
                    wait_s = next(pauses_s)
                await self._wait(_TRIAL_LOOK_S if self.settings.is_trying else wait_s)
        finally:
            for task in self._asked:
                task.cancel()

    async def _beat(self) -> None:
        await self.settings.settle()
        if self.settings.is_trying:
            return  # the agent is about to start anew, or has yet to reach the gateway
        heartbeat = await self._heartbeat()
        body = heartbeat.model_dump_json(by_alias=True).encode()
        answer = await self._link.tell(HEARTBEAT_PATH, body, Domain.HEARTBEAT)
        noted = parse(HeartbeatNoted, answer)
        await self.settings.tell()
        await self.settings.heed(noted.config_version)
        await self.settings.tell()

    async def _heartbeat(self) -> Heartbeat:
        counts, reader = await self._outbox.counts(), self._probes.reader.health()
        greeting = self._link.greeting
        return Heartbeat(
            terminal_id=self._terminal_id,
            at=from_ms(self._clock.now_ms()),
            version=version("taprail"),
            phase=self._agent.state.phase.value,
            reader_ok=reader.ok,
            reader=plain(reader.detail)[:MAX_DETAIL],
            unresolved=counts.unresolved,
            unsettled=counts.unsettled,
            uptime_s=round(self._clock.monotonic_s() - self._began_s),
            clock_offset_ms=None if greeting is None else greeting.clock_offset_ms,
            config_version=self.settings.state.applied,
        )

    async def _diagnose(self, asked: Diagnose) -> None:
        try:
            await self._diagnoses.carry_out(asked)
        except TapRailError as exc:
            _log.warning("the diagnosis was not told", reason=str(exc)[:200])

    async def _tell_diagnosis(self, report: DiagnosisReport) -> None:
        body = report.model_dump_json(by_alias=True).encode()
        await self._link.tell(DIAGNOSIS_PATH, body, Domain.DIAGNOSIS)

    async def _wait(self, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await self._called.wait()
        except TimeoutError:
            return

"""Puts the console together from the running terminal's parts.

Answers for the joints only, so that the composition root needs to know one name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final, Protocol

from taprail_common.clock import Clock
from taprail_common.technicians import ROSTER_PATH
from taprail_terminal.agent import Agent
from taprail_terminal.config import TerminalConfig
from taprail_terminal.console import trial
from taprail_terminal.console.commands import Commands
from taprail_terminal.console.desk import Desk, Pending
from taprail_terminal.console.journal import Journal
from taprail_terminal.console.log_tail import LogTail
from taprail_terminal.console.net_test import Target
from taprail_terminal.console.reset import TECHNICIANS_FILE
from taprail_terminal.console.selftest import Probes
from taprail_terminal.console.serial_port import SerialConsole
from taprail_terminal.console.socket_port import CONSOLE_SOCKET, SocketConsole
from taprail_terminal.console.sync import keep_in_step
from taprail_terminal.console.technicians import Technicians
from taprail_terminal.feedback.feedback import Feedback
from taprail_terminal.fleet import Fleet
from taprail_terminal.gateway_link import GatewayLink
from taprail_terminal.identity import Identity
from taprail_terminal.offline_desk import OfflineDesk
from taprail_terminal.outbox import Outbox
from taprail_terminal.probes import GatewayView, IdentityView, OutboxView, ReaderView, SaleView
from taprail_terminal.push_link import PushLink
from taprail_terminal.readers.supervisor import Reader
from taprail_terminal.tap_log import TapLog
from taprail_terminal.timeline import Timeline
from taprail_terminal.tls_pins import Pins

JOURNAL_FILE: Final = "journal.db"
TRIAL_S: Final = 20.0
_LOOK_EVERY_S: Final = 0.5


class Parts(Protocol):
    """What a running terminal consists of, as far as the console looks at it."""

    identity: Identity
    clock: Clock
    agent: Agent
    reader: Reader
    feedback: Feedback
    outbox: Outbox
    offline: OfflineDesk
    taps: TapLog
    timeline: Timeline
    link: GatewayLink
    pins: Pins


class Console:
    """One terminal's console: its commands, and what runs beside the sale for it."""

    def __init__(self, config: TerminalConfig, parts: Parts, log: LogTail) -> None:
        self._config = config
        self._desk = desk_for(config, parts, log)
        self.commands = Commands(self._desk)
        self.restart = self._desk.pending.restart
        """Set when a change wants the agent to start anew."""
        self._must_reach = False

    def fleet(self, push: PushLink) -> Fleet:
        """What the gateway is told of this terminal, and wants of it."""
        desk = self._desk
        fleet = Fleet(
            self._config,
            desk.link,
            desk.clock,
            agent=desk.agent,
            outbox=desk.outbox,
            probes=desk.probes,
            restart=self.restart.set,
        )
        push.on_fleet = fleet.on_command
        self._must_reach = fleet.settings.is_trying
        return fleet

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """To be run until the agent ends."""
        desk, port = self._desk, self._config.console.port
        socket_file = self._config.terminal.state_dir / CONSOLE_SOCKET
        work = [
            SocketConsole(socket_file, self.commands).run(),
            keep_in_step(desk.link, desk.journal, desk.technicians),
            self._end_trial(),
        ]
        if port is not None:
            work.append(SerialConsole(port, self.commands).run())
        return work

    async def _end_trial(self) -> None:
        """A configuration has come up when the gateway knows us by it, or the agent lives on
        without one for a while: what is wrong about us ends the agent at the first greeting. One
        that was pushed must reach the gateway (`fleet_config`)."""
        file, began_s = self._config.source, self._desk.clock.monotonic_s()
        while file is not None and await asyncio.to_thread(trial.is_on, file):
            await asyncio.sleep(_LOOK_EVERY_S)
            lasts_s = self._desk.clock.monotonic_s() - began_s
            is_old = lasts_s > TRIAL_S and not self._must_reach
            if self._desk.link.greeting is not None or is_old:
                await asyncio.to_thread(trial.came_up, file)
        await asyncio.Event().wait()


def desk_for(config: TerminalConfig, parts: Parts, log: LogTail) -> Desk:
    """The parts as the commands want them."""
    folder, link = config.terminal.state_dir, parts.link
    technicians = Technicians(
        folder / TECHNICIANS_FILE,
        config.gateway_key,
        config.terminal.id,
        partial(link.fetch, ROSTER_PATH),
        parts.clock,
    )
    return Desk(
        probes=_probes(config, parts),
        config=config,
        identity=parts.identity,
        clock=parts.clock,
        agent=parts.agent,
        reader=parts.reader,
        outbox=parts.outbox,
        offline=parts.offline,
        taps=parts.taps,
        timeline=parts.timeline,
        link=link,
        technicians=technicians,
        journal=Journal(folder / JOURNAL_FILE),
        pending=Pending(),
        log=log,
    )


def _probes(config: TerminalConfig, parts: Parts) -> Probes:
    return Probes(
        terminal_id=config.terminal.id,
        sale=SaleView(parts.agent, parts.taps),
        reader=ReaderView(parts.reader),
        feedback=parts.feedback,
        gateway=GatewayView(parts.link),
        outbox=OutboxView(parts.outbox, parts.clock),
        identity=IdentityView(parts.identity),
        state_dir=config.terminal.state_dir,
        target=Target.of(config.terminal.gateway_url, lambda: parts.pins.checks),
        keypad=config.keypad.device,
    )

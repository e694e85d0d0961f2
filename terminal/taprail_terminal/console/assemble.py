"""Puts the console together from the running terminal's parts.

Answers for the joints only, so that the composition root needs to know one name.
"""

from __future__ import annotations

from typing import Protocol

from taprail_common.clock import Clock
from taprail_terminal.agent import Agent
from taprail_terminal.config import TerminalConfig
from taprail_terminal.console.commands import Commands
from taprail_terminal.console.desk import Desk
from taprail_terminal.console.log_tail import LogTail
from taprail_terminal.console.net_test import Target
from taprail_terminal.console.selftest import Probes
from taprail_terminal.feedback.feedback import Feedback
from taprail_terminal.gateway_link import GatewayLink
from taprail_terminal.identity import Identity
from taprail_terminal.outbox import Outbox
from taprail_terminal.probes import GatewayView, IdentityView, OutboxView, ReaderView, SaleView
from taprail_terminal.readers.supervisor import Reader
from taprail_terminal.tap_log import TapLog
from taprail_terminal.timeline import Timeline


class Parts(Protocol):
    """What a running terminal consists of, as far as the console looks at it."""

    identity: Identity
    clock: Clock
    agent: Agent
    reader: Reader
    feedback: Feedback
    outbox: Outbox
    taps: TapLog
    timeline: Timeline
    link: GatewayLink


def commands_for(config: TerminalConfig, parts: Parts, log: LogTail) -> Commands:
    """The commands of one terminal."""
    return Commands(desk_for(config, parts, log))


def desk_for(config: TerminalConfig, parts: Parts, log: LogTail) -> Desk:
    """The parts as the commands want them."""
    return Desk(
        probes=_probes(config, parts),
        config=config,
        identity=parts.identity,
        clock=parts.clock,
        agent=parts.agent,
        reader=parts.reader,
        outbox=parts.outbox,
        taps=parts.taps,
        timeline=parts.timeline,
        link=parts.link,
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
        target=Target.of(config.terminal.gateway_url),
        keypad=config.keypad.device,
    )

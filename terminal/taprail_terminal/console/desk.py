"""What the console's commands work on: the running terminal's own parts, named.

Answers for nothing but the names; the composition root fills them in.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from taprail_common.clock import Clock
from taprail_terminal.agent import Agent
from taprail_terminal.config import TerminalConfig
from taprail_terminal.console.journal import Journal
from taprail_terminal.console.log_tail import LogTail
from taprail_terminal.console.selftest import Probes
from taprail_terminal.console.technicians import Technicians
from taprail_terminal.gateway_link import GatewayLink
from taprail_terminal.identity import Identity
from taprail_terminal.offline_desk import OfflineDesk
from taprail_terminal.outbox import Outbox
from taprail_terminal.readers.supervisor import Reader
from taprail_terminal.tap_log import TapLog
from taprail_terminal.timeline import Timeline


@dataclass(slots=True)
class Pending:
    """What waits for a second step, or for the agent to end."""

    restart: asyncio.Event = field(default_factory=asyncio.Event)
    reset_code: str = ""
    reset_until_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Desk:
    """One terminal, before a technician."""

    probes: Probes
    config: TerminalConfig
    identity: Identity
    clock: Clock
    agent: Agent
    reader: Reader
    outbox: Outbox
    offline: OfflineDesk
    taps: TapLog
    timeline: Timeline
    link: GatewayLink
    technicians: Technicians
    journal: Journal
    pending: Pending
    log: LogTail

"""A terminal's parts as the console sees them, with answers that a test chooses.

The console asks through protocols. That the agent's own parts fulfil them is shown where the whole
terminal runs; here their answers have to be chosen, the bad ones above all.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from taprail_terminal.console.selftest import GatewayHello, LastTap, OutboxStats, Probes
from taprail_terminal.feedback.drivers import Signals
from taprail_terminal.feedback.feedback import Feedback
from taprail_terminal.feedback.parts import PartHealth

HELLO = GatewayHello("gw_1234", "active", "Kiosk", clock_offset_ms=-12, round_trip_ms=3)

T = TypeVar("T")


@dataclass
class Answers:
    """What each part answers; an exception is raised instead."""

    reader_ok: bool = True
    hello: GatewayHello | Exception = HELLO
    outbox: OutboxStats | Exception = field(default_factory=lambda: OutboxStats(0, None))
    outbox_hangs: bool = False
    fingerprint: str | Exception = "1f2e-3d4c-5b6a-7988"
    last: LastTap | None = None
    hellos: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class _Reader:
    answers: Answers

    def health(self) -> PartHealth:
        if self.answers.reader_ok:
            return PartHealth("reader", ok=True, detail="PN532 1.6")
        return PartHealth("reader", ok=False, detail="silent", fix="check its wires")


@dataclass
class _Gateway:
    answers: Answers

    async def hello(self) -> GatewayHello:
        self.answers.hellos += 1
        return _given(self.answers.hello)


@dataclass
class _Outbox:
    answers: Answers

    async def check(self) -> OutboxStats:
        self.answers.asked.set()
        if self.answers.outbox_hangs:
            await asyncio.Event().wait()
        return _given(self.answers.outbox)


@dataclass
class _Identity:
    answers: Answers

    def fingerprint(self) -> str:
        return _given(self.answers.fingerprint)


@dataclass
class _Sale:
    answers: Answers

    def phase(self) -> str:
        return "ready"

    async def last_tap(self) -> LastTap | None:
        return self.answers.last


def healthy_probes(state_dir: Path, answers: Answers | None = None) -> Probes:
    """Probes of a terminal without lights and display (that is allowed) that answer as told."""
    answers = answers or Answers()
    return Probes(
        terminal_id="term_test",
        sale=_Sale(answers),
        reader=_Reader(answers),
        feedback=Feedback(Signals(None, None), None),
        gateway=_Gateway(answers),
        outbox=_Outbox(answers),
        identity=_Identity(answers),
        state_dir=state_dir,
    )


def _given(answer: T | Exception) -> T:
    if isinstance(answer, Exception):
        raise answer
    return answer

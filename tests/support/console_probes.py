"""A terminal's parts as the console sees them, with answers that a test chooses.

The console asks through protocols. That the agent's own parts fulfil them is shown where the whole
terminal runs; here their answers have to be chosen, the bad ones above all.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from nacl.signing import SigningKey

from taprail_common.clock import SystemClock
from taprail_common.errors import PartError
from taprail_common.signing import public_key_text
from taprail_terminal.app import _Parts
from taprail_terminal.config import load_config
from taprail_terminal.console.assemble import desk_for
from taprail_terminal.console.desk import Desk
from taprail_terminal.console.log_tail import LogTail
from taprail_terminal.console.net_test import Target
from taprail_terminal.console.selftest import GatewayHello, LastTap, OutboxStats, Probes
from taprail_terminal.feedback.drivers import Signals
from taprail_terminal.feedback.feedback import Feedback
from taprail_terminal.feedback.parts import PartHealth
from taprail_terminal.identity import Identity
from taprail_terminal.readers.base import Driver
from taprail_terminal.readers.supervisor import Reader

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
    outcomes: list[str] = field(default_factory=list)
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

    async def stats(self) -> OutboxStats:
        return await self.check()

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

    def outcomes(self) -> list[str]:
        return self.answers.outcomes


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
        target=Target.of("http://localhost:9"),
    )


TOML = """
[terminal]
id = "term_test"
merchant_id = "cafe"
currency = "USDC"
decimals = 6
state_dir = "state"
gateway_url = "http://user:{password}@localhost:9"
gateway_public_key = "{key}"
"""
URL_PASSWORD = "url-passw0rd"


async def make_desk(
    folder: Path, answers: Answers | None = None, gateway_key: SigningKey | None = None
) -> Desk:
    """A desk of real parts that nobody has started, with probes that answer as told."""
    source, key = folder / "terminal.toml", gateway_key or SigningKey.generate()
    if not source.exists():
        public = public_key_text(key.verify_key)
        source.write_text(TOML.format(password=URL_PASSWORD, key=public))
    config = load_config(source)
    if not config.key_file.exists():
        Identity.create("term_test", config.key_file)
    parts = _Parts(config, Identity.load("term_test", config.key_file), SystemClock())
    parts.feedback = Feedback(Signals(None, None), None)
    parts.reader = Reader(_no_reader, parts.agent.on_report)
    desk = desk_for(config, parts, LogTail())
    return replace(desk, probes=healthy_probes(folder, answers))


def _no_reader() -> Driver:
    raise PartError("reader", "there is none")


def _given(answer: T | Exception) -> T:
    if isinstance(answer, Exception):
        raise answer
    return answer

"""The terminal's parts as the console and the self-test want to see them.

Answers for translating only; what is looked at and judged is in `console`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from taprail_common.clock import Clock
from taprail_terminal.agent import Agent
from taprail_terminal.console.selftest import GatewayHello, LastTap, OutboxStats
from taprail_terminal.feedback.parts import PartHealth, healthy
from taprail_terminal.gateway_link import GatewayLink
from taprail_terminal.identity import Identity
from taprail_terminal.outbox import Outbox, OutboxCounts
from taprail_terminal.readers.ladder import Sign
from taprail_terminal.readers.supervisor import Reader
from taprail_terminal.tap_log import TapLog

_CHIP: Final = (
    "give its chip a new start: reader reset, or take its power away for ten seconds; if that does"
    " not help, check its wires"
)
_READER_FIXES: Final = {
    Sign.ABSENT: "plug it in, or correct [reader] port: reader scan lists the ports",
    Sign.FAILED: _CHIP,
    Sign.HUNG: _CHIP,
}
_NOT_OPENED: Final = "wait a moment; after mode safe: mode field"


@dataclass(frozen=True, slots=True)
class ReaderView:
    """The card reader."""

    reader: Reader

    def health(self) -> PartHealth:
        if self.reader.trouble is None:
            return healthy("reader", self.reader.description or "works")
        sign = self.reader.sign
        fix = _NOT_OPENED if sign is None else _READER_FIXES.get(sign, _CHIP)
        return PartHealth("reader", ok=False, detail=self.reader.trouble, fix=fix)


@dataclass(frozen=True, slots=True)
class GatewayView:
    """The link to the gateway, asked anew each time."""

    link: GatewayLink

    async def hello(self) -> GatewayHello:
        greeting = await self.link.greet()
        hello = greeting.hello
        return GatewayHello(
            hello.gateway_id,
            hello.status,
            hello.merchant_name,
            greeting.clock_offset_ms,
            greeting.round_trip_ms,
        )


@dataclass(frozen=True, slots=True)
class OutboxView:
    """The store of requests."""

    outbox: Outbox
    clock: Clock

    async def stats(self) -> OutboxStats:
        return self._aged(await self.outbox.counts())

    async def check(self) -> OutboxStats:
        return self._aged(await self.outbox.check())

    def _aged(self, counts: OutboxCounts) -> OutboxStats:
        oldest_at_ms = counts.oldest_unresolved_at_ms
        age_ms = None if oldest_at_ms is None else self.clock.now_ms() - oldest_at_ms
        return OutboxStats(counts.unresolved, age_ms)


@dataclass(frozen=True, slots=True)
class IdentityView:
    """The device key."""

    identity: Identity

    def fingerprint(self) -> str:
        return self.identity.fingerprint


@dataclass(frozen=True, slots=True)
class SaleView:
    """The sale that is on, and the last tap of this run."""

    agent: Agent
    taps: TapLog

    def phase(self) -> str:
        return self.agent.state.phase.value

    async def last_tap(self) -> LastTap | None:
        tap = self.taps.last
        return None if tap is None else LastTap(tap.at_ms, tap.outcome, tap.reason, tap.stages_ms)

    def outcomes(self) -> list[str]:
        return self.taps.outcomes

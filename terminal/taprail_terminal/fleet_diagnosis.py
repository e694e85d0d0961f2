"""The self-test for somebody who is not there: the console's checks, without lights and tones.

Answers for one at a time, for its end in time, and for a report that fits into one message. What
can only be judged by eyes and ears is told as it was when it was last driven.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Final

from taprail_common.clock import Clock
from taprail_common.fleet_wire import (
    MAX_CHECKS,
    MAX_DETAIL,
    Diagnose,
    DiagnosisCheck,
    DiagnosisReport,
)
from taprail_common.wire import from_ms, to_ms
from taprail_terminal.console.answers import plain
from taprail_terminal.console.selftest import Check, FeedbackProbe, Probes, run_selftest
from taprail_terminal.feedback.parts import PartHealth
from taprail_terminal.feedback.scene import Scene

_MAX_NAME: Final = 40
_MAX_MS: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _AsLastDriven:
    """Lights, display and buzzer, left alone: a customer may be looking at them."""

    feedback: FeedbackProbe

    def health(self) -> Mapping[str, PartHealth]:
        return self.feedback.health()

    def now(self) -> tuple[Scene, int] | None:
        return self.feedback.now()

    async def test_lights(self) -> PartHealth:
        return self.feedback.health()["lights"]

    async def test_display(self) -> PartHealth:
        return self.feedback.health()["display"]

    async def test_buzzer(self) -> PartHealth:
        return self.feedback.health()["buzzer"]


Send = Callable[[DiagnosisReport], Awaitable[None]]


class Diagnoses:
    """Carries out the gateway's wish to know how this terminal is."""

    def __init__(
        self, probes: Probes, clock: Clock, clock_offset_ms: Callable[[], int], send: Send
    ) -> None:
        self._probes = replace(probes, feedback=_AsLastDriven(probes.feedback))
        self._clock = clock
        self._clock_offset_ms = clock_offset_ms
        self._send = send
        self._last = ""
        self._is_busy = False

    async def carry_out(self, asked: Diagnose) -> None:
        """Look and report; nothing is done for one that is over, or was asked for before. Raises
        LinkError or SignatureError when the gateway has not taken the report."""
        gateway_ms = self._clock.now_ms() + self._clock_offset_ms()
        is_old = to_ms(asked.deadline) < gateway_ms or asked.diagnosis_id == self._last
        if is_old or self._is_busy:
            return
        self._last, self._is_busy = asked.diagnosis_id, True
        try:
            checks = await run_selftest(self._probes)
            await self._send(self._report(asked, checks))
        finally:
            self._is_busy = False

    def _report(self, asked: Diagnose, checks: Iterable[Check]) -> DiagnosisReport:
        return DiagnosisReport(
            terminal_id=asked.terminal_id,
            diagnosis_id=asked.diagnosis_id,
            at=from_ms(self._clock.now_ms()),
            version=version("taprail"),
            checks=tuple(_told(each) for each in checks)[:MAX_CHECKS],
        )


def _told(check: Check) -> DiagnosisCheck:
    return DiagnosisCheck(
        name=check.name[:_MAX_NAME],
        ok=check.ok,
        detail=plain(check.detail)[:MAX_DETAIL],
        what_to_do=plain(check.what_to_do)[:MAX_DETAIL],
        ms=min(check.ms, _MAX_MS),
    )

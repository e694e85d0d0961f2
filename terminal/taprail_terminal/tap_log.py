"""The last taps: when each stage was reached, what came of it, and a trace of it on the disk.

Answers for giving a stage's time to the tap that it belongs to. A trace that cannot be written is a
line in the log and nothing else: no money depends on it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from taprail_common import ids
from taprail_common.clock import Clock
from taprail_common.errors import PartError
from taprail_terminal.sale import Phase, View
from taprail_terminal.storage import DeviceStore
from taprail_terminal.timeline import Tap, Timeline

RECENT_TAPS: Final = 50
"""Taps whose later stages are still noted; older ones have long been settled or looked up."""

ENDS_TAP: Final = frozenset(
    {
        *(Phase.APPROVED, Phase.DECLINED, Phase.UNKNOWN, Phase.OFFLINE),
        *(Phase.TRY_AGAIN, Phase.CARD_REFUSED),
    }
)
"""What a customer takes away from a tap."""

_log = structlog.get_logger()


class TapLog:
    """Notes the stages of taps, tells them to the timeline and keeps their traces."""

    def __init__(self, store: DeviceStore, timeline: Timeline, clock: Clock) -> None:
        self._store = store
        self._timeline = timeline
        self._clock = clock
        self._closed = False
        self._taps: deque[Tap] = deque(maxlen=RECENT_TAPS)
        # Traces wait for the disk in a thread of their own, never a sale behind them.
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="traces")

    async def close(self) -> None:
        """Finish what is being written; what comes later is not kept."""
        self._closed = True
        await asyncio.to_thread(self._disk.shutdown, wait=True)

    @property
    def last(self) -> Tap | None:
        """The last tap of this run."""
        return self._taps[-1] if self._taps else None

    def recent(self, count: int) -> list[dict[str, Any]]:
        """The last taps of this run as they stand now, oldest first; nothing is read from disk."""
        return [tap.to_json() for tap in list(self._taps)[-count:]]

    @property
    def outcomes(self) -> list[str]:
        """What the taps of this run came to, oldest first."""
        return [tap.outcome for tap in self._taps]

    async def traces(self) -> list[dict[str, Any]]:
        """The taps that were kept, of this run and before, oldest first."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._disk, self._store.traces)

    def begin(self, at_s: float) -> None:
        """A card came into the field at this monotonic time."""
        age_ms = round((self._clock.monotonic_s() - at_s) * 1000)
        tap = Tap(ids.new_id("tap"), self._clock.now_ms() - age_ms, at_s)
        tap.reach("field", at_s)
        self._taps.append(tap)
        self._timeline.tell("field", at_s=at_s)

    def name(self, request_id: str) -> None:
        """The last tap has become a request."""
        if self._taps:
            self._taps[-1].request_id = request_id

    def reach(
        self, stage: str, request_id: str, *, at_s: float | None = None, **details: Any
    ) -> None:
        """A request came to a stage."""
        at_s = self._clock.monotonic_s() if at_s is None else at_s
        for tap in self._taps:
            if tap.request_id == request_id:
                tap.reach(stage, at_s)
        self._timeline.tell(stage, at_s=at_s, request=request_id, **details)

    def judge(self, view: View) -> None:
        """What the last tap comes to, when this view is the end of it."""
        if view.phase in ENDS_TAP and not view.late and self._taps:
            self._taps[-1].outcome, self._taps[-1].reason = view.phase.value, view.reason or ""

    def shown(self, view: View, at_s: float) -> None:
        """A view is on lights and display: its tap has come to its end for the customer."""
        if view.phase not in ENDS_TAP or view.late:
            return
        for tap in reversed(self._taps):
            if tap.outcome == view.phase.value:
                tap.reach("shown", at_s)
                self._keep(tap)
                return

    def keep(self, request_id: str) -> None:
        """Store a request's trace anew, with what was noted since."""
        for tap in self._taps:
            if tap.request_id == request_id:
                self._keep(tap)

    def _keep(self, tap: Tap) -> None:
        if not self._closed:
            self._disk.submit(self._write, tap.to_json())

    def _write(self, trace: dict[str, Any]) -> None:
        try:
            self._store.put_trace(trace)
        except PartError as exc:
            _log.warning("a trace could not be kept", reason=str(exc))

"""The story: what happens at the counter, step by step, and what each step must show.

Answers for the order of events and for noticing when one does not come as told. Each step is a
method; how it looks is in `screen`, what is measured in `tap_record`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.demo.screen import Screen
from taprail_hwsim.demo.tap_record import TapRecord, TapRecorder
from taprail_hwsim.event_log import Event
from taprail_hwsim.stack import Stack

# Verdicts before the gateway is killed: the first step's, five of judy's, the clone's, one after
# the torn card; the next is committed and never answered.
KILLED_AT: Final = "accept.committed@9"
_RESTART_TIMEOUT_S: Final = 30.0
_TORN_AFTER_APDUS: Final = 1
_QUICK: Final = ("bob", "carol", "dan", "erin", "frank", "grace", "heidi", "ivan", "kim", "leo")


class StoryError(Exception):
    """A step did not go as told: the demo has failed."""


class Story:
    """Tells itself on a running stack whose gateway was started with `KILLED_AT`."""

    def __init__(self, stack: Stack, watch: BlockWatch, screen: Screen, pictures: Path) -> None:
        self._stack = stack
        self._watch = watch
        self._screen = screen
        self._folder = pictures
        self._recorder = TapRecorder()
        self._step = 0
        self._first = 0
        self.pictures: list[Path] = []
        stack.log.listen(self._recorder.take)

    @property
    def records(self) -> list[TapRecord]:
        """All taps so far."""
        return self._recorder.records

    async def tell(self) -> None:
        """From the first tap to the last settlement. Raises StoryError."""
        await self._approved()
        await self._over_the_limit()
        await self._replayed()
        await self._torn()
        await self._gateway_killed()
        await self._ten_quick_taps()

    async def _approved(self) -> None:
        self._begin("alice taps 12.50: answered at once, settled with a block")
        with self._screen.live(self._these):
            alice = await self._tap("alice", "12.50", expect="approved")
            await self._photograph("approved")
            await self._settle([alice])
        await self._show("settled")

    async def _over_the_limit(self) -> None:
        self._begin("judy has spent 190.00 of her 200.00 today and wants 12.50 more")
        with self._screen.live(self._these):
            spent = [
                await self._tap("judy", amount, expect="approved")
                for amount in ("50.00", "50.00", "50.00", "40.00")
            ]
            last = await self._tap("judy", "12.50", expect="declined")
            await self._photograph("declined")
            await self._settle(spent)
        if "10.00" not in (last.reason or ""):
            raise StoryError(f"the decline does not say what is left: {last.reason}")
        self._screen.panel(self._stack.panel)

    async def _replayed(self) -> None:
        self._begin("somebody replays what alice's card showed at her last tap")
        with self._screen.live(self._these):
            await self._tap("clone", "12.50", expect="declined")
        await self._show("declined")

    async def _torn(self) -> None:
        self._begin("carol tears her card away too early, and taps again")
        with self._screen.live(self._these):
            await self._tap("carol", "7.20", expect="try_again", tear_after_apdus=_TORN_AFTER_APDUS)
            await self._photograph("try_again")
            # The sale is still armed: no till has to do anything.
            again = await self._tap("carol", None, expect="approved", shown_amount="7.20")
            await self._settle([again])

    async def _gateway_killed(self) -> None:
        self._begin("the gateway is killed (-9) after it accepted dan's tap, before it answered")
        with self._screen.live(self._these):
            dan = await self._tap("dan", "19.90", expect="unknown")
            code = await self._stack.gateway.wait_exit(_RESTART_TIMEOUT_S)
            await self._photograph("unknown")
            self._screen.panel(self._stack.panel)
            self._screen.say(f"the gateway is dead (exit code {code}); starting it again …")
            await self._stack.start_gateway()
            await self._stack.log.wait_for(
                "resolved", where=lambda e: e.get("request") == dan.request_id
            )
            # Asked again late, it may be told of the settlement in the same breath.
            await self._photograph("approved", "settled")
            await self._settle([dan])
        self._screen.say("asked again with the same bytes, it was given the first answer", "green")

    async def _ten_quick_taps(self) -> None:
        self._begin("ten quick taps while alice's transfer waits for its block")
        await self._watch.next_block()
        with self._screen.live(self._these):
            alice = await self._tap("alice", "3.00", expect="approved")
            ten = [await self._tap(card, "4.50", expect="approved") for card in _QUICK]
            await self._settle([alice, *ten])
        hashes = {record.tx_hash for record in ten}
        many = "one transaction" if len(hashes) == 1 else f"{len(hashes)} transactions"
        self._screen.say(f"the ten travelled in {many}", "green")

    # --- what the steps are made of -------------------------------------------------------------

    def _begin(self, text: str) -> None:
        self._step += 1
        self._first = len(self.records)
        self._screen.step(self._step, text)

    def _these(self) -> Sequence[TapRecord]:
        return self.records[self._first :]

    async def _tap(
        self,
        card: str,
        amount: str | None,
        *,
        expect: str,
        tear_after_apdus: int | None = None,
        shown_amount: str | None = None,
    ) -> TapRecord:
        record = self._recorder.begin(card, amount or shown_amount or "")
        await self._stack.tap(card, amount, tear_after_apdus=tear_after_apdus)
        if record.outcome != expect:
            raise StoryError(f"{card}'s tap came out {record.outcome}, not {expect}")
        return record

    async def _settle(self, records: Sequence[TapRecord]) -> None:
        for record in records:
            if record.request_id is None:
                raise StoryError(f"{record.card}'s tap never became a request")
            await self._stack.settled(record.request_id)
            receipt = await asyncio.to_thread(
                self._stack.chain.node.call, "eth_getTransactionReceipt", record.tx_hash
            )
            record.block_number = int(receipt["blockNumber"], 16)
            arrived_s = self._watch.arrived_s.get(record.block_number)
            if arrived_s is not None:
                record.reach("block", arrived_s)

    async def _photograph(self, *phases: str) -> None:
        """Save the display's picture, once it shows one of these phases."""
        shown = await self._stack.log.wait_for("shown", since=self._mark(), where=_is(*phases))
        await self._stack.panel.caught_up()
        path = self._folder / f"{self._step}-{shown.get('phase')}.png"
        self._stack.panel.display.png(path)
        self.pictures.append(path)

    async def _show(self, phase: str) -> None:
        await self._photograph(phase)
        self._screen.panel(self._stack.panel)

    def _mark(self) -> int:
        """Where in the log the newest card was sensed."""
        events = self._stack.log.events
        return max((i for i, event in enumerate(events) if event.name == "field"), default=0)


def _is(*phases: str) -> Callable[[Event], bool]:
    return lambda event: event.get("phase") in phases

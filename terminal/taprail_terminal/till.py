"""What the merchant's till asks of this terminal through the gateway: one charge at a time.

Answers for taking a charge, for letting go of it at its deadline, and for what the gateway is told.
It decides nothing about money: a tap for a charge that is over by then is declined at the gateway.
Nothing here is stored. After each connect the gateway tells what is still open, so a charge that
was asked for, taken back or ended while one of the two was away is settled then; one that came to
an end here is not taken again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from taprail_common.charge_wire import (
    MAX_CHARGE_S,
    ChargeAnswer,
    ChargeCancel,
    ChargeReply,
    ChargeRequest,
    DisplayText,
)
from taprail_common.clock import Clock
from taprail_common.errors import IllegalTransitionError
from taprail_common.wire import CLOCK_SKEW_MS, to_ms
from taprail_terminal.checkout import Checkout
from taprail_terminal.outbox import OutboxRow, RequestState
from taprail_terminal.sale import Arm, Cancel, Event
from taprail_terminal.timeline import Timeline

MAX_ENDED: Final = 200
"""Charges whose end is remembered. They come one after the other, and each is good for five minutes
at most: whoever repeats an older request is refused by its deadline."""

EXPIRED: Final = "charge_expired"
CANCELLED: Final = "charge_cancelled"

_log = structlog.get_logger()


class Counter(Protocol):
    """What of the sale the till uses."""

    @property
    def state(self) -> Checkout: ...
    def apply(self, event: Event) -> None: ...
    def say_idle(self, text: str | None) -> None: ...


@dataclass(slots=True)
class _Current:
    """The charge that is on; `over` is what is answered once it is let go."""

    id: str
    timer: asyncio.TimerHandle
    over: ChargeAnswer | None = None


class Till:
    """One terminal's charges; belongs to the event loop. `clock_offset_ms` is the gateway's clock
    minus ours."""

    def __init__(
        self,
        currency: str,
        *,
        is_fixed: bool,
        counter: Counter,
        timeline: Timeline,
        clock: Clock,
        clock_offset_ms: Callable[[], int],
    ) -> None:
        self._currency = currency
        self._is_fixed = is_fixed
        self._counter = counter
        self._timeline = timeline
        self._clock = clock
        self._clock_offset_ms = clock_offset_ms
        self._say_through: Callable[[ChargeAnswer], None] | None = None
        self._current: _Current | None = None
        self._tapped: _Current | None = None
        self._wanted: ChargeRequest | None = None
        self._ended: dict[str, ChargeAnswer] = {}
        self._text_at_ms = 0

    @property
    def charge_id(self) -> str | None:
        """The charge that a card is asked for."""
        return None if self._current is None else self._current.id

    @property
    def asked_id(self) -> str | None:
        """The same, or what waits for the reader."""
        return self.charge_id if self._wanted is None else self._wanted.charge_id

    def begin(self, rows: Iterable[OutboxRow]) -> None:
        """Know the charges of an earlier run whose taps are on their way: they have had theirs."""
        for row in rows:
            charge_id = json.loads(row.body).get("chargeId")
            if row.state is RequestState.STORED and charge_id is not None:
                self._end(charge_id, ChargeReply.TAPPED)

    def speak_through(self, say: Callable[[ChargeAnswer], None]) -> None:
        """Tell the gateway by this what it has not asked for."""
        self._say_through = say

    def close(self) -> None:
        """Stop the clock."""
        if self._current is not None:
            self._current.timer.cancel()

    # --- what the gateway says ----------------------------------------------------------------

    def on_request(self, asked: ChargeRequest) -> ChargeAnswer | None:
        """Ask for a card, or say why not. What was answered before is answered again; without a
        reader there is no answer until it is back."""
        if asked.charge_id in self._ended:
            return self._ended[asked.charge_id]
        armed = ChargeAnswer(charge_id=asked.charge_id, answer=ChargeReply.ARMED)
        if asked.charge_id == self.charge_id:
            return armed
        left_ms = asked.deadline_ms - self._clock.now_ms() - self._clock_offset_ms()
        why = self._objection(asked, left_ms)
        if why is not None:
            return self._end(asked.charge_id, ChargeReply.REFUSED, why)
        if not self._counter.state.reader_ok:
            self._wanted = asked
            return None
        try:
            self._counter.apply(Arm(asked.amount, asked.charge_id))
        except IllegalTransitionError:
            return self._end(asked.charge_id, ChargeReply.BUSY)
        timer = asyncio.get_running_loop().call_later(
            left_ms / 1000, self._time_up, asked.charge_id
        )
        self._current = _Current(asked.charge_id, timer)
        self._timeline.tell("armed", amountUnits=asked.amount, charge=asked.charge_id)
        return armed

    def on_cancel(self, said: ChargeCancel) -> None:
        """Ask for no card any more; a tap that was quicker here is decided at the gateway."""
        over = ChargeAnswer(
            charge_id=said.charge_id, answer=ChargeReply.REFUSED, reason_code=CANCELLED
        )
        if self._wanted is not None and self._wanted.charge_id == said.charge_id:
            self._wanted = None
        if not self._let_go(over) and said.charge_id not in self._ended:
            self._remember(over)

    def on_text(self, said: DisplayText) -> None:
        """Show it while there is nothing to pay; an older one than the last is not shown again."""
        at_ms = to_ms(said.at)
        if at_ms >= self._text_at_ms:
            self._text_at_ms = at_ms
            self._counter.say_idle(said.text if said.text.isprintable() and said.text else None)

    def _objection(self, asked: ChargeRequest, left_ms: int) -> str | None:
        if self._is_fixed:
            return "fixed_price"
        if asked.currency != self._currency:
            return "currency_unsupported"
        if left_ms <= 0:
            return EXPIRED
        # Nobody gives longer: one of the two clocks is wrong, and the deadline with it.
        return "clock_skew" if left_ms > MAX_CHARGE_S * 1000 + CLOCK_SKEW_MS else None

    # --- what happens here --------------------------------------------------------------------

    def stepped(self) -> None:
        """The sale has moved: see what became of the charge."""
        state, wanted, tapped = self._counter.state, self._wanted, self._tapped
        if wanted is not None and state.reader_ok:
            self._wanted = None
            answer = self.on_request(wanted)
            if answer is not None:
                self._say(answer)
            return
        if tapped is not None and state.armed_charge == tapped.id:
            # The disk did not take the request, so it was not sent, and the card may come again.
            self._ended.pop(tapped.id, None)
            self._current, self._tapped = tapped, None
        current = self._current
        if current is None:
            return
        if state.armed_charge == current.id:
            if current.over is not None:
                self._disarm()
            return
        self._current = None
        if any(sale.charge_id == current.id for sale in state.unresolved):
            self._tapped = current
            self._end(current.id, ChargeReply.TAPPED)
            return
        current.timer.cancel()
        if current.over is not None:
            self._remember(current.over)
        else:
            self._say(self._end(current.id, ChargeReply.CANCELLED))
        self._timeline.tell("disarmed", charge=current.id)

    def _time_up(self, charge_id: str) -> None:
        over = ChargeReply.REFUSED
        self._let_go(ChargeAnswer(charge_id=charge_id, answer=over, reason_code=EXPIRED))

    def _let_go(self, over: ChargeAnswer) -> bool:
        """At once, or as soon as the card that is being read is done; False if it is not on."""
        found = [each for each in (self._current, self._tapped) if each is not None]
        for each in found:
            if each.id == over.charge_id:
                each.over = over
                self.stepped()
                return True
        return False

    def _disarm(self) -> None:
        try:
            self._counter.apply(Cancel())
        except IllegalTransitionError:
            _log.debug("a charge is over while a card is read")  # the next step comes here again

    def _say(self, answer: ChargeAnswer) -> None:
        if self._say_through is not None:
            self._say_through(answer)

    def _end(self, charge_id: str, answer: ChargeReply, code: str | None = None) -> ChargeAnswer:
        ended = ChargeAnswer(charge_id=charge_id, answer=answer, reason_code=code)
        self._remember(ended)
        return ended

    def _remember(self, ended: ChargeAnswer) -> None:
        self._ended[ended.charge_id] = ended
        if len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]

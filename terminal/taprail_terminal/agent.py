"""Runs the sale: turns what reader, gateway, till and clock report into steps of the checkout, and
carries out what the checkout asks for.

It decides nothing itself: when a card may be read and what is shown is in `checkout`, how a request
gets its verdict in `payments`. Everything here runs on the event loop, and nothing here blocks it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import structlog

from taprail_common import ids
from taprail_common.clock import Clock
from taprail_common.errors import IllegalTransitionError
from taprail_terminal import checkout
from taprail_terminal.charge import Charge, ChargeMaker
from taprail_terminal.outbox import OutboxRow
from taprail_terminal.outcome import CardProof, NotOurs
from taprail_terminal.payments import Payments
from taprail_terminal.readers.polling import (
    Changed,
    Finished,
    Gone,
    Lies,
    Lost,
    Opened,
    Report,
    Sensed,
    Torn,
    Unreadable,
)
from taprail_terminal.sale import (
    CARD_CHANGED,
    Ask,
    CardLies,
    CardRead,
    CardRejected,
    CardRemoved,
    CardSensed,
    CardTorn,
    CardUnreadable,
    Effect,
    Event,
    Phase,
    PinGiven,
    PinLeft,
    ReaderBack,
    ReaderLost,
    Result,
    Sale,
    SetReader,
    Show,
    TimeUp,
    View,
)
from taprail_terminal.tap_log import TapLog
from taprail_terminal.timeline import Timeline

TORN: Final = "card removed too early"
CHANGED: Final = "another card took its place"
UNREADABLE: Final = "the card could not be read"
NO_READER: Final = "the card reader does not work"

OUTCOMES: Final = frozenset({Phase.APPROVED, Phase.SETTLED, Phase.DECLINED})
"""Phases that say what became of a request."""

_log = structlog.get_logger()


class ReaderSwitch(Protocol):
    """What of the reader the sale uses."""

    def arm(self, *, by_itself: bool) -> None: ...
    def disarm(self) -> None: ...


class ViewSink(Protocol):
    """Lights, sound and display: takes a view at once and shows the newest."""

    def show(self, view: View) -> None: ...


class OfflineSales(Protocol):
    """What of the sales without the gateway the sale uses."""

    def charge(
        self, request_id: str, amount_units: int, *, pin_wanted: bool
    ) -> Charge | NotOurs | None: ...
    def refuses(self, card: CardProof) -> NotOurs | None: ...


class PinPad(Protocol):
    """What of the PINs the sale uses."""

    def asks_above(self, amount_units: int) -> bool: ...
    def seal(self, request_id: str, card: CardProof, pin: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """How this terminal sells."""

    currency: str
    decimals: int
    fixed_units: int | None
    verdict_timeout_s: float


@dataclass(frozen=True, slots=True)
class _Offer:
    """The request that the next card is read for. Its id is minted before the tap, for a card that
    signs, and stays until a card was read: whatever was signed for it can be charged once."""

    request_id: str
    amount_units: int


class Agent:
    """One terminal's sales. `reader`, `feedback` and `payments` are joined by `start`."""

    def __init__(
        self, terms: Terms, charges: ChargeMaker, taps: TapLog, timeline: Timeline, clock: Clock
    ) -> None:
        self._terms = terms
        self._charges = charges
        self._taps = taps
        self._timeline = timeline
        self._clock = clock
        self._reader: ReaderSwitch | None = None
        self._feedback: ViewSink | None = None
        self._payments: Payments | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._card: CardProof | None = None
        self._sealed_pin: str | None = None
        self._pins: PinPad | None = None
        self._offline: OfflineSales | None = None
        self._offer: _Offer | None = None
        self._idle_text: str | None = None
        self._on_step: Callable[[], None] | None = None
        self.state = self._begin(())

    def ask_pins(self, pins: PinPad) -> None:
        """There is a keypad here."""
        self._pins = pins

    def sell_offline(self, sales: OfflineSales) -> None:
        """Cards may be taken here while the gateway is away."""
        self._offline = sales

    # --- life -------------------------------------------------------------------------------

    def start(
        self,
        *,
        reader: ReaderSwitch,
        feedback: ViewSink,
        payments: Payments,
        interrupted: list[OutboxRow],
    ) -> None:
        """Begin, with interrupted work first: what has no verdict is posted again as it was, and
        a verdict that nobody has seen is shown as that of an earlier sale."""
        self._reader, self._feedback, self._payments = reader, feedback, payments
        taken = [row for row in interrupted if row.is_taken]
        unresolved = [row for row in interrupted if not row.is_taken]
        self.state = self._begin(_earlier(unresolved), _earlier(taken))
        self._show(self.state.view)
        for row in interrupted:
            self._spawn(payments.resume(row))

    async def stop(self) -> None:
        """Stop asking. What is unresolved is in the outbox."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(
        self, unresolved: tuple[Sale, ...], offline: tuple[Sale, ...] = ()
    ) -> checkout.Checkout:
        terms = self._terms
        return checkout.begin(
            currency=terms.currency,
            decimals=terms.decimals,
            fixed_units=terms.fixed_units,
            verdict_timeout_s=terms.verdict_timeout_s,
            unresolved=unresolved,
            offline=offline,
        )

    # --- the checkout's steps and effects -----------------------------------------------------

    def apply(self, event: Event) -> None:
        """Take a step. Raises IllegalTransitionError when the table has none; nothing changes."""
        before = self.state
        self.state, effects = checkout.step(before, event, self._clock.monotonic_s())
        if self.state.untold > before.untold:
            _log.error("a late result found no place; it is shown at the next start")
        if self.state.left_behind and not before.left_behind:
            self._timeline.tell("card_left", request=self.state.view.request_id)
        for effect in effects:
            self._carry_out(effect)
        self._set_timer()
        if self._on_step is not None:
            self._on_step()

    def watch(self, on_step: Callable[[], None]) -> None:
        """Have this called after each step, when all is done that the step asked for."""
        self._on_step = on_step

    def report(self, event: Event) -> None:
        """Take a step for something that has happened and cannot be sent back."""
        if isinstance(event, Result) and not self._waits_for(event.request_id):
            outcome = "approved" if event.approved else "declined"
            self._timeline.tell("resolved", request=event.request_id, outcome=outcome)
        try:
            self.apply(event)
        except IllegalTransitionError as exc:
            _log.error("a step that the table does not have", reason=str(exc))

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Ask(sale) if self._payments is not None and self._card is not None:
                self._spawn(self._payments.sell(sale, self._card, self._sealed_pin))
                self._card = self._sealed_pin = None
            case SetReader(armed, by_itself) if self._reader is not None:
                if armed:
                    self._make_offer()
                    self._reader.arm(by_itself=by_itself)
                else:
                    self._reader.disarm()
            case Show(view):
                self._show(view)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.state.deadline_s is not None:
            wait_s = max(0.0, self.state.deadline_s - self._clock.monotonic_s())
            self._timer = self._loop.call_later(wait_s, self.report, TimeUp())

    def say_idle(self, text: str | None) -> None:
        """The words for the time in which there is nothing to pay; None for the terminal's own."""
        self._idle_text = text
        if self.state.phase is Phase.IDLE:
            self._show(self.state.view)

    def _show(self, view: View) -> None:
        if view.phase is Phase.IDLE:
            view = replace(view, idle_text=self._idle_text)
        self._taps.judge(view)
        if view.phase is Phase.UNKNOWN:
            self._timeline.tell("unknown", request=view.request_id)
        self._timeline.tell(
            "view",
            phase=view.phase.value,
            amountUnits=view.amount_units,
            cardPresent=view.card_present,
            reason=view.reason,
            leftUnits=view.left_units,
            late=view.late or None,
            request=view.request_id,
            idleText=view.idle_text,
        )
        if self._feedback is not None:
            self._feedback.show(view)

    def on_shown(self, view: View, at_s: float) -> None:
        """Lights and display have been driven to the view."""
        self._taps.shown(view, at_s)
        self._timeline.tell("shown", at_s=at_s, phase=view.phase.value, request=view.request_id)
        if view.request_id is None or self._payments is None:
            return
        if view.phase in OUTCOMES:
            self._spawn(self._payments.shown(view.request_id))
        elif view.phase is Phase.OFFLINE:
            self._spawn(self._payments.told(view.request_id))

    def _waits_for(self, request_id: str) -> bool:
        return self.state.phase is Phase.WAITING and self.state.view.request_id == request_id

    # --- cards --------------------------------------------------------------------------------

    def on_report(self, report: Report, at_s: float) -> None:
        """What the reader says."""
        match report:
            case Opened(name):
                self.report(ReaderBack())
                self._timeline.tell("reader", at_s=at_s, ok=True, name=name)
            case Lost(reason):
                self.report(ReaderLost(NO_READER))
                self._timeline.tell("reader", at_s=at_s, ok=False, reason=reason)
            case Sensed():
                self._taps.begin(at_s)
                self.report(CardSensed())
            case Finished(CardProof() as proof):
                self._sell_to(proof, at_s)
            case Finished(NotOurs() as why):
                self._refuse(why, at_s)
            case Changed():
                self._timeline.tell("try_again", at_s=at_s, reason=CHANGED)
                self.report(CardUnreadable(CHANGED, CARD_CHANGED))
            case Torn():
                self._timeline.tell("try_again", at_s=at_s, reason=TORN)
                self.report(CardTorn(TORN))
            case Unreadable(detail):
                text = f"{UNREADABLE}: {detail}" if detail else UNREADABLE
                self._timeline.tell("try_again", at_s=at_s, reason=text)
                self.report(CardUnreadable(text))
            case Lies(unseen):
                self._timeline.tell("card_lies", at_s=at_s)
                self.report(CardLies(unseen))
            case Gone():
                self._timeline.tell("card_removed", at_s=at_s)
                self.report(CardRemoved())

    def _refuse(self, why: NotOurs, at_s: float) -> None:
        self._timeline.tell("card_refused", at_s=at_s, code=why.code)
        self.report(CardRejected(why.reason, why.code))

    def charge(self) -> Charge | NotOurs | None:
        """What a signing card that is there now shall sign, or why it is not taken. Called in the
        reader's thread."""
        offer, state = self._offer, self.state
        if offer is None:
            return None
        terms = (offer.request_id, offer.amount_units)
        # A till's charge is the gateway's own, and over before it could be told of the tap.
        if self._offline is not None and state.armed_charge is None:
            taken = self._offline.charge(*terms, pin_wanted=state.pin_wanted)
            if taken is not None:
                return taken
        return self._charges.make(*terms)

    def _make_offer(self) -> None:
        amount_units = self.state.next_units
        if amount_units is None or (self._offer and self._offer.amount_units == amount_units):
            return
        self._offer = _Offer(ids.new_id("req"), amount_units)

    def _sell_to(self, proof: CardProof, at_s: float) -> None:
        request_id = self._offer.request_id if self._offer else ids.new_id("req")
        if proof.request_id not in {None, request_id}:
            # The till has changed the amount while the card signed for the old one.
            self._timeline.tell("try_again", at_s=at_s, reason=UNREADABLE)
            self.report(CardUnreadable(UNREADABLE))
            return
        no = None if self._offline is None else self._offline.refuses(proof)
        if no is not None:
            self._refuse(no, at_s)
            return
        self._card, self._offer = proof, None
        self._taps.name(request_id)
        self._taps.reach("read", request_id, at_s=at_s, profile=proof.proof.profile)
        amount_units = self.state.next_units or 0
        needs_pin = (
            self._pins is not None
            and proof.offline is None
            and (self.state.pin_wanted or self._pins.asks_above(amount_units))
        )
        self.report(CardRead(request_id, needs_pin))

    def give_pin(self, pin: str) -> None:
        """What the card's holder has typed; empty where they have none."""
        sale = self.state.sale
        if self._pins is None or self._card is None or sale is None:
            raise IllegalTransitionError("nobody is asked for a PIN")
        if pin:
            self._sealed_pin = self._pins.seal(sale.request_id, self._card, pin)
        self.apply(PinGiven())

    def leave_pin(self) -> None:
        """The card's holder does not want to; nothing was sent."""
        self.apply(PinLeft())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            _log.error("a task of the terminal failed", exc_info=exc)


def _earlier(rows: list[OutboxRow]) -> tuple[Sale, ...]:
    return tuple(Sale(row.request_id, row.amount_units, earlier=True) for row in rows)

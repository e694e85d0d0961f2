"""One sale at the counter, as a pure state table.

    IDLE ──arm──▶ READY ──card──▶ READING ──read──▶ WAITING ──yes──▶ APPROVED ──settled──▶ SETTLED
                    ▲                │ ╰─▶ PIN ─typed─▶ │ ├───no───▶ DECLINED
                    ╰── TRY_AGAIN ◀──╯ torn             │ ╰─taken──▶ OFFLINE ──yes, no──▶ as above
                                                        ╰─time up──▶ UNKNOWN ──yes, no──▶ as above

Answers for what the customer and the merchant are shown, and for when a card may be read. It holds
no money and no I/O: what must not be forgotten is in the outbox, and time comes in as an argument.
Two things run beside the phase and block it only where it rests: whether a card is in the field,
and whether the reader works.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from taprail_common.errors import IllegalTransitionError
from taprail_terminal.checkout_state import Checkout
from taprail_terminal.offline import LOSS
from taprail_terminal.sale import (
    PAYMENT_FAILED,
    Arm,
    Ask,
    Cancel,
    CardLies,
    CardRead,
    CardRejected,
    CardRemoved,
    CardSensed,
    CardTorn,
    CardUnreadable,
    Effect,
    Event,
    NotSent,
    NotSettled,
    Phase,
    PinGiven,
    PinLeft,
    ReaderBack,
    ReaderLost,
    Result,
    Sale,
    SetReader,
    Settled,
    SettledAfterAll,
    Show,
    TakenOffline,
    TimeUp,
    Typed,
)
from taprail_terminal.sale_table import REMARKS, REST, RESULT_SHOWN, TRANSITIONS, Kind

__all__ = ["SHOWN_S", "Checkout", "Phase", "begin", "step"]

SHOWN_S: Final = 4.0
"""How long a result stays when the card is gone: long enough to read why. The next card need not
wait for it."""

LEFT_BEHIND_S: Final = 10.0
"""A card that still lies there so long after its result was shown has been forgotten."""

PIN_S: Final = 30.0
"""For typing a PIN; who needs longer taps again."""

MAX_LATE_RESULTS: Final = 20
"""Late results that wait for their turn. What comes when all places are taken is counted and not
shown now: the outbox has it, and the next start shows it."""


def begin(
    *,
    currency: str,
    decimals: int,
    fixed_units: int | None,
    verdict_timeout_s: float,
    unresolved: tuple[Sale, ...] = (),
    offline: tuple[Sale, ...] = (),
) -> Checkout:
    """The state after a start, with the sales whose outcome an earlier run did not learn."""
    begun = Checkout(currency, decimals, fixed_units, verdict_timeout_s)
    return _rest(
        replace(begun, unresolved=unresolved, offline=offline), "the card reader is being opened"
    )


def step(state: Checkout, event: Event, now_s: float) -> tuple[Checkout, tuple[Effect, ...]]:
    """The state after the event at monotonic time `now_s`, and what has to be done.

    Raises IllegalTransitionError, and changes nothing, when the event cannot happen in this phase.
    """
    event = _as_loss(state, _late_as_no(state, event))
    if _says_nothing(state, event, now_s):
        return state, ()
    if isinstance(event, TimeUp) and state.phase is Phase.PIN:
        event = PinLeft()
    kind = _kind(state, event)
    _check(state, kind)
    noted = _note(state, event)
    row = TRANSITIONS[state.phase]
    if kind not in row:
        moved = noted
    elif (target := row[kind]) is REST:
        moved = _rest(noted, event.reason if isinstance(event, ReaderLost) else None)
    else:
        moved = _enter(noted, target, event)
    moved = _timed(state, moved, now_s)
    return moved, _effects(state, moved, event)


def _late_as_no(state: Checkout, event: Event) -> Event:
    """A disk that fails only after the customer was shown *unknown* brings a late no."""
    if not isinstance(event, NotSent):
        return event
    sale = state.sale if state.phase is Phase.WAITING else None
    if sale is not None and sale.request_id == event.request_id:
        return event
    return Result(event.request_id, False, event.reason, event.code)


def _as_loss(state: Checkout, event: Event) -> Event:
    """Who was told that a sale is taken is long gone when it is declined: staff has to know."""
    if not isinstance(event, Result) or event.approved or not _is_of(state.offline, event):
        return event
    code = event.code if event.code == PAYMENT_FAILED else LOSS
    return replace(event, code=code, may_come_again=False)


def _is_of(sales: tuple[Sale, ...], event: Result | TakenOffline) -> bool:
    return any(sale.request_id == event.request_id for sale in sales)


def _says_nothing(state: Checkout, event: Event, now_s: float) -> bool:
    if isinstance(event, TimeUp):
        return state.deadline_s is None or now_s < state.deadline_s
    if isinstance(event, Settled):
        # Only the sale that stands approved on the display can turn to settled there: the next
        # customer must not take another's result for their own.
        on_display = state.sale is not None and state.sale.request_id == event.request_id
        return not on_display or state.phase is not Phase.APPROVED
    if isinstance(event, Result):
        return not _is_of((*state.unresolved, *state.offline), event)
    if isinstance(event, TakenOffline):
        return not _is_of(state.unresolved, event)
    return False


_PLAIN_KINDS: Final[dict[type[Event], Kind]] = {
    Arm: Kind.ARM,
    Cancel: Kind.CANCEL,
    CardSensed: Kind.CARD,
    CardRead: Kind.READ,
    PinGiven: Kind.PIN_GIVEN,
    PinLeft: Kind.PIN_LEFT,
    Typed: Kind.TYPED,
    CardTorn: Kind.TORN,
    CardUnreadable: Kind.UNREADABLE,
    CardRejected: Kind.REJECTED,
    CardLies: Kind.LIES,
    CardRemoved: Kind.REMOVED,
    NotSent: Kind.NOT_SENT,
    Settled: Kind.SETTLED,
    NotSettled: Kind.LATE,
    SettledAfterAll: Kind.LATE,
    TimeUp: Kind.TIME_UP,
    ReaderLost: Kind.READER_LOST,
    ReaderBack: Kind.READER_BACK,
}


_ANSWERED_LATER: Final = frozenset({Phase.WAITING, Phase.UNKNOWN, Phase.OFFLINE})
"""Phases that stand for one sale whose verdict is still to come."""


def _is_about_the_card(state: Checkout) -> bool:
    """Whether what is shown is the result of the card that lies there. What is late is not."""
    return state.card_present and state.phase in RESULT_SHOWN and not state.late


def _kind(state: Checkout, event: Event) -> Kind:
    if isinstance(event, TimeUp) and _is_about_the_card(state):
        return Kind.LEFT_BEHIND
    if isinstance(event, CardLies) and event.unseen:
        return Kind.LIES_UNSEEN
    if isinstance(event, CardRead) and event.needs_pin:
        return Kind.READ_FOR_PIN
    if not isinstance(event, Result | TakenOffline):
        return _PLAIN_KINDS[type(event)]
    awaited = state.sale if state.phase in _ANSWERED_LATER else None
    if awaited is None or awaited.request_id != event.request_id:
        return Kind.LATE
    if isinstance(event, TakenOffline):
        return Kind.TAKEN
    return Kind.YES if event.approved else Kind.NO


def _check(state: Checkout, kind: Kind) -> None:
    possible = kind in TRANSITIONS[state.phase] or kind in REMARKS
    if kind is Kind.ARM:
        possible = possible and state.fixed_units is None and state.armed_units is None
        possible = possible and state.reader_ok
    if kind is Kind.CARD:
        possible = possible and state.armed
    if kind is Kind.TYPED and state.phase is not Phase.PIN:
        # Amounts are typed where the till has not asked for one, and no price is fixed.
        possible = possible and state.next_units is None and state.fixed_units is None
    if not possible:
        raise IllegalTransitionError(f"a terminal that is {state.phase} cannot take {kind!r}")


def _note(state: Checkout, event: Event) -> Checkout:
    """The facts that an event brings, before any phase changes."""
    match event:
        case Arm(amount_units, charge_id):
            return replace(
                state, armed_units=amount_units, armed_charge=charge_id, typed="", pin_wanted=False
            )
        case Cancel():
            return replace(state, armed_units=None, armed_charge=None, typed="", pin_wanted=False)
        case CardRead(request_id):
            chosen = replace(state, sale=_sale(state, request_id), pin_wanted=False)
            return chosen if event.needs_pin else _sell(chosen)
        case PinGiven():
            return replace(_sell(state), typed="")
        case PinLeft():
            return replace(state, typed="")
        case Typed(text):
            return replace(state, typed=text)
        case NotSent():
            return _take_back(state)
        case TakenOffline():
            return _take(state, event)
        case Result():
            return _resolve(state, event)
        case NotSettled() | SettledAfterAll():
            return _tell_later(state, event.sale, _as_result(event))
    return _note_reader(state, event)


def _note_reader(state: Checkout, event: Event) -> Checkout:
    """The same, of what lies on the reader and of the reader itself."""
    match event:
        case CardSensed() | CardLies():
            return replace(state, card_present=True)
        case CardTorn() | CardRemoved():
            return replace(state, card_present=False, left_behind=False)
        case TimeUp() if _kind(state, event) is Kind.LEFT_BEHIND:
            return replace(state, left_behind=True)
        case ReaderLost():
            return replace(state, reader_ok=False, card_present=False, left_behind=False)
        case ReaderBack():
            return replace(state, reader_ok=True)
    return state


def _sale(state: Checkout, request_id: str) -> Sale:
    if state.next_units is None:
        raise IllegalTransitionError("a card was read while there was nothing to pay")
    return Sale(request_id, state.next_units, charge_id=state.armed_charge)


def _sell(state: Checkout) -> Checkout:
    """From here on somebody may be charged, and the amount is asked of nobody else."""
    if state.sale is None:
        raise IllegalTransitionError("there is no sale to ask the gateway about")
    unresolved = (*state.unresolved, state.sale)
    return replace(state, unresolved=unresolved, armed_units=None, armed_charge=None)


def _take_back(state: Checkout) -> Checkout:
    others = tuple(other for other in state.unresolved if other != state.sale)
    return _ask_again(replace(state, unresolved=others))


def _ask_again(state: Checkout) -> Checkout:
    """Nothing was charged, and the amount is asked for as before; a fixed price always is."""
    if state.sale is None or state.fixed_units is not None:
        return replace(state, armed_units=None)
    return replace(state, armed_units=state.sale.amount_units, armed_charge=state.sale.charge_id)


def _take(state: Checkout, taken: TakenOffline) -> Checkout:
    """Its verdict is awaited for as long as it takes, and nobody has to wait for it here."""
    (sale,) = (sale for sale in state.unresolved if sale.request_id == taken.request_id)
    others = tuple(other for other in state.unresolved if other != sale)
    noted = replace(state, unresolved=others, offline=(*state.offline, sale))
    return _tell_later(noted, sale, taken) if _kind(state, taken) is Kind.LATE else noted


def _resolve(state: Checkout, result: Result) -> Checkout:
    waiting = (*state.unresolved, *state.offline)
    (sale,) = (sale for sale in waiting if sale.request_id == result.request_id)
    others = tuple(other for other in state.unresolved if other != sale)
    taken = tuple(other for other in state.offline if other != sale)
    resolved = replace(state, unresolved=others, offline=taken)
    if _kind(state, result) is Kind.LATE:
        is_news = not result.approved or any(sale == each for each, _ in state.late_results)
        if sale in state.offline and not is_news:
            return resolved  # as its customer was told
        return _tell_later(resolved, sale, result)
    if result.may_come_again:
        return replace(_ask_again(resolved), pin_wanted=True)
    return resolved


def _as_result(news: NotSettled | SettledAfterAll) -> Result:
    if isinstance(news, NotSettled):
        return Result(news.sale.request_id, approved=False, code=news.code)
    return Result(news.sale.request_id, approved=True, settled=True)


def _tell_later(state: Checkout, sale: Sale, result: Result | TakenOffline) -> Checkout:
    """Queue a late result; what was said of the same sale and not yet shown is out of date."""
    others = tuple(news for news in state.late_results if news[0].request_id != sale.request_id)
    if len(others) >= MAX_LATE_RESULTS:
        return replace(state, late_results=others, untold=state.untold + 1)
    return replace(state, late_results=(*others, (sale, result)))


def _enter(state: Checkout, phase: Phase, event: Event) -> Checkout:
    state = replace(
        state,
        phase=phase,
        reason=getattr(event, "reason", None),
        reason_code=getattr(event, "code", None),
    )
    match phase:
        case Phase.READY | Phase.READING | Phase.TRY_AGAIN | Phase.CARD_REFUSED:
            return replace(state, sale=None, result=None, late=False)
        case Phase.APPROVED | Phase.SETTLED | Phase.DECLINED if isinstance(event, Result):
            late = state.late or (state.sale is not None and state.sale.earlier)
            return replace(state, result=event, late=late)
        case Phase.OFFLINE:
            return replace(state, result=None)
        case Phase.PIN | Phase.WAITING:
            return replace(state, result=None, late=False)
    return state


def _rest(state: Checkout, reason: str | None = None) -> Checkout:
    """Where the terminal goes when nothing is going on: late news first, then what blocks it."""
    if state.late_results:
        (sale, news), *others = state.late_results
        shown = replace(state, sale=sale, late_results=tuple(others))
        return replace(_enter(shown, _phase_of(news), news), late=True)
    rested = replace(state, sale=None, result=None, late=False, reason=None, reason_code=None)
    if state.armed_units is None:
        rested = replace(rested, pin_wanted=False)
    if state.next_units is None and state.unresolved:
        sale = state.unresolved[-1]
        return replace(rested, phase=Phase.UNKNOWN, sale=sale, late=sale.earlier)
    if not state.reader_ok:
        return replace(rested, phase=Phase.OUT_OF_SERVICE, reason=reason or "no card reader")
    return replace(rested, phase=Phase.IDLE if state.next_units is None else Phase.READY)


def _phase_of(news: Result | TakenOffline) -> Phase:
    if isinstance(news, TakenOffline):
        return Phase.OFFLINE
    paid = Phase.SETTLED if news.settled else Phase.APPROVED
    return paid if news.approved else Phase.DECLINED


def _timed(before: Checkout, after: Checkout, now_s: float) -> Checkout:
    """Set when the clock moves the sale on."""
    span_s = _span_s(after)
    if span_s is None:
        return replace(after, deadline_s=None)
    goes_on = before.deadline_s is not None and _stretch(before) == _stretch(after)
    return replace(after, deadline_s=before.deadline_s if goes_on else now_s + span_s)


def _span_s(state: Checkout) -> float | None:
    """How long the clock lets this be: no result makes room while a card lies there."""
    if state.phase is Phase.WAITING:
        return state.verdict_timeout_s
    if state.phase is Phase.PIN:
        return PIN_S
    if state.phase not in RESULT_SHOWN or state.left_behind:
        return None
    return LEFT_BEHIND_S if _is_about_the_card(state) else SHOWN_S


def _stretch(state: Checkout) -> tuple[object, ...]:
    """What the clock runs for: when any of this changes, it starts anew."""
    return state.phase, state.sale, _is_about_the_card(state)


def _effects(before: Checkout, after: Checkout, event: Event) -> tuple[Effect, ...]:
    effects: list[Effect] = []
    begins = after.phase is Phase.WAITING and before.phase is not Phase.WAITING
    if begins and after.sale is not None:
        effects.append(Ask(after.sale))
    if before.armed != after.armed:
        by_itself = after.armed and not isinstance(event, Arm)
        effects.append(SetReader(after.armed, by_itself))
    if before.view != after.view:
        effects.append(Show(after.view))
    return tuple(effects)

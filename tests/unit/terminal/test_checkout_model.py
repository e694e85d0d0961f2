"""Every state that a sale can come to, found by walking: what holds in all of them.

The grid of `test_checkout` says what each step does; here a walk goes from the start over all
events, again and again, until it finds nothing new. There is one sale of an earlier run and one
of this, so it ends.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from functools import cache

import pytest

from taprail_common.errors import IllegalTransitionError
from taprail_terminal.checkout import Checkout, Phase, begin, step
from taprail_terminal.sale import (
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

PRICE = 250
EARLIER = Sale("r0", 70, earlier=True)
LEAST_STATES = 100
"""Fewer would mean that the walk is caught in a corner."""

EVENTS: tuple[Event, ...] = (
    Arm(PRICE, "c1"),
    Cancel(),
    CardSensed(),
    CardRead("r1"),
    CardRead("r1", needs_pin=True),
    PinGiven(),
    PinLeft(),
    Typed("1"),
    Typed(""),
    Result("r1", approved=False, may_come_again=True),
    CardTorn("torn"),
    CardUnreadable("noise"),
    CardRejected("a bank card"),
    CardLies(),
    CardLies(unseen=True),
    CardRemoved(),
    NotSent("r1", "disk"),
    *(Result(name, approved) for name in ("r1", "r0") for approved in (True, False)),
    TakenOffline("r1"),
    Settled("r1"),
    NotSettled(EARLIER),
    SettledAfterAll(EARLIER),
    TimeUp(),
    ReaderLost("cable"),
    ReaderBack(),
)

Step = tuple[Checkout, Event, Checkout, tuple[Effect, ...]]


def _start(fixed_units: int | None) -> Checkout:
    return begin(
        currency="USDC",
        decimals=2,
        fixed_units=fixed_units,
        verdict_timeout_s=3.0,
        unresolved=(EARLIER,),
    )


def _taken(state: Checkout, event: Event, seen: frozenset[str]) -> bool:
    """Whether the terminal would ever be told this: ids are minted once, verdicts come once."""
    if isinstance(event, CardRead):
        return event.request_id not in seen
    return not isinstance(event, NotSent) or any(
        sale.request_id == event.request_id for sale in state.unresolved
    )


@cache
def _walked(fixed_units: int | None) -> tuple[Step, ...]:
    """All steps there are, from every state that can be reached; the clock is always up."""
    first = (_start(fixed_units), frozenset[str]())
    steps: list[Step] = []
    known, queue = {first}, deque([first])
    while queue:
        state, seen = queue.popleft()
        for event in EVENTS:
            if not _taken(state, event, seen):
                continue
            try:
                after, effects = step(state, event, 1e9)
            except IllegalTransitionError:
                continue
            steps.append((state, event, after, effects))
            read = {event.request_id} if isinstance(event, CardRead) else set()
            # What the clock says and how much is queued makes no other state of the sale.
            found = (replace(after, deadline_s=after.deadline_s and 0.0), seen | read)
            if found not in known and len(after.late_results) < 2:
                known.add(found)
                queue.append(found)
    return tuple(steps)


MODES = pytest.mark.parametrize("fixed_units", [None, PRICE])


@MODES
def test_the_walk_comes_everywhere(fixed_units: int | None) -> None:
    steps = _walked(fixed_units)
    assert len({before for before, *_ in steps}) >= LEAST_STATES
    assert {after.phase for _, _, after, _ in steps} >= set(Phase) - {
        Phase.IDLE if fixed_units else Phase.READY
    }
    assert {type(event) for _, event, *_ in steps} >= {type(event) for event in EVENTS} - {
        Arm if fixed_units else Cancel,
        *({Typed} if fixed_units else ()),
    }


@MODES
def test_a_request_is_asked_once_and_only_by_a_card_that_was_read(fixed_units: int | None) -> None:
    for before, event, after, effects in _walked(fixed_units):
        asked = [effect.sale for effect in effects if isinstance(effect, Ask)]
        asks = isinstance(event, PinGiven) or (isinstance(event, CardRead) and not event.needs_pin)
        assert len(asked) == (1 if asks else 0), event
        if asks:
            assert before.phase in {Phase.READING, Phase.PIN}
            assert asked == [after.sale]
            assert asked[0] in after.unresolved
            assert asked[0].amount_units == before.next_units


@MODES
def test_the_reader_is_told_each_change_and_never_armed_on_a_card_that_it_reads(
    fixed_units: int | None,
) -> None:
    for before, event, after, effects in _walked(fixed_units):
        told = [effect for effect in effects if isinstance(effect, SetReader)]
        by_itself = after.armed and not isinstance(event, Arm)
        expected = SetReader(after.armed, by_itself)
        assert told == ([expected] if before.armed != after.armed else []), event
        if after.armed:
            assert after.reader_ok
            assert after.next_units is not None
            assert after.phase not in {Phase.READING, Phase.WAITING, Phase.UNKNOWN}


@MODES
def test_what_is_shown_is_what_changed(fixed_units: int | None) -> None:
    for before, event, after, effects in _walked(fixed_units):
        shown = [effect.view for effect in effects if isinstance(effect, Show)]
        assert shown == ([after.view] if before.view != after.view else []), event


@MODES
def test_green_is_somebodys_yes(fixed_units: int | None) -> None:
    """A sale turns green by its own verdict, or by the late one that waited for its turn."""
    for before, event, after, _ in _walked(fixed_units):
        if after.phase not in {Phase.APPROVED, Phase.SETTLED} or before.view == after.view:
            continue
        own = isinstance(event, Result | Settled) and after.view.request_id == event.request_id
        waited = any(
            sale.request_id == after.view.request_id and isinstance(news, Result) and news.approved
            for sale, news in before.late_results
        )
        stays = before.view.request_id == after.view.request_id and before.phase is after.phase
        late = isinstance(event, SettledAfterAll) and after.late
        assert own or waited or stays or late, (before, event)


@MODES
def test_a_late_result_says_that_it_is(fixed_units: int | None) -> None:
    for _, _, after, _ in _walked(fixed_units):
        if after.sale == EARLIER:
            assert after.view.late


@MODES
def test_from_everywhere_the_terminal_comes_to_rest(fixed_units: int | None) -> None:
    """Card away, reader back, verdicts in, time passing: nothing is wedged."""
    for state in {after for _, _, after, _ in _walked(fixed_units)}:
        rested = _settled_down(state)
        assert rested.phase is (Phase.READY if rested.next_units is not None else Phase.IDLE)
        assert rested.armed is (rested.next_units is not None)
        assert (rested.late_results, rested.unresolved, rested.offline) == ((), (), ())


def _settled_down(state: Checkout) -> Checkout:
    if state.phase is Phase.READING:
        state, _ = step(state, CardTorn("away"), 1e9)
    if state.phase is Phase.PIN:
        state, _ = step(state, PinLeft(), 1e9)
    state, _ = step(state, CardRemoved(), 1e9)
    state, _ = step(state, ReaderBack(), 1e9)
    for sale in (*state.unresolved, *state.offline):
        state, _ = step(state, Result(sale.request_id, approved=False), 1e9)
    if state.phase is Phase.READY and state.late_results:
        state, _ = step(state, Cancel(), 1e9)  # the amount that is asked for came first
    for turn in range(2, 12):
        state, _ = step(state, TimeUp(), turn * 1e9)
    return state

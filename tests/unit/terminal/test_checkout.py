"""The checkout's table: every phase with every event, and the stories that must hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from taprail_common.errors import IllegalTransitionError
from taprail_terminal.checkout import (
    LEFT_BEHIND_S,
    MAX_LATE_RESULTS,
    SHOWN_S,
    Checkout,
    Phase,
    begin,
    step,
)
from taprail_terminal.offline import LOSS
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

PRICE = 2_500_000
TIMEOUT_S = 3.0
LATER = 1e6

OLD = Sale("old", 700_000, earlier=True)
YES, NO = (
    Result("r1", True, auth_code="AUTH_1"),
    Result("r1", False, "over the limit", left_units=5),
)
OLD_YES, OLD_NO = Result("old", True), Result("old", False, "too late")

EVENTS: dict[str, Event] = {
    "arm": Arm(PRICE),
    "canc": Cancel(),
    "card": CardSensed(),
    "read": CardRead("r2"),
    "torn": CardTorn("too early"),
    "unrd": CardUnreadable("noise"),
    "rej": CardRejected("a bank card"),
    "lies": CardLies(),
    "unsn": CardLies(unseen=True),
    "gone": CardRemoved(),
    "nost": NotSent("r1", "disk"),
    "yes": YES,
    "no": NO,
    "late": OLD_YES,
    "stld": Settled("r1"),
    "time": TimeUp(),
    "lost": ReaderLost("cable"),
    "back": ReaderBack(),
    "undo": NotSettled(Sale("r0", 900_000, earlier=True)),
    "rpin": CardRead("r2", needs_pin=True),
    "pin": PinGiven(),
    "left": PinLeft(),
    "type": Typed("1"),
    "redo": SettledAfterAll(Sale("r0", 900_000, earlier=True)),
    "tkn": TakenOffline("r1"),
    "ltkn": TakenOffline(OLD.request_id),
}

# The product of a till's phases and all events: the phase after it, "=" when it stays, "-" when it
# cannot happen. Written by hand, not derived from the table under test.
GRID = """
               arm  canc card read torn unrd rej  lies unsn gone nost yes  no   late stld time lost back undo redo rpin pin  left type tkn  ltkn
idle           RDY  -    -    -    -    -    -    =    =    =    =    =    =    APP  =    =    OOS  =    DEC  SET  -    -    -    =    =    OFF
ready          -    IDL  RDG  -    -    -    -    =    =    =    =    =    =    APP  =    =    OOS  =    DEC  SET  -    -    -    -    =    OFF
reading        -    -    -    WAI  TRY  TRY  REF  =    =    =    =    =    =    =    =    =    OOS  =    =    =    PIN  -    -    -    =    =
pin            -    IDL  -    -    -    -    -    =    =    =    =    =    =    =    =    TRY  =    =    =    =    -    WAI  TRY  =    =    =
waiting        -    -    -    -    -    -    -    =    =    =    TRY  APP  DEC  =    =    UNK  =    =    =    =    -    -    -    =    OFF  =
approved       RDY  IDL  -    -    -    -    -    =    IDL  =    =    =    =    =    SET  IDL  =    =    =    =    -    -    -    IDL  =    =
settled        RDY  IDL  -    -    -    -    -    =    IDL  =    =    =    =    =    =    IDL  =    =    =    =    -    -    -    IDL  =    =
declined       RDY  IDL  -    -    -    -    -    =    IDL  =    =    =    =    =    =    IDL  =    =    =    =    -    -    -    IDL  =    =
unknown        RDY  -    -    -    -    -    -    =    =    =    DEC  APP  DEC  =    =    =    =    =    =    =    -    -    -    =    OFF  =
offline        RDY  IDL  -    -    -    -    -    =    IDL  =    DEC  APP  DEC  =    =    IDL  =    =    =    =    -    -    -    IDL  =    =
try_again      -    IDL  RDG  -    -    -    -    =    RDY  =    =    =    =    =    =    RDY  =    =    =    =    -    -    -    -    =    =
card_refused   -    IDL  RDG  -    -    -    -    =    RDY  =    =    =    =    =    =    RDY  =    =    =    =    -    -    -    -    =    =
out_of_service -    =    -    -    -    -    -    =    =    =    =    =    =    APP  =    =    =    IDL  DEC  SET  -    -    -    =    =    OFF
"""  # noqa: E501
SHORT = {
    "IDL": Phase.IDLE,
    "RDY": Phase.READY,
    "RDG": Phase.READING,
    "PIN": Phase.PIN,
    "WAI": Phase.WAITING,
    "APP": Phase.APPROVED,
    "SET": Phase.SETTLED,
    "DEC": Phase.DECLINED,
    "UNK": Phase.UNKNOWN,
    "OFF": Phase.OFFLINE,
    "TRY": Phase.TRY_AGAIN,
    "REF": Phase.CARD_REFUSED,
    "OOS": Phase.OUT_OF_SERVICE,
}


def start(fixed_units: int | None = None, unresolved: tuple[Sale, ...] = ()) -> Checkout:
    return begin(
        currency="USDC",
        decimals=6,
        fixed_units=fixed_units,
        verdict_timeout_s=TIMEOUT_S,
        unresolved=unresolved,
    )


def walk(state: Checkout, *events: Event, now_s: float = 0.0) -> Checkout:
    for event in events:
        state, _ = step(state, event, now_s)
    return state


def till(*events: Event) -> Checkout:
    return walk(start(), ReaderBack(), *events)


_TAPPED = (Arm(PRICE), CardSensed(), CardRead("r1"))
STATES: dict[Phase, Checkout] = {
    Phase.IDLE: till(),
    Phase.READY: till(Arm(PRICE)),
    Phase.READING: till(Arm(PRICE), CardSensed()),
    Phase.PIN: till(Arm(PRICE), CardSensed(), CardRead("r1", needs_pin=True)),
    Phase.WAITING: till(*_TAPPED),
    Phase.APPROVED: till(*_TAPPED, CardRemoved(), YES),
    Phase.SETTLED: till(*_TAPPED, CardRemoved(), YES, Settled("r1")),
    Phase.DECLINED: till(*_TAPPED, CardRemoved(), NO),
    Phase.UNKNOWN: walk(till(*_TAPPED, CardRemoved()), TimeUp(), now_s=LATER),
    Phase.OFFLINE: till(*_TAPPED, CardRemoved(), TakenOffline("r1")),
    Phase.TRY_AGAIN: till(Arm(PRICE), CardSensed(), CardTorn("too early")),
    Phase.CARD_REFUSED: till(Arm(PRICE), CardSensed(), CardRejected("no"), CardRemoved()),
    Phase.OUT_OF_SERVICE: start(),
}


def cells() -> list[tuple[Phase, str, str]]:
    header, *rows = GRID.strip().splitlines()
    names = header.split()
    grid = [(Phase(row.split()[0]), row.split()[1:]) for row in rows]
    return [
        (phase, name, cell) for phase, row in grid for name, cell in zip(names, row, strict=True)
    ]


def test_the_grid_is_whole() -> None:
    assert {(phase, name) for phase, name, _ in cells()} == {(p, n) for p in Phase for n in EVENTS}
    assert all(STATES[phase].phase is phase for phase in Phase)


@pytest.mark.parametrize(("phase", "name", "cell"), cells())
def test_every_phase_with_every_event(phase: Phase, name: str, cell: str) -> None:
    state = STATES[phase]
    if name in {"late", "ltkn"}:
        state = replace(state, unresolved=(OLD, *state.unresolved))
    if cell == "-":
        with pytest.raises(IllegalTransitionError):
            step(state, EVENTS[name], LATER)
        return
    after, _ = step(state, EVENTS[name], LATER)
    assert after.phase is (phase if cell == "=" else SHORT[cell])


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("name", EVENTS)
def test_no_step_but_a_verdict_resolves_a_sale(phase: Phase, name: str) -> None:
    """Whatever happens, a sale is forgotten only by its verdict, or because it was never sent."""
    state, event = STATES[phase], EVENTS[name]
    try:
        after, _ = step(state, event, LATER)
    except IllegalTransitionError:
        return
    lost = {*state.unresolved, *state.offline} - {*after.unresolved, *after.offline}
    assert not lost or isinstance(event, Result | NotSent)


@pytest.mark.parametrize("name", [name for name in EVENTS if name not in {"yes", "redo"}])
@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.APPROVED])
def test_green_comes_from_a_verdict_only(phase: Phase, name: str) -> None:
    try:
        after, _ = step(STATES[phase], EVENTS[name], LATER)
    except IllegalTransitionError:
        return
    assert after.phase is not Phase.APPROVED
    assert after.phase is not Phase.SETTLED or phase is Phase.SETTLED


def effects_of(state: Checkout, event: Event, now_s: float = 0.0) -> tuple[Effect, ...]:
    return step(state, event, now_s)[1]


def test_a_read_card_asks_the_gateway_once_and_disarms() -> None:
    reading = STATES[Phase.READING]
    assert not reading.armed
    state, effects = step(reading, CardRead("r1"), 0.0)
    assert effects == (Ask(Sale("r1", PRICE)), Show(state.view))
    assert effects_of(STATES[Phase.READY], CardSensed())[0] == SetReader(armed=False)


def test_a_time_out_is_unknown_and_never_declined() -> None:
    waiting = STATES[Phase.WAITING]
    assert step(waiting, TimeUp(), TIMEOUT_S - 0.01)[0] == waiting
    assert step(waiting, TimeUp(), TIMEOUT_S)[0].phase is Phase.UNKNOWN


def test_unknown_stays_until_the_verdict_and_then_is_shown() -> None:
    unknown = STATES[Phase.UNKNOWN]
    assert unknown.deadline_s is None
    assert walk(unknown, NO).view.reason == "over the limit"
    assert walk(unknown, YES).view.auth_code == "AUTH_1"


def fixed(*events: Event) -> Checkout:
    return walk(start(fixed_units=PRICE), ReaderBack(), *events)


def test_a_fixed_price_takes_the_next_card_while_the_last_result_still_shows() -> None:
    approved = fixed(CardSensed(), CardRead("r1"), YES)
    assert approved.armed
    assert approved.view.card_present
    reading = walk(approved, CardRemoved(), CardSensed())
    assert reading.phase is Phase.READING
    assert walk(reading, CardRead("r2")).sale == Sale("r2", PRICE)


def test_a_result_makes_room_only_when_the_card_is_away() -> None:
    approved = fixed(CardSensed(), CardRead("r1"), YES)
    assert walk(approved, TimeUp(), now_s=LATER).phase is Phase.APPROVED
    away = walk(approved, CardRemoved(), now_s=10.0)
    assert away.deadline_s == 10.0 + SHOWN_S
    assert walk(away, TimeUp(), now_s=10.0 + SHOWN_S).phase is Phase.READY


def test_a_fixed_price_waits_while_a_sale_is_unknown() -> None:
    unknown = walk(fixed(CardSensed(), CardRead("r1"), CardRemoved()), TimeUp(), now_s=LATER)
    assert unknown.phase is Phase.UNKNOWN
    assert not unknown.armed
    with pytest.raises(IllegalTransitionError):
        step(unknown, CardSensed(), LATER)
    assert walk(unknown, YES).armed


def test_a_fixed_price_cannot_be_armed_by_hand() -> None:
    with pytest.raises(IllegalTransitionError):
        fixed(Arm(1))


def test_a_torn_card_may_come_again_at_once() -> None:
    torn = fixed(CardSensed(), CardTorn("card removed too early"))
    assert torn.armed
    assert torn.view.reason == "card removed too early"
    assert walk(torn, CardSensed(), CardRead("r1")).phase is Phase.WAITING


def test_a_sale_that_could_not_be_stored_keeps_its_amount_for_the_next_card() -> None:
    again = till(*_TAPPED, NotSent("r1", "disk"), CardRemoved())
    assert again.unresolved == ()
    assert again.next_units == PRICE
    assert again.armed


def test_a_disk_that_fails_after_the_time_is_up_ends_the_sale_it_is_about() -> None:
    unknown = walk(fixed(CardSensed(), CardRead("r1"), CardRemoved()), TimeUp(), now_s=LATER)
    assert unknown.phase is Phase.UNKNOWN
    told = walk(unknown, NotSent("r1", "disk"), now_s=LATER)
    assert (told.phase, told.view.reason_code) == (Phase.DECLINED, "not_stored")
    assert told.next_units == PRICE  # else a fixed price would wait for it for ever


def test_an_interrupted_sale_is_unknown_after_a_restart_and_resolves_late() -> None:
    state = start(fixed_units=PRICE, unresolved=(OLD,))
    assert (state.phase, state.view.late) == (Phase.UNKNOWN, True)
    state = walk(state, ReaderBack())
    assert not state.armed
    state = walk(state, OLD_NO)
    assert (state.phase, state.view.late, state.view.amount_units) == (
        Phase.DECLINED,
        True,
        OLD.amount_units,
    )
    assert walk(state, TimeUp(), now_s=LATER).phase is Phase.READY


def test_of_several_interrupted_sales_each_result_is_shown_in_turn() -> None:
    other = Sale("older", 1, earlier=True)
    state = walk(start(unresolved=(other, OLD)), ReaderBack())
    state = walk(state, Result("older", True))
    assert state.phase is Phase.UNKNOWN  # the newer one is still what the customer asks about
    state = walk(state, OLD_NO)
    assert (state.phase, state.sale) == (Phase.DECLINED, OLD)
    state = walk(state, TimeUp(), now_s=LATER)
    assert (state.phase, state.sale, state.late) == (Phase.APPROVED, other, True)
    assert walk(state, TimeUp(), now_s=2 * LATER).phase is Phase.IDLE


def test_a_till_may_go_on_while_a_sale_is_unknown_and_hears_of_it_later() -> None:
    state = walk(STATES[Phase.UNKNOWN], Arm(5), CardSensed(), CardRead("r2"), YES)
    assert (state.phase, state.sale) == (Phase.WAITING, Sale("r2", 5))
    state = walk(state, Result("r2", False, "no"), CardRemoved(), now_s=LATER)
    state = walk(state, TimeUp(), now_s=2 * LATER)
    assert (state.phase, state.late) == (Phase.APPROVED, True)
    assert state.sale is not None
    assert state.sale.request_id == "r1"


def test_a_cancel_while_a_sale_is_unknown_goes_back_to_unknown() -> None:
    assert walk(STATES[Phase.UNKNOWN], Arm(5), Cancel()).phase is Phase.UNKNOWN


def test_a_reader_lost_in_mid_sale_costs_no_verdict() -> None:
    state = walk(STATES[Phase.WAITING], ReaderLost("cable"))
    assert (state.phase, state.card_present) == (Phase.WAITING, False)
    state = walk(state, YES)
    assert state.phase is Phase.APPROVED
    assert not state.armed
    assert walk(state, TimeUp(), now_s=LATER).phase is Phase.OUT_OF_SERVICE


def test_a_reader_that_comes_back_finds_the_amount_still_asked_for() -> None:
    state = walk(STATES[Phase.READY], ReaderLost("cable"))
    assert state.view.reason == "cable"
    assert walk(state, ReaderBack()).phase is Phase.READY


def test_a_verdict_that_comes_twice_changes_nothing() -> None:
    approved = STATES[Phase.APPROVED]
    assert step(approved, YES, 0.0) == (approved, ())
    assert step(approved, NO, 0.0) == (approved, ())


def test_only_the_sale_on_display_turns_to_settled() -> None:
    second = fixed(CardSensed(), CardRead("r1"), YES, CardRemoved(), CardSensed(), CardRead("r2"))
    assert walk(second, Settled("r1")).phase is Phase.WAITING
    second = walk(second, Result("r2", True))
    assert walk(second, Settled("r1")).phase is Phase.APPROVED
    assert walk(second, Settled("r2")).phase is Phase.SETTLED


def test_an_approved_sale_that_is_not_settled_waits_for_the_customer_to_go() -> None:
    comes_back = NotSettled(Sale("r0", 900_000, earlier=True))
    state = walk(start(PRICE), ReaderBack(), CardSensed(), CardRead("r1"), comes_back, YES)
    assert (state.phase, state.view.request_id) == (Phase.APPROVED, "r1")
    state = walk(state, CardRemoved())
    state = walk(state, TimeUp(), now_s=LATER)
    view = state.view
    assert (view.phase, view.request_id, view.amount_units) == (Phase.DECLINED, "r0", 900_000)
    assert (view.reason_code, view.late) == ("not_settled", True)


def test_a_sale_that_came_back_and_settles_after_all_is_announced() -> None:
    r0 = Sale("r0", 900_000, earlier=True)
    state = walk(till(), NotSettled(r0))
    assert (state.phase, state.view.reason_code) == (Phase.DECLINED, "not_settled")
    state = walk(state, SettledAfterAll(r0))
    assert state.phase is Phase.DECLINED  # for its time
    state = walk(state, TimeUp(), now_s=LATER)
    view = state.view
    assert (view.phase, view.late, view.amount_units) == (Phase.SETTLED, True, 900_000)


def test_bad_news_that_is_out_of_date_is_never_shown() -> None:
    r0 = Sale("r0", 900_000, earlier=True)
    state = walk(STATES[Phase.WAITING], NotSettled(r0), SettledAfterAll(r0), YES, CardRemoved())
    shown = walk(state, TimeUp(), now_s=LATER)
    assert (shown.phase, shown.view.request_id, shown.late_results) == (Phase.SETTLED, "r0", ())


def test_late_results_are_bounded_and_what_finds_no_place_is_counted() -> None:
    state = STATES[Phase.WAITING]
    for number in range(MAX_LATE_RESULTS + 5):
        state = walk(state, NotSettled(Sale(f"r{number + 10}", 1, earlier=True)))
    assert (len(state.late_results), state.untold) == (MAX_LATE_RESULTS, 5)
    first, _ = state.late_results[0]
    assert first.request_id == "r10"


def test_a_card_left_on_the_pad_is_asked_away_and_nothing_is_read_of_it() -> None:
    approved = till(*_TAPPED, YES)
    assert approved.deadline_s == LEFT_BEHIND_S
    left = walk(approved, TimeUp(), now_s=LEFT_BEHIND_S)
    assert (left.phase, left.view.left_behind, left.deadline_s) == (Phase.APPROVED, True, None)
    assert step(left, TimeUp(), LATER) == (left, ())  # reminded of once
    away = walk(left, CardRemoved(), now_s=LATER)
    assert (away.view.left_behind, away.deadline_s) == (False, LATER + SHOWN_S)


def test_no_earlier_green_stands_above_a_card_that_came_while_the_reader_was_away() -> None:
    approved = fixed(CardSensed(), CardRead("r1"), YES, CardRemoved(), ReaderLost("cable"))
    assert approved.phase is Phase.APPROVED  # who paid may read it on
    found = walk(approved, ReaderBack(), CardLies(unseen=True))
    assert (found.phase, found.view.card_present) == (Phase.READY, True)


def test_ones_own_result_stays_above_a_card_that_was_put_back() -> None:
    put_back = fixed(CardSensed(), CardRead("r1"), YES, CardRemoved(), CardLies())
    assert (put_back.phase, put_back.view.card_present) == (Phase.APPROVED, True)


def test_a_late_result_makes_room_whatever_lies_there() -> None:
    lies = walk(start(unresolved=(OLD,)), ReaderBack(), CardLies(unseen=True), OLD_YES)
    assert (lies.phase, lies.late, lies.deadline_s) == (Phase.APPROVED, True, SHOWN_S)
    assert walk(lies, TimeUp(), now_s=SHOWN_S).phase is Phase.IDLE


def test_a_card_that_leaves_does_not_give_the_gateway_more_time() -> None:
    waiting = walk(start(), ReaderBack(), Arm(PRICE), CardSensed(), CardRead("r1"), now_s=1.0)
    assert walk(waiting, CardRemoved(), now_s=2.0).deadline_s == 1.0 + TIMEOUT_S


def test_a_pin_is_typed_before_anything_is_sent() -> None:
    state, effects = step(STATES[Phase.READING], CardRead("r1", needs_pin=True), 0.0)
    assert (state.phase, state.unresolved) == (Phase.PIN, ())
    assert not [effect for effect in effects if isinstance(effect, Ask)]
    state = walk(state, CardRemoved(), Typed("••••"))
    assert state.view.typed == "••••"
    state, effects = step(state, PinGiven(), 0.0)
    assert (state.phase, state.view.typed) == (Phase.WAITING, "")
    assert effects[0] == Ask(Sale("r1", PRICE))


def test_a_pin_that_nobody_types_charges_nothing_and_the_card_may_come_again() -> None:
    state = walk(walk(STATES[Phase.PIN], CardRemoved()), TimeUp(), now_s=LATER)
    assert (state.phase, state.view.reason_code) == (Phase.TRY_AGAIN, "pin_missing")
    assert (state.unresolved, state.next_units, state.armed) == ((), PRICE, True)


def test_a_card_that_was_declined_for_its_pin_may_come_again_for_the_same_sale() -> None:
    tapped = till(Arm(PRICE, "c1"), CardSensed(), CardRead("r1"), CardRemoved())
    again = walk(tapped, Result("r1", False, code="pin_required", may_come_again=True))
    assert (again.phase, again.pin_wanted, again.armed_charge) == (Phase.DECLINED, True, "c1")
    assert again.armed
    tapped = walk(again, CardSensed(), CardRead("r2", needs_pin=True), PinGiven())
    assert tapped.sale == Sale("r2", PRICE, charge_id="c1")
    assert not tapped.pin_wanted


def test_a_sale_that_was_taken_offline_holds_nothing_up_and_comes_back_only_as_a_loss() -> None:
    taken = fixed(CardSensed(), CardRead("r1"), TakenOffline("r1"), CardRemoved())
    assert taken.phase is Phase.OFFLINE
    ready = walk(taken, TimeUp(), now_s=LATER)
    assert (ready.phase, ready.armed) == (Phase.READY, True)
    paid = walk(ready, YES)
    assert (paid.phase, paid.late_results, paid.offline) == (Phase.READY, (), ())
    lost = walk(ready, Result("r1", False, code="pin_wrong", may_come_again=True))
    assert (lost.phase, lost.view.late) == (Phase.DECLINED, True)
    assert (lost.view.reason_code, lost.armed_units) == (LOSS, None)


def test_what_was_taken_and_not_shown_before_a_power_cut_is_shown_after_it() -> None:
    state = walk(start(fixed_units=PRICE, unresolved=(OLD,)), TakenOffline(OLD.request_id))
    assert (state.phase, state.view.late, state.view.amount_units) == (
        *(Phase.OFFLINE, True),
        OLD.amount_units,
    )
    assert walk(state, ReaderBack(), TimeUp(), now_s=LATER).armed
    approved = walk(state, OLD_YES)
    assert (approved.phase, approved.late) == (Phase.APPROVED, True)


def test_a_yes_that_overtakes_the_news_of_a_taken_sale_takes_its_place() -> None:
    busy = walk(start(unresolved=(OLD,)), ReaderBack(), Arm(PRICE), CardSensed(), CardRead("r1"))
    noted = walk(busy, TakenOffline(OLD.request_id))
    assert [news for _, news in noted.late_results] == [TakenOffline(OLD.request_id)]
    assert [news for _, news in walk(noted, OLD_YES).late_results] == [OLD_YES]


def test_nothing_of_an_older_result_stands_beside_a_taken_sale() -> None:
    approved = till(*_TAPPED, CardRemoved(), YES)
    behind = replace(approved, unresolved=(OLD,))
    told = walk(behind, TakenOffline(OLD.request_id), TimeUp(), now_s=LATER)
    assert (told.phase, told.view.auth_code) == (Phase.OFFLINE, None)

"""What becomes of a charge at the terminal: taken once, let go in time, never mixed up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taprail_common.charge_wire import (
    ChargeAnswer,
    ChargeCancel,
    ChargeReply,
    ChargeRequest,
    DisplayText,
)
from taprail_common.wire import from_ms
from taprail_terminal.outbox import OutboxRow, RequestState
from taprail_terminal.sale import (
    Arm,
    Cancel,
    CardRead,
    CardRemoved,
    CardSensed,
    CardTorn,
    NotSent,
    Phase,
    ReaderBack,
    ReaderLost,
    Result,
)
from taprail_terminal.till import MAX_ENDED, Till
from tests.support.manual_clock import ManualClock
from tests.support.terminal_fixtures import Counter, make_till

PRICE = 2_500_000


def request(charge_id: str = "chg_1", *, left_ms: int = 60_000, **changes: Any) -> ChargeRequest:
    said = {
        "terminal_id": "t1",
        "charge_id": charge_id,
        "amount": PRICE,
        "currency": "USDC",
        "deadline": from_ms(ManualClock().now_ms() + left_ms),
        **changes,
    }
    return ChargeRequest.model_validate(said)


def cancel(charge_id: str = "chg_1") -> ChargeCancel:
    return ChargeCancel(terminal_id="t1", charge_id=charge_id, reason="cancelled")


class Scene:
    """A till at a counter, and what it said without being asked."""

    def __init__(self, *, fixed_units: int | None = None, offset_ms: int = 0) -> None:
        self.counter = Counter(fixed_units)
        self.till: Till = make_till(self.counter, ManualClock(), offset_ms)
        self.said: list[ChargeAnswer] = []
        self.till.speak_through(self.said.append)

    def ask(self, charge_id: str = "chg_1", **changes: Any) -> tuple[str, str | None] | None:
        answer = self.till.on_request(request(charge_id, **changes))
        return None if answer is None else (answer.answer.value, answer.reason_code)

    def tap(self, request_id: str = "r1") -> None:
        self.counter.apply(CardSensed())
        self.counter.apply(CardRead(request_id))

    @property
    def phase(self) -> Phase:
        return self.counter.state.phase


async def test_a_charge_arms_and_its_tap_carries_its_name() -> None:
    scene = Scene()
    assert scene.ask() == ("armed", None)
    assert scene.ask() == ("armed", None)  # told twice, taken once
    assert (scene.phase, scene.till.charge_id) == (Phase.READY, "chg_1")
    scene.tap()
    sale = scene.counter.state.sale
    assert sale is not None
    assert (sale.amount_units, sale.charge_id) == (PRICE, "chg_1")
    assert scene.till.charge_id is None
    assert scene.ask() == ("tapped", None)  # and never armed again, whatever becomes of it
    scene.counter.apply(Result("r1", approved=False))
    scene.counter.apply(CardRemoved())
    assert scene.ask() == ("tapped", None)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"left_ms": 0}, "charge_expired"),
        ({"left_ms": -10_000}, "charge_expired"),
        ({"left_ms": 331_000}, "clock_skew"),
        ({"currency": "EURC"}, "currency_unsupported"),
    ],
)
async def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], code: str) -> None:
    scene = Scene()
    assert scene.ask(**changes) == ("refused", code)
    assert scene.phase is Phase.IDLE
    assert scene.ask() == ("refused", code)  # the same charge does not become another by repeating


async def test_the_deadline_is_by_the_gateways_clock() -> None:
    assert Scene(offset_ms=60_000).ask() == ("refused", "charge_expired")
    assert Scene(offset_ms=59_999).ask() == ("armed", None)


async def test_a_fixed_price_takes_no_charges() -> None:
    assert Scene(fixed_units=PRICE).ask() == ("refused", "fixed_price")


async def test_one_action_at_a_time_whoever_asks() -> None:
    scene = Scene()
    scene.counter.apply(Arm(5))
    assert scene.ask() == ("busy", None)
    scene.counter.apply(Cancel())
    assert scene.ask() == ("busy", None)  # the till was told so; it asks anew
    assert scene.ask("chg_2") == ("armed", None)
    assert scene.ask("chg_3") == ("busy", None)
    assert scene.till.charge_id == "chg_2"
    assert scene.said == []


async def test_staff_may_take_it_back_and_the_gateway_hears_of_it() -> None:
    scene = Scene()
    scene.ask()
    scene.counter.apply(Cancel())
    assert scene.said == [ChargeAnswer(charge_id="chg_1", answer=ChargeReply.CANCELLED)]
    assert scene.ask() == ("cancelled", None)
    assert scene.phase is Phase.IDLE


async def test_a_cancel_disarms_and_a_late_request_does_not_arm_again() -> None:
    scene = Scene()
    scene.ask()
    scene.till.on_cancel(cancel("chg_of_another_time"))
    assert scene.phase is Phase.READY
    scene.till.on_cancel(cancel())
    assert (scene.phase, scene.said) == (Phase.IDLE, [])
    assert scene.ask() == ("refused", "charge_cancelled")
    assert scene.ask("chg_of_another_time") == ("refused", "charge_cancelled")
    assert scene.ask("chg_2") == ("armed", None)


async def test_a_cancel_while_a_card_is_read_lets_the_card_decide() -> None:
    torn, read = Scene(), Scene()
    for scene in (torn, read):
        scene.ask()
        scene.counter.apply(CardSensed())
        scene.till.on_cancel(cancel())
        assert scene.phase is Phase.READING
    torn.counter.apply(CardTorn("too early"))
    assert (torn.phase, torn.till.charge_id) == (Phase.IDLE, None)
    read.counter.apply(CardRead("r1"))
    assert (read.phase, read.ask()) == (Phase.WAITING, ("tapped", None))


async def test_a_tap_that_could_not_be_stored_leaves_the_charge_on() -> None:
    scene = Scene()
    scene.ask()
    scene.tap()
    scene.counter.apply(NotSent("r1", "disk"))
    assert (scene.till.charge_id, scene.ask()) == ("chg_1", ("armed", None))
    scene.counter.apply(CardRemoved())
    scene.tap("r2")
    assert scene.counter.state.sale is not None
    assert scene.counter.state.sale.charge_id == "chg_1"
    scene.till.on_cancel(cancel())
    scene.counter.apply(NotSent("r2", "disk"))
    assert (scene.phase, scene.till.charge_id) == (Phase.IDLE, None)


async def test_without_a_reader_the_answer_waits_for_it() -> None:
    scene = Scene()
    scene.counter.apply(ReaderLost("cable"))
    assert scene.ask() is None
    assert scene.till.asked_id == "chg_1"
    scene.counter.apply(ReaderBack())
    assert scene.said == [ChargeAnswer(charge_id="chg_1", answer=ChargeReply.ARMED)]
    assert (scene.phase, scene.till.charge_id) == (Phase.READY, "chg_1")
    scene.counter.apply(ReaderLost("cable"))
    scene.counter.apply(ReaderBack())
    assert (scene.phase, scene.till.charge_id) == (Phase.READY, "chg_1")


async def test_what_is_cancelled_while_the_reader_is_away_is_not_taken() -> None:
    scene = Scene()
    scene.counter.apply(ReaderLost("cable"))
    scene.ask()
    scene.till.on_cancel(cancel())
    scene.counter.apply(ReaderBack())
    assert (scene.phase, scene.said) == (Phase.IDLE, [])


async def test_a_tap_of_an_earlier_run_is_known_by_what_is_stored() -> None:
    def row(state: RequestState, **body: str) -> OutboxRow:
        return OutboxRow("r1", PRICE, "USDC", json.dumps(body).encode(), "", 0, state)

    scene = Scene()
    rows = [row(RequestState.STORED, chargeId="chg_1"), row(RequestState.STORED)]
    scene.till.begin([*rows, row(RequestState.DECLINED, chargeId="chg_2")])
    assert scene.ask("chg_1") == ("tapped", None)
    assert scene.ask("chg_2") == ("armed", None)


async def test_the_memory_of_ended_charges_is_bounded() -> None:
    scene = Scene()
    for number in range(3 * MAX_ENDED):
        scene.ask(f"chg_{number}")
        scene.till.on_cancel(cancel(f"chg_{number}"))
    assert len(scene.till._ended) == MAX_ENDED


async def test_an_older_text_does_not_replace_a_newer_one() -> None:
    scene = Scene()

    def text(words: str, at_ms: int) -> DisplayText:
        return DisplayText(terminal_id="t1", text=words, at=from_ms(at_ms))

    scene.till.on_text(text("Happy hour", 2_000))
    scene.till.on_text(text("Closed", 1_000))
    assert scene.counter.idle_text == "Happy hour"
    scene.till.on_text(text("", 3_000))
    assert scene.counter.idle_text is None


async def test_a_tap_declined_for_its_pin_leaves_the_charge_open_for_the_next() -> None:
    scene = Scene()
    assert scene.ask() == ("armed", None)
    scene.tap()
    scene.counter.apply(CardRemoved())
    assert scene.till.charge_id is None
    scene.counter.apply(Result("r1", approved=False, code="pin_required", may_come_again=True))
    assert scene.till.charge_id == "chg_1"
    assert scene.counter.state.armed
    scene.tap("r2")
    sale = scene.counter.state.sale
    assert sale is not None
    assert (sale.request_id, sale.charge_id) == ("r2", "chg_1")
    assert scene.ask() == ("tapped", None)

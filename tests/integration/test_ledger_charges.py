"""Charges in the ledger: one at a time, made once, and ended by exactly one of those who race."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from sqlalchemy import Connection, insert, literal, select

from taprail_common.api.charges import ChargeStatus
from taprail_common.clock import SystemClock
from taprail_common.errors import TapRailError
from taprail_common.payment_state import PaymentState
from taprail_gateway.charges import Asked, Charge
from taprail_gateway.ledger import charges, outbox, schema, webhooks
from taprail_gateway.ledger.charges import Tapped
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.errors import GuardError
from tests.support.ledger_fixtures import NOW_MS, Registry, on_both_engines, seed_registry
from tests.support.ledger_payments import accepted

pytestmark = on_both_engines

ASKED = Asked(1_250, "TUSD", "order-1", 60)
END_MS = NOW_MS + 60_000


@pytest.fixture
def registry(ledger: Ledger) -> Registry:
    return seed_registry(ledger)


def make(
    ledger: Ledger,
    asked: Asked = ASKED,
    key: str | None = None,
    *,
    terminal: str = "terminal_1",
    now_ms: int = NOW_MS,
) -> tuple[Charge, bool]:
    def work(connection: Connection) -> tuple[Charge, bool]:
        place = charges.place(connection, terminal)
        assert place is not None
        return charges.make(connection, place, asked, "user_1", key, now_ms)

    return ledger.write_now(work)


def read(ledger: Ledger, charge: Charge) -> Charge:
    found = ledger.read_now(lambda c: charges.find(c, charge.terminal_id, charge.id))
    assert found is not None
    return found


def cancel(ledger: Ledger, charge: Charge, at_ms: int = NOW_MS) -> bool:
    return ledger.write_now(cancelling(charge, at_ms))


def cancelling(charge: Charge, at_ms: int = NOW_MS) -> Callable[[Connection], bool]:
    return lambda connection: charges.end(
        connection, charge.terminal_id, charge.id, ChargeStatus.CANCELLED, at_ms
    )


def paying(charge: Charge, payment_id: str) -> Callable[[Connection], None]:
    taps = {charge.id: Tapped(payment_id, None)}
    return partial(charges.settle, taps=taps, at_ms=NOW_MS)


# --- made -----------------------------------------------------------------------------------------


def test_a_terminal_takes_one_charge_at_a_time(ledger: Ledger, registry: Registry) -> None:
    first, is_new = make(ledger)
    assert is_new
    assert (first.status, first.deadline_ms) == (ChargeStatus.WAITING, END_MS)
    other = Asked(99, "TUSD", "order-2", 60)
    with pytest.raises(charges.TerminalBusyError):
        make(ledger, other)
    assert cancel(ledger, first)
    second, is_new = make(ledger, other)
    assert is_new
    assert ledger.read_now(lambda c: charges.open_of(c, "terminal_1")) == second


def test_the_database_itself_refuses_a_second_open_charge(
    ledger: Ledger, registry: Registry
) -> None:
    make(ledger)

    def smuggle(connection: Connection) -> None:
        row = dict(connection.execute(select(schema.charges)).mappings().one())
        connection.execute(insert(schema.charges).values({**row, "id": "chg_other"}))

    with pytest.raises(Exception, match=r"(?i)unique"):
        ledger.write_now(smuggle)


def test_the_same_key_gives_the_same_charge_for_ever(ledger: Ledger, registry: Registry) -> None:
    first, _ = make(ledger, key="k1")
    assert make(ledger, key="k1") == (first, False)
    cancel(ledger, first)
    again, is_new = make(ledger, key="k1", now_ms=NOW_MS + 40 * 86_400_000)
    assert (again, is_new) == (read(ledger, first), False)
    assert again.status is ChargeStatus.CANCELLED
    for other in (
        Asked(1_251, "TUSD", "order-1", 60),
        Asked(1_250, "TUSD", "order-2", 60),
        Asked(1_250, "TUSD", "order-1", 61),
    ):
        with pytest.raises(charges.ReusedError):
            make(ledger, other, key="k1")
    assert make(ledger, key="k2")[1]


def test_an_order_is_charged_again_only_after_it_came_to_nothing(
    ledger: Ledger, registry: Registry
) -> None:
    first, _ = make(ledger)
    assert make(ledger, Asked(1_250, "TUSD", "order-1", 30)) == (first, False)
    with pytest.raises(charges.ReusedError):
        make(ledger, Asked(1_251, "TUSD", "order-1", 60))
    taps = {first.id: Tapped(None, "card_frozen")}
    ledger.write_now(lambda c: charges.settle(c, taps, NOW_MS))
    second, is_new = make(ledger)
    assert is_new
    (payment_id,) = accepted(ledger, registry)
    ledger.write_now(paying(second, payment_id))
    paid, is_new = make(ledger)
    assert not is_new
    assert (paid.id, paid.status, paid.payment_id) == (second.id, "approved", payment_id)


def test_who_is_late_makes_room(ledger: Ledger, registry: Registry) -> None:
    first, _ = make(ledger)
    with pytest.raises(charges.TerminalBusyError):
        make(ledger, Asked(1, "TUSD", "order-2", 60), now_ms=END_MS)
    assert make(ledger, Asked(1, "TUSD", "order-2", 60), now_ms=END_MS + 1)[1]
    assert read(ledger, first).status is ChargeStatus.EXPIRED


def test_a_revoked_terminal_takes_nothing(ledger: Ledger, registry: Registry) -> None:
    ledger.write_now(lambda c: c.execute(schema.terminals.update().values(status="revoked")))
    with pytest.raises(charges.TerminalClosedError):
        make(ledger)


# --- ended ----------------------------------------------------------------------------------------


def test_arming_is_noted_once_and_not_after_the_end(ledger: Ledger, registry: Registry) -> None:
    charge, _ = make(ledger)

    def arm(at_ms: int) -> bool:
        return ledger.write_now(lambda c: charges.arm(c, "terminal_1", charge.id, at_ms))

    assert not ledger.write_now(lambda c: charges.arm(c, "another", charge.id, NOW_MS))
    assert [arm(NOW_MS + 1), arm(NOW_MS + 2)] == [True, False]
    assert read(ledger, charge).armed_at_ms == NOW_MS + 1
    assert cancel(ledger, charge)
    assert not arm(NOW_MS + 3)
    assert read(ledger, charge).status is ChargeStatus.CANCELLED


def test_a_tap_that_comes_after_the_cancel_pays_nothing(ledger: Ledger, registry: Registry) -> None:
    charge, _ = make(ledger)
    (payment_id,) = accepted(ledger, registry)
    assert cancel(ledger, charge)
    with pytest.raises(GuardError):
        ledger.write_now(paying(charge, payment_id))
    assert read(ledger, charge).payment_id is None


def test_a_cancel_that_comes_after_the_tap_changes_nothing(
    ledger: Ledger, registry: Registry
) -> None:
    charge, _ = make(ledger)
    (payment_id,) = accepted(ledger, registry)
    ledger.write_now(paying(charge, payment_id))
    before = read(ledger, charge)
    assert not cancel(ledger, charge, NOW_MS + 5)
    assert ledger.write_now(lambda c: charges.expire(c, END_MS + 1)) == []
    assert read(ledger, charge) == before
    assert (before.status, before.payment_id) == (ChargeStatus.APPROVED, payment_id)


async def test_of_cancel_tap_and_deadline_at_once_exactly_one_wins(
    ledger: Ledger, ledger_url: str, ledger_engine: str, registry: Registry
) -> None:
    """On a server by two writers with connections of their own, on a file by one."""
    rivals = [ledger]
    if ledger_engine == "postgresql":
        rivals.append(Ledger.open(ledger_url, clock=SystemClock()))
        await rivals[1].start()
    won: set[ChargeStatus] = set()
    for number, payment_id in enumerate(accepted(ledger, registry, 30)):
        charge, _ = make(ledger, Asked(5, "TUSD", f"order-{number}", 60))
        works: list[Callable[[Connection], object]] = [
            cancelling(charge),
            paying(charge, payment_id),
            partial(charges.expire, now_ms=END_MS + 1),
        ]
        turned = works[number % 3 :] + works[: number % 3]
        calls = [rivals[at % len(rivals)].write(work) for at, work in enumerate(turned)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        winners = sum(
            each is True or each is None or (isinstance(each, list) and len(each) == 1)
            for each in outcomes
        )
        assert winners == 1, outcomes
        assert all(isinstance(e, GuardError) for e in outcomes if isinstance(e, BaseException))
        ended = read(ledger, charge)
        won.add(ended.status)
        assert (ended.status is ChargeStatus.APPROVED) == (ended.payment_id == payment_id)
    assert won == {ChargeStatus.CANCELLED, ChargeStatus.APPROVED, ChargeStatus.EXPIRED}
    for other in rivals[1:]:
        await other.close()


async def test_of_many_tills_at_once_one_gets_the_terminal(
    ledger: Ledger, ledger_url: str, ledger_engine: str, registry: Registry
) -> None:
    other = ledger
    if ledger_engine == "postgresql":
        other = Ledger.open(ledger_url, clock=SystemClock())
        await other.start()

    async def ask(at: Ledger, number: int) -> bool:
        def work(connection: Connection) -> bool:
            place = charges.place(connection, "terminal_1")
            assert place is not None
            asked = Asked(number, "TUSD", f"order-{number}", 60)
            return charges.make(connection, place, asked, "user_1", None, NOW_MS)[1]

        with suppress(TapRailError):
            return await at.write(work)
        return False

    made = await asyncio.gather(*(ask((ledger, other)[n % 2], n) for n in range(1, 11)))
    assert made.count(True) == 1
    if other is not ledger:
        await other.close()


# --- told -----------------------------------------------------------------------------------------


def test_what_changed_is_found_by_its_time(ledger: Ledger, registry: Registry) -> None:
    terminals = schema.terminals
    ledger.write_now(
        lambda c: c.execute(
            insert(terminals).from_select(
                [column.name for column in terminals.c],
                select(
                    *(
                        literal("terminal_2") if column.name == "id" else column
                        for column in terminals.c
                    )
                ),
            )
        )
    )
    first, _ = make(ledger)
    cancel(ledger, first, NOW_MS + 10)
    second, _ = make(ledger, Asked(1, "TUSD", "order-2", 60), now_ms=NOW_MS + 20)

    def since(at_ms: int) -> list[str]:
        return [each.id for each in ledger.read_now(lambda c: charges.changed_since(c, at_ms))]

    assert since(NOW_MS) == [first.id, second.id]
    assert since(NOW_MS + 11) == [second.id]
    assert since(NOW_MS + 21) == []
    # However few come at once, and however many of one moment, all of them come, each once.
    third, _ = make(
        ledger, Asked(1, "TUSD", "order-3", 60), terminal="terminal_2", now_ms=NOW_MS + 20
    )
    paged = ledger.read_now(lambda c: charges.changed_since(c, NOW_MS, page=1))
    assert [each.id for each in paged] == [first.id, *sorted([second.id, third.id])]
    assert ledger.read_now(charges.next_deadline_ms) == END_MS + 20


@pytest.mark.parametrize("enabled", [True, False])
def test_the_merchant_is_told_of_the_end_in_its_own_commit(
    ledger: Ledger, registry: Registry, enabled: bool
) -> None:
    states = {"webhook": [PaymentState.COMPLETED]} if enabled else {}
    ledger.write_now(lambda c: outbox.enable(c, states))
    ledger.write_now(
        lambda c: webhooks.add_endpoint(
            c, "whk_1", registry.merchant_id, "https://shop.example/hook", b"s", NOW_MS
        )
    )
    charge, _ = make(ledger)
    cancel(ledger, charge)
    cancel(ledger, charge)
    told = ledger.read_now(lambda c: webhooks.due(c, NOW_MS, 10))
    assert [(each.about, each.event) for each in told] == [(charge.id, "charge.cancelled")] * (
        1 if enabled else 0
    )


def test_a_text_replaces_the_one_before(ledger: Ledger, registry: Registry) -> None:
    assert ledger.read_now(lambda c: charges.text_of(c, "terminal_1")) is None
    for number, words in enumerate(("Happy hour", "")):
        text = charges.TerminalText("terminal_1", words, NOW_MS + number)
        ledger.write_now(partial(charges.set_text, text=text))
        assert ledger.read_now(lambda c: charges.text_of(c, "terminal_1")) == text
    assert ledger.read_now(lambda c: charges.texts_since(c, NOW_MS + 1)) == [text]
    assert ledger.read_now(lambda c: charges.texts_since(c, NOW_MS + 2)) == []

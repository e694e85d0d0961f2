"""The outbox and the alerts of payments: written by the step itself, once, and undone with it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, select

from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_gateway.ledger import alerts, outbox, schema, transitions
from taprail_gateway.ledger.alerts import Alert
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.errors import GuardError
from tests.support.ledger_fixtures import NOW_MS, Registry, on_both_engines, seed_registry
from tests.support.ledger_payments import (
    VALID_BEFORE_S,
    accepted,
    bound,
    completed,
    confirm,
)

pytestmark = on_both_engines

COMPLETED, FAILED = PaymentState.COMPLETED, PaymentState.FAILED


@pytest.fixture
def registry(ledger: Ledger) -> Registry:
    return seed_registry(ledger)


@pytest.fixture
def wanted(ledger: Ledger) -> None:
    ledger.write_now(partial(outbox.enable, wanted={"reward": [COMPLETED], "bell": outbox.TOLD}))


def rows(ledger: Ledger) -> list[dict[str, Any]]:
    table = schema.callbacks
    found = ledger.read_now(lambda c: c.execute(select(table).order_by(table.c.id)).all())
    return [dict(row._mapping) for row in found]


def open_alerts(ledger: Ledger) -> list[Alert]:
    return ledger.read_now(alerts.open_alerts)


def take(ledger: Ledger, event: PaymentEvent, payment: str, **given: Any) -> None:
    ledger.write_now(lambda c: transitions.apply(c, event, [payment], NOW_MS, **given))


# --- rows ---------------------------------------------------------------------------------------


def test_nobody_asked_so_nothing_is_written(ledger: Ledger, registry: Registry) -> None:
    completed(ledger, registry, 3)
    assert rows(ledger) == []


@pytest.mark.usefixtures("wanted")
def test_a_completed_payment_has_a_row_for_each_who_asked(
    ledger: Ledger, registry: Registry
) -> None:
    [payment] = completed(ledger, registry)
    found = rows(ledger)
    assert [(row["kind"], row["payment_id"], row["state"]) for row in found] == [
        ("bell", payment, "completed"),
        ("reward", payment, "completed"),
    ]
    assert {(row["status"], row["tries"], row["due_at_ms"]) for row in found} == {
        ("waiting", 0, NOW_MS)
    }


@pytest.mark.usefixtures("wanted")
def test_the_row_and_the_step_are_one_commit(ledger: Ledger, registry: Registry) -> None:
    ids = accepted(ledger, registry, 2)
    bound(ledger, ids)

    def work(connection: Connection) -> None:
        confirm(connection, registry, ids)
        raise GuardError("no", ids)

    with pytest.raises(GuardError):
        ledger.write_now(work)
    assert rows(ledger) == []
    ledger.write_now(partial(confirm, registry=registry, payment_ids=ids))
    assert len(rows(ledger)) == 4


@pytest.mark.usefixtures("wanted")
def test_each_kind_is_told_of_its_states_only(ledger: Ledger, registry: Registry) -> None:
    [payment] = accepted(ledger, registry)
    take(ledger, PaymentEvent.REJECT, payment)
    assert [(row["kind"], row["state"]) for row in rows(ledger)] == [("bell", "failed")]


@pytest.mark.usefixtures("wanted")
def test_what_completes_again_after_a_reorg_is_told_of_once(
    ledger: Ledger, registry: Registry
) -> None:
    [payment] = completed(ledger, registry)
    first = rows(ledger)
    ledger.write_now(lambda c: outbox.finish(c, [row["id"] for row in first], NOW_MS))
    take(ledger, PaymentEvent.REORG, payment)
    ledger.write_now(partial(confirm, registry=registry, payment_ids=[payment]))
    assert [(row["id"], row["status"]) for row in rows(ledger)] == [
        (row["id"], "done") for row in first
    ]


@pytest.mark.usefixtures("wanted")
def test_who_no_longer_asks_is_not_told(ledger: Ledger, registry: Registry) -> None:
    ledger.write_now(partial(outbox.enable, wanted={}))
    completed(ledger, registry)
    assert rows(ledger) == []


# --- what the dispatcher asks -------------------------------------------------------------------


@pytest.mark.usefixtures("wanted")
def test_rows_are_due_in_order_and_one_of_a_payment_at_a_time(
    ledger: Ledger, registry: Registry
) -> None:
    [slow] = accepted(ledger, registry)
    bound(ledger, [slow])
    take(ledger, PaymentEvent.GIVE_UP, slow, failure_reason="late")
    ledger.write_now(partial(confirm, registry=registry, payment_ids=[slow]))
    [other] = completed(ledger, registry)
    due = partial(outbox.due, kind="bell", now_ms=NOW_MS, limit=10)
    found = ledger.read_now(due)
    assert [(each.payment_id, each.state) for each in found] == [
        (slow, PaymentState.CONFIRMATION_FAILED),
        (other, COMPLETED),
    ]
    ledger.write_now(lambda c: outbox.put_off(c, found[0], NOW_MS + 9, "no answer"))
    assert [each.payment_id for each in ledger.read_now(due)] == [other]
    ledger.write_now(lambda c: outbox.finish(c, [found[1].id], NOW_MS))
    assert ledger.read_now(partial(outbox.next_due_ms, kind="bell", after_ms=0)) == NOW_MS + 9
    ledger.write_now(lambda c: outbox.finish(c, [found[0].id], NOW_MS))
    assert [(each.payment_id, each.state) for each in ledger.read_now(due)] == [(slow, COMPLETED)]
    assert ledger.read_now(partial(outbox.next_due_ms, kind="nobody", after_ms=0)) is None


@pytest.mark.usefixtures("wanted")
def test_a_row_ends_once(ledger: Ledger, registry: Registry) -> None:
    completed(ledger, registry)
    [callback] = ledger.read_now(partial(outbox.due, kind="reward", now_ms=NOW_MS, limit=1))
    ledger.write_now(lambda c: outbox.finish(c, [callback.id], NOW_MS))
    for again in (
        lambda c: outbox.finish(c, [callback.id], NOW_MS),
        lambda c: outbox.put_off(c, callback, NOW_MS, "no"),
        lambda c: outbox.bury(c, callback, NOW_MS, "no"),
    ):
        with pytest.raises(GuardError):
            ledger.write_now(again)


@pytest.mark.usefixtures("wanted")
def test_what_is_given_up_is_dead_and_somebody_hears_of_it(
    ledger: Ledger, registry: Registry
) -> None:
    [payment] = completed(ledger, registry)
    [callback] = ledger.read_now(partial(outbox.due, kind="reward", now_ms=NOW_MS, limit=1))
    ledger.write_now(lambda c: outbox.bury(c, callback, NOW_MS, "never " * 200))
    dead = rows(ledger)[1]
    assert (dead["status"], dead["tries"], len(dead["last_error"])) == ("dead", 1, 500)
    [alert] = open_alerts(ledger)
    assert (alert.kind, alert.subject) == (outbox.DEAD_ALERT, f"reward:{payment}")
    assert alert.needs_review


# --- alerts of payments -------------------------------------------------------------------------


def test_an_unconfirmed_payment_is_listed_until_it_is_settled(
    ledger: Ledger, registry: Registry
) -> None:
    ids = accepted(ledger, registry, 2)
    bound(ledger, ids)
    for payment in ids:
        take(ledger, PaymentEvent.GIVE_UP, payment, failure_reason="not confirmed within 300 s")
    found = open_alerts(ledger)
    assert [(alert.kind, alert.subject, alert.text) for alert in found] == [
        ("confirmation_failed", payment, "not confirmed within 300 s") for payment in ids
    ]
    assert all(alert.needs_review for alert in found)
    ledger.write_now(partial(confirm, registry=registry, payment_ids=ids[:1]))
    assert [alert.subject for alert in open_alerts(ledger)] == ids[1:]
    take(ledger, PaymentEvent.DISPROVE, ids[1], failure_reason="expired unused")
    assert open_alerts(ledger) == []


@pytest.mark.parametrize(("priority", "told"), [(9, False), (10, True)])
def test_a_failed_payment_of_high_priority_is_flagged(
    ledger: Ledger, registry: Registry, priority: int, told: bool
) -> None:
    [payment] = accepted(ledger, registry, priority=priority)
    take(
        ledger,
        PaymentEvent.REJECT,
        payment,
        failure_reason="cancelled",
        final_time_s=VALID_BEFORE_S,
    )
    found = [(alert.kind, alert.subject, alert.needs_review) for alert in open_alerts(ledger)]
    assert found == ([("payment_failed", payment, True)] if told else [])

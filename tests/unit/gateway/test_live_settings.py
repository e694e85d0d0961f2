"""What operators set over the file: in force at once, checked as a whole, never fatal."""

from __future__ import annotations

import json
from functools import partial

import pytest

from taprail_common.clock import SystemClock
from taprail_common.errors import InputError
from taprail_gateway.ledger import actions, schema
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.alerts import open_alerts
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle import tuning
from taprail_gateway.settle.live import QUEUE_MODE, LiveSettings
from taprail_gateway.settle.settings import SettlementSettings
from taprail_gateway.settle.tuning import change, checked, names, overlay

BASE = SettlementSettings()
BY = By("olga", 1, "a trial")


def test_what_is_set_is_in_force_and_taken_back() -> None:
    live = LiveSettings(BASE)
    assert live.adopt({"payment_batch_size": 7, QUEUE_MODE: "paused"}) == {}
    assert live.now.payment_batch_size == 7
    assert live.now.payments_per_transaction == BASE.payments_per_transaction
    assert str(live.queue_mode) == "paused"
    live.adopt({})
    assert live.now == BASE
    assert str(live.queue_mode) == "running"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("payment_batch_size", 0, "a whole number from 1 to 500, not 0"),
        ("payment_batch_size", 501, "a whole number from 1 to 500, not 501"),
        ("payment_batch_size", True, "a whole number from 1 to 500, not True"),
        ("payment_batch_size", 5.0, "a whole number"),
        ("payment_batch_size", "5", "a whole number"),
        ("payment_batch_size", 10**400, "a whole number"),
        ("payment_batch_size", None, "a whole number"),
        ("payment_batch_size", [5], "a whole number"),
        ("payment_batch_interval_ms", 99, "from 100 to 60,000"),
        ("confirmations", 0, "from 1 to 1,000, or safe or finalized, not 0"),
        ("confirmations", "latest", "or safe or finalized, not 'latest'"),
        ("max_fee_cap_gwei", 0, "a number over 0 to 1,000,000, not 0"),
        ("max_fee_cap_gwei", float("nan"), "a number over 0"),
        ("max_fee_cap_gwei", float("inf"), "a number over 0"),
        ("no_such", 1, "no such setting; there are payment_batch_size, "),
        ("payment_batch_siz", 1, "perhaps payment_batch_size is meant"),
        (QUEUE_MODE, "paused", "no such setting"),
    ],
)
def test_what_does_not_hold_is_refused_with_its_range(name: str, value: object, said: str) -> None:
    with pytest.raises(InputError) as error:
        checked(BASE, {name: value})
    assert said in error.value.message
    assert error.value.field == name


@pytest.mark.parametrize("name", names())
def test_every_setting_has_a_range_a_meaning_and_holds_at_both_ends(name: str) -> None:
    assert "from" in tuning.may_be(name) or "over" in tuning.may_be(name)
    assert len(tuning.describe(name)) > 10
    checked(BASE, {name: getattr(BASE, name)})


def test_rules_over_several_settings_hold_for_all_together() -> None:
    with pytest.raises(InputError, match="priority_fee_gwei must be less"):
        checked(BASE, {"max_fee_cap_gwei": 1.0})
    both = checked(BASE, {"max_fee_cap_gwei": 1.0, "priority_fee_gwei": 0.5})
    assert both.max_fee_cap_wei == 10**9


def test_what_counts_as_final_is_a_depth_or_the_nodes_word_for_it() -> None:
    assert checked(BASE, {"confirmations": 12}).usual_depth == 12
    assert checked(BASE, {"confirmations": "safe"}).usual_depth == 32
    assert checked(BASE, {"confirmations": "finalized"}).confirmations == "finalized"
    assert SettlementSettings.model_validate({"confirmations": "3"}).confirmations == 3  # a twin


def test_one_bad_row_does_not_take_the_others_along() -> None:
    rows = {"payment_batch_size": -1, "from_the_future": 1, "confirmations": 3}
    now, passed_over = overlay(BASE, rows)
    assert now == SettlementSettings(confirmations=3)
    assert passed_over.keys() == {"payment_batch_size", "from_the_future"}
    live = LiveSettings(BASE)
    assert live.adopt({**rows, QUEUE_MODE: "asleep"}).keys() == {*passed_over, QUEUE_MODE}
    assert live.now == now
    assert str(live.queue_mode) == "running"


def test_rows_that_hold_only_together_are_taken_together() -> None:
    rows = {"max_fee_cap_gwei": 0.5, "priority_fee_gwei": 0.1, "payment_batch_size": 0}
    now, passed_over = overlay(BASE, rows)
    assert (now.max_fee_cap_gwei, now.priority_fee_gwei) == (0.5, 0.1)
    assert passed_over.keys() == {"payment_batch_size"}


def test_every_setting_of_the_public_contract_can_be_changed() -> None:
    assert {
        "payment_batch_size",
        "payment_batch_interval_ms",
        "payments_per_transaction",
        "confirmation_batch_size",
        "confirmation_interval_ms",
        "confirmation_timeout_s",
        "confirmations",
        "max_fee_cap_gwei",
        "priority_fee_gwei",
        "reset_stuck_after_s",
    } <= set(names())


def record(ledger: Ledger) -> list[tuple[str, str, str, str | None, str | None]]:
    """Who set what, from what, to what."""
    a = schema.operator_actions
    rows = ledger.read_now(lambda c: c.execute(a.select().order_by(a.c.id)).all())
    return [(row.actor, row.subject, row.reason, row.before, row.after) for row in rows]


async def test_all_of_a_change_is_on_record_or_none_of_it_is_made(ledger: Ledger) -> None:
    wanted = {"payment_batch_size": 7, "confirmations": "safe"}
    before, after = await ledger.write(lambda c: change(c, BASE, wanted, BY))
    assert (before, after.payment_batch_size, after.confirmations) == (BASE, 7, "safe")
    assert record(ledger) == [
        ("olga", "payment_batch_size", "a trial", "50", "7"),
        ("olga", "confirmations", "a trial", "1", '"safe"'),
    ]
    all_bad: tuple[dict[str, object], ...] = (
        {"confirmations": 2, "payment_batch_size": 0},
        {"priority_fee_gwei": 500.0},
    )
    for bad in all_bad:
        with pytest.raises(InputError):
            await ledger.write(partial(change, base=BASE, wanted=bad, by=BY))
    assert ledger.read_now(actions.stored_settings) == wanted
    assert len(record(ledger)) == 2
    await ledger.write(lambda c: change(c, BASE, {"confirmations": None}, BY))
    assert record(ledger)[2][3:] == ('"safe"', "1")
    await ledger.write(lambda c: change(c, BASE, {"confirmations": None}, BY))
    assert len(record(ledger)) == 3, "nothing was taken back"
    assert ledger.read_now(actions.stored_settings) == {"payment_batch_size": 7}


async def test_a_bad_row_raises_one_alert_until_it_is_put_right(ledger: Ledger) -> None:
    live = LiveSettings(BASE)
    at = {"changed_at_ms": SystemClock().now_ms(), "changed_by": "an older program"}
    row = {"name": "payment_batch_size", "value": json.dumps(100_000), **at}
    await ledger.write(lambda c: c.execute(schema.settings.insert().values(row)))
    broken = {"name": "confirmations", "value": "{ not JSON", **at}
    await ledger.write(lambda c: c.execute(schema.settings.insert().values(broken)))
    assert await live.look(ledger)
    assert not await live.look(ledger)
    assert live.now == BASE
    again = LiveSettings(BASE)  # after a restart
    await again.look(ledger)
    alerts = ledger.read_now(open_alerts)
    assert [alert.subject for alert in alerts] == ["confirmations", "payment_batch_size"]
    assert "from 1 to 500" in alerts[1].text
    await ledger.write(lambda c: change(c, BASE, {"payment_batch_size": 9}, BY))
    await live.look(ledger)
    assert live.now.payment_batch_size == 9
    assert [alert.subject for alert in ledger.read_now(open_alerts)] == ["confirmations"]


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201, "two\nlines"])
def test_a_reason_is_one_line_of_text(reason: str) -> None:
    with pytest.raises(InputError, match="reason"):
        By("olga", 1, reason)

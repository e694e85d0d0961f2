"""`taprail admin settings`, `queue`, `payment retry|cancel` and `lane` on a real ledger."""

from __future__ import annotations

import getpass
import json

import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

from taprail_common.errors import TapRailError
from taprail_common.payment_state import PaymentEvent
from taprail_gateway.admin import app
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger import claims, schema, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.judge import MAX_BINDINGS
from taprail_hwsim.dev_chain import DevChain
from tests.support.admin_fixtures import ACCOUNT, TOKEN, Admin
from tests.support.ledger_fixtures import LANE, NOW_MS, Registry, seed_registry
from tests.support.ledger_payments import accepted, bound, completed

FAR_S = 4_000_000_000
"""A time far ahead: what was signed until then may still be carried out."""


@pytest.fixture
def ledger(admin: Admin) -> Ledger:
    """The commands' own ledger."""
    return admin.ledger()


@pytest.fixture
def registry(ledger: Ledger) -> Registry:
    return seed_registry(ledger)


def on_record(admin: Admin) -> list[tuple[str, str, str | None]]:
    """Action, subject and reason of what was done, in order."""
    a = schema.operator_actions.c
    statement = select(a.action, a.subject, a.reason).order_by(a.id)
    return [tuple(row) for row in admin.do(lambda c: c.execute(statement).all())]


def given_up(ledger: Ledger, registry: Registry, count: int = 1) -> list[str]:
    ids = accepted(ledger, registry, count)
    bound(ledger, ids)
    ledger.write_now(
        lambda c: transitions.apply(
            c, PaymentEvent.GIVE_UP, ids, NOW_MS, failure_reason="not confirmed within 300 s"
        )
    )
    return ids


# --- settings -------------------------------------------------------------------------------------


def test_a_setting_is_changed_recorded_and_taken_back(admin: Admin) -> None:
    changed = admin.json("settings", "set", "payment_batch_size", "7", "--reason", "a trial")
    assert changed == {"name": "payment_batch_size", "before": 50, "value": 7}
    listed = {each["name"]: each for each in admin.json("settings", "list")}
    row = listed["payment_batch_size"]
    assert (row["value"], row["from"], row["default"]) == (7, "operator", 50)
    assert row["mayBe"] == "a whole number from 1 to 500"
    assert "a whole number from 1 to 500" in admin("settings", "list")
    admin("settings", "reset", "payment_batch_size")
    listed = {each["name"]: each for each in admin.json("settings", "list")}
    assert listed["payment_batch_size"]["from"] == "default"
    assert on_record(admin) == [
        ("set", "payment_batch_size", "a trial"),
        ("reset", "payment_batch_size", None),
    ]


def test_the_history_says_who_changed_what_when_and_why(admin: Admin) -> None:
    assert "Nothing was done." in admin("history")
    admin("settings", "set", "payment_batch_size", "7", "--reason", "a [trial]")
    admin("settings", "set", "confirmations", "safe")
    admin("settings", "reset", "payment_batch_size")
    admin("settings", "reset", "payment_batch_size")
    admin("queue", "pause", "--reason", "a flood")
    told = [
        (each["action"], each["subject"], each["before"], each["after"], each["reason"])
        for each in admin.json("history")
    ]
    assert told == [
        ("set", "queue_mode", "running", "paused", "a flood"),
        ("reset", "payment_batch_size", 7, 50, None),
        ("set", "confirmations", 1, "safe", None),
        ("set", "payment_batch_size", 50, 7, "a [trial]"),
    ]
    assert {each["actor"] for each in admin.json("history")} == {f"cli:{getpass.getuser()}"}
    assert all(each["atMs"] > 0 for each in admin.json("history"))
    of_one = admin.json("settings", "history", "payment_batch_size")
    assert [each["after"] for each in of_one] == [50, 7]
    assert [each["subject"] for each in admin.json("history", "queue_mode")] == ["queue_mode"]
    assert len(admin.json("settings", "history")) == 3
    assert len(admin.json("history", "--limit", "1")) == 1
    assert "a [trial]" in admin("settings", "history")
    with pytest.raises(TapRailError, match="perhaps payment_batch_size is meant"):
        admin("settings", "history", "payment_batch_sise")


def test_the_file_decides_where_no_operator_has(admin: Admin) -> None:
    with admin.config.open("a") as file:
        file.write("[settlement]\nconfirmations = 3\n")
    listed = {each["name"]: each for each in admin.json("settings", "list")}
    assert (listed["confirmations"]["value"], listed["confirmations"]["from"]) == (3, "file")
    admin("settings", "set", "confirmations", "finalized")
    assert admin.json("settings", "reset", "confirmations")["value"] == 3


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("payment_batch_size", "501", "a whole number from 1 to 500, not 501"),
        ("payment_batch_size", "many", "a whole number from 1 to 500"),
        ("payment_batch_size", "null", "a whole number from 1 to 500"),
        ("confirmations", "latest", "safe or finalized"),
        ("max_fee_cap_gwei", "0.5", "priority_fee_gwei must be less than max_fee_cap_gwei: 1 is"),
        ("no_such", "1", "there are payment_batch_size, payment_batch_interval_ms, "),
        ("queue_mode", "paused", "no such setting"),
    ],
)
def test_a_bad_setting_is_refused_and_changes_nothing(
    admin: Admin, name: str, value: str, said: str
) -> None:
    with pytest.raises(TapRailError, match=name) as refused:
        admin("settings", "set", name, value)
    assert said in str(refused.value)
    with pytest.raises(TapRailError, match="reason"):
        admin("settings", "set", "payment_batch_size", "5", "--reason", "x" * 300)
    assert on_record(admin) == []


def test_a_row_that_does_not_hold_is_shown_and_passed_over(admin: Admin) -> None:
    row = {"name": "payment_batch_size", "value": "9999", "changed_at_ms": 1, "changed_by": "old"}
    admin.do(lambda c: c.execute(schema.settings.insert().values(row)))
    listed = {each["name"]: each for each in admin.json("settings", "list")}
    assert listed["payment_batch_size"]["value"] == 50
    assert "from 1 to 500" in listed["payment_batch_size"]["passedOver"]
    assert "payment_batch_size as set must be" in admin("settings", "list")
    assert admin.json("settings", "set", "payment_batch_size", "60")["before"] == 50


# --- the queue ------------------------------------------------------------------------------------


def test_the_queue_is_paused_drained_and_resumed_on_record(admin: Admin) -> None:
    assert admin.json("queue", "status")["mode"] == "running"
    assert "The queue is running." in admin("queue", "status")
    admin("queue", "pause", "--reason", "a flood")
    admin("queue", "pause", "--reason", "again")
    status = admin.json("queue", "status")
    assert (status["mode"], status["changed"]["reason"]) == ("paused", "a flood")
    assert "a flood" in admin("queue", "status")
    admin("queue", "drain", "--reason", "it moves house")
    assert "Nothing is left: it may be stopped." in admin("queue", "status")
    admin("queue", "resume")
    assert admin.json("queue", "status")["mode"] == "running"
    assert [reason for _, _, reason in on_record(admin)] == ["a flood", "it moves house", None]


@pytest.mark.parametrize("command", ["pause", "drain", "cancel-unsent"])
def test_stopping_needs_a_reason(admin: Admin, command: str) -> None:
    result = CliRunner().invoke(app, ["--config", str(admin.config), "queue", command])
    assert result.exit_code == 2
    assert "--reason" in result.stderr


def test_the_status_says_what_is_where(admin: Admin, ledger: Ledger, registry: Registry) -> None:
    accepted(ledger, registry, 3)
    given_up(ledger, registry)
    status = admin.json("queue", "status")
    counts = {each["state"]: each["count"] for each in status["states"]}
    assert counts == {"pending": 3, "processing": 0, "sent": 0, "confirmation_failed": 1}
    assert status["neverSigned"] == 3
    assert all(each["oldestS"] is None or each["oldestS"] >= 0 for each in status["states"])
    lane = next(each for each in status["lanes"] if each["address"] == LANE)
    assert (lane["next_nonce"], lane["under_way"], lane["paused_because"]) == (1, 1, None)
    assert (lane["claimed"], lane["in_flight"]) == (0, 0), "what is given up is not in flight"
    assert lane["lease_owner"]
    nothing = {"waiting": 0, "delayed": 0, "active": 0, "completed": 0, "failed": 0}
    assert (
        status["queues"]["mints"] == status["queues"]["callbacks"] == {**nothing, "oldestS": None}
    )
    assert status["openAlerts"] == 1
    shown = admin("queue", "status")
    assert "Open alerts: 1, see `taprail admin alert list`." in shown
    assert LANE in shown
    assert lane["lease_owner"] in shown


def test_only_what_was_never_signed_is_cancelled_and_only_in_a_pause(
    admin: Admin, ledger: Ledger, registry: Registry
) -> None:
    unsigned, signed, under_way = accepted(ledger, registry, 3)
    ledger.write_now(lambda c: claims.will_sign(c, [signed], FAR_S))
    bound(ledger, [under_way])
    for options in ((), ("--yes",)):
        with pytest.raises(TapRailError, match="pause it first"):
            admin("queue", "cancel-unsent", "--reason", "flood", *options)
    admin("queue", "pause", "--reason", "flood")
    trial = admin.json("queue", "cancel-unsent", "--reason", "flood")
    assert trial == {"cancelled": 0, "wouldCancel": 1, "left": 1}
    assert "say --yes to do it" in admin("queue", "cancel-unsent", "--reason", "flood")
    assert admin.json("payment", "show", unsigned)["state"] == "pending"
    done = admin.json("queue", "cancel-unsent", "--reason", "flood", "--yes")
    assert done == {"cancelled": 1, "left": 1}
    cancelled = admin.json("payment", "show", unsigned)
    assert cancelled["state"] == "failed"
    assert cancelled["failure_reason"] == "cancelled by operator: flood"
    assert admin.json("payment", "show", signed)["state"] == "pending"
    assert admin.json("payment", "show", under_way)["state"] == "processing"
    assert admin.json("check")["ok"]
    assert on_record(admin)[-1] == ("cancel-unsent", "queue", "flood")


def test_what_hangs_is_sent_again_after_a_time_that_a_setting_says(
    admin: Admin, ledger: Ledger, registry: Registry
) -> None:
    transaction = bound(ledger, accepted(ledger, registry, 2))
    sent_ms = ledger.clock.now_ms() - 100_000
    ledger.write_now(lambda c: transitions.mark_broadcast(c, [transaction], sent_ms))
    assert admin.json("queue", "reset-stuck") == {"payments": 0, "transactions": 0}
    assert "nothing hangs for 300 s or longer" in admin("queue", "reset-stuck")
    asked = admin.json("queue", "reset-stuck", "--older-than", "60", "--reason", "slow")
    assert asked == {"payments": 2, "transactions": 1}
    admin("settings", "set", "reset_stuck_after_s", "90")
    assert admin.json("queue", "reset-stuck") == {"payments": 2, "transactions": 1}
    assert {each["state"] for each in admin.json("payment", "list")} == {"sent"}


# --- payments by hand -----------------------------------------------------------------------------


def test_the_review_list_says_why_and_what_comes_next(
    admin: Admin, ledger: Ledger, registry: Registry
) -> None:
    accepted(ledger, registry)
    waits, goes_on, ends = given_up(ledger, registry, 3)
    p = schema.payments.c
    rows = schema.payments
    ledger.write_now(
        lambda c: c.execute(update(rows).where(p.id == ends).values(bindings=MAX_BINDINGS))
    )
    ledger.write_now(lambda c: claims.will_sign(c, [waits], FAR_S))
    listed = {each["id"]: each for each in admin.json("payment", "list", "--review")}
    assert listed.keys() == {waits, goes_on, ends}
    assert "it may be paid until 2096-10-02T07:06:40" in listed[waits]["next"]
    assert "goes round again by itself" in listed[goes_on]["next"]
    assert "it fails for good" in listed[ends]["next"]
    assert {each["reason"] for each in listed.values()} == {"not confirmed within 300 s"}
    assert all(each["ageS"] > 0 and each["amountUnits"] == 30 for each in listed.values())
    shown = admin("payment", "list", "--review")
    assert "0.00003 TUSD" in shown
    assert waits in shown


def test_payments_are_retried_by_name_or_all_together(
    admin: Admin, ledger: Ledger, registry: Registry
) -> None:
    first, *others = given_up(ledger, registry, 3)
    assert admin.json("payment", "retry", first[:20], "--reason", "r") == {"retried": [first]}
    assert sorted(admin.json("payment", "retry", "--all-failed")["retried"]) == sorted(others)
    assert {each["state"] for each in admin.json("payment", "list")} == {"pending"}
    assert [(action, subject) for action, subject, _ in on_record(admin)[:1]] == [("retry", first)]
    assert admin.json("payment", "retry", "--all-failed") == {"retried": []}
    for wrong in ((), (first, "--all-failed")):
        with pytest.raises(TapRailError, match="which payments"):
            admin("payment", "retry", *wrong)


def test_what_cannot_be_retried_takes_the_others_along(
    admin: Admin, ledger: Ledger, registry: Registry
) -> None:
    (listed,) = given_up(ledger, registry)
    (paid,) = completed(ledger, registry)
    with pytest.raises(TapRailError, match="is completed, it is paid"):
        admin("payment", "retry", listed, paid)
    assert admin.json("payment", "show", listed)["state"] == "confirmation_failed"
    assert on_record(admin) == []


def test_a_payment_is_cancelled_before_it_was_ever_signed(
    admin: Admin, ledger: Ledger, registry: Registry
) -> None:
    (payment,) = accepted(ledger, registry)
    done = admin.json("payment", "cancel", payment, "--reason", "typed wrong")
    assert done == {"id": payment, "state": "failed"}
    shown = admin.json("payment", "show", payment)
    assert shown["failure_reason"] == "cancelled by operator: typed wrong"
    with pytest.raises(TapRailError, match="has failed already"):
        admin("payment", "cancel", payment, "--reason", "again")
    assert admin.json("check")["ok"]


# --- lanes ----------------------------------------------------------------------------------------


def test_a_lane_is_paused_by_hand_and_resumed_on_record(admin: Admin) -> None:
    [lane] = admin.json("lane", "list")
    address = lane["address"]
    admin("lane", "pause", address, "--reason", "its key is moved")
    assert admin.json("lane", "list")[0]["paused_because"] == "operator: its key is moved"
    assert "its key is moved" in admin("lane", "list")
    admin("lane", "resume", address)
    assert admin.json("lane", "list")[0]["paused_because"] is None
    assert [entry[:2] for entry in on_record(admin)] == [
        ("lane-pause", address),
        ("lane-resume", address),
    ]
    with pytest.raises(TapRailError, match="there is no lane"):
        admin("lane", "pause", ACCOUNT, "--reason", "x")


@pytest.mark.chain
def test_lanes_are_listed_with_what_they_have_for_gas(admin: Admin, chain: DevChain) -> None:
    [lane] = admin.json("lane", "list")
    chain.fund(lane["address"], 3 * 10**17)
    text = admin.config.read_text()
    text = text.replace("http://127.0.0.1:9", chain.rpc_url).replace(TOKEN, chain.token_address)
    admin.config.write_text(text)
    assert GatewaySettings.load(admin.config).chain.token == chain.token_address
    [row] = admin.json("lane", "list", "--balances")
    assert row["balance_wei"] == 3 * 10**17
    assert "0.30" in admin("lane", "list", "--balances")


# --- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("payment", "retry"), ["never charge twice", "--all-failed"]),
        (("queue", "cancel-unsent"), ["nobody has ever signed", "--yes", "parked"]),
        (("queue", "reset-stuck"), ["None is ever bound anew", "--older-than"]),
        (("queue", "drain"), ["never a decline"]),
        (("settings", "set"), ["settings set confirmations finalized"]),
        (("lane", "add"), ["--purpose"]),
    ],
)
def test_help_says_what_one_must_know(command: tuple[str, ...], words: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "500"})
    assert result.exit_code == 0
    said = " ".join(result.stdout.split())
    assert [word for word in words if word not in said] == []


def test_json_is_json_for_every_command_that_lists(admin: Admin) -> None:
    for command in (("queue", "status"), ("settings", "list"), ("lane", "list")):
        json.loads(admin(*command, "--json"))
    json.loads(admin("payment", "list", "--review", "--json"))

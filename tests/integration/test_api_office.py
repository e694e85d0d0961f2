"""What operators and merchants do over HTTP: who may, what is wrong with it, what is noted."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select, update

from taprail_common.payment_state import PaymentEvent
from taprail_gateway.ledger import alerts, payment_list, schema, transitions
from taprail_gateway.ledger.payment_list import Place, Seen, Wanted
from taprail_gateway.tokens import Scope
from tests.support.gateway_fixtures import MERCHANT, TERMINAL, UNIT, TestGateway, running_gateway
from tests.support.office_desk import Desk, notes, paid
from tests.support.push_clients import send


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


@pytest.fixture
def olga(gateway: TestGateway) -> Desk:
    return Desk(gateway, "olga")


# --- payments -------------------------------------------------------------------------------------


async def test_payments_are_listed_for_those_whose_they_are(gateway: TestGateway) -> None:
    mine = await paid(gateway, 2)
    theirs = await paid(gateway, uid="04AABBCCDDEE02", user_id="mallory")
    for user, scopes, seen in (
        ("alice", [Scope.CUSTOMER], mine),
        ("mallory", [Scope.CUSTOMER], theirs),
        ("bob", [Scope.MERCHANT], mine + theirs),
        ("bob", [Scope.CUSTOMER], []),
        ("olga", [Scope.OPERATOR], mine + theirs),
        ("olga", [Scope.CUSTOMER, Scope.MERCHANT], []),
    ):
        told = await Desk(gateway, user, *scopes).get("/api/payments")
        assert {each["id"] for each in told["payments"]} == set(seen), (user, scopes)
        assert told["nextCursor"] is None


async def test_pages_follow_each_other_without_gap_or_repeat(
    gateway: TestGateway, olga: Desk
) -> None:
    ids = await paid(gateway, 5)
    await gateway.ledger.write(  # all of one instant: the order must not depend on the time alone
        lambda connection: connection.execute(update(schema.payments).values(created_at_ms=7))
    )
    seen: list[str] = []
    cursor = ""
    while True:
        told = await olga.get(f"/api/payments?limit=2{cursor}")
        seen += [each["id"] for each in told["payments"]]
        if told["nextCursor"] is None:
            break
        cursor = f"&cursor={told['nextCursor']}"
    assert seen == sorted(ids, reverse=True)


async def test_payments_are_chosen_by_what_they_are(gateway: TestGateway, olga: Desk) -> None:
    first = gateway.card()
    one, two = [(await gateway.pay(first)).json["transactionId"] for _ in range(2)]
    (three,) = await paid(gateway, uid="04AABBCCDDEE03")
    await send(gateway, two)
    uuid = first.issued.card_uuid
    for query, expected in (
        ("status=sent", {two}),
        ("status=pending", {one, three}),
        (f"card={uuid}", {one, two}),
        (f"card={uuid}&status=sent", {two}),
        (f"merchant={MERCHANT}", {one, two, three}),
        ("merchant=other", set()),
        ("from=2020-01-01T00:00:00Z", {one, two, three}),
        ("to=2020-01-01T00:00:00Z", set()),
        ("from=2020-01-01T00:00:00Z&to=2020-02-01T00:00:00Z", set()),
    ):
        told = await olga.get(f"/api/payments?{query}")
        assert {each["id"] for each in told["payments"]} == expected, query
    (sent,) = (await olga.get("/api/payments?status=sent"))["payments"]
    assert (sent["amount"], sent["currency"], sent["cardUuid"]) == (3 * UNIT, "TUSD", uuid)
    assert (sent["merchantId"], sent["terminalId"]) == (MERCHANT, TERMINAL)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=lost", "status"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("limit=1&limit=2", "limit"),
        ("from=yesterday", "from"),
        ("from=1767225600", "from"),
        ("cursor=abc", "cursor"),
        ("cursor=1-0x12", "cursor"),
        ("format=xml", "format"),
        ("card=../etc", "card"),
        ("colour=red", "colour"),
        ("card=%ff", "card"),
        ("x" * 3000, "query"),
    ],
)
async def test_what_is_wrong_in_a_query_is_named(
    gateway: TestGateway, olga: Desk, query: str, field: str
) -> None:
    status, body = await olga("GET", f"/api/payments?{query}")
    assert (status, body["field"]) == (400, field)


async def test_all_pages_come_as_csv_that_no_spreadsheet_carries_out(
    gateway: TestGateway, olga: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taprail_gateway.api.listing.MAX_PAGE", 2)
    ids = await paid(gateway, 5)
    evil = '=HYPERLINK("http://evil","x")'
    which = update(schema.payments).where(schema.payments.c.id == ids[0])
    await gateway.ledger.write(lambda c: c.execute(which.values(failure_reason=evil)))
    async with gateway.http.get(
        "/api/payments?format=csv", headers=gateway.bearer("olga")
    ) as response:
        assert response.content_type == "text/csv"
        rows = list(csv.DictReader(io.StringIO(await response.text())))
    assert {row["id"] for row in rows} == set(ids)
    assert len(rows) == 5
    (strange,) = [row for row in rows if row["id"] == ids[0]]
    assert strange["failureReason"] == "'" + evil


async def test_a_payment_of_the_review_list_goes_round_again(
    gateway: TestGateway, olga: Desk
) -> None:
    (payment,) = await paid(gateway)
    path = f"/api/payments/{payment}/retry"
    status, body = await olga("POST", path)
    assert (status, body["reasonCode"]) == (409, "wrong_state")
    await send(gateway, payment)
    await gateway.ledger.write(
        lambda connection: transitions.apply(
            connection, PaymentEvent.GIVE_UP, [payment], 1, failure_reason="not confirmed"
        )
    )
    assert (await Desk(gateway, "bob")("POST", path))[0] == 403
    status, body = await olga("POST", path, {"reason": "the node was away"})
    assert (status, body) == (200, {"success": True, "transactionId": payment, "status": "pending"})
    assert notes(gateway) == [("user:olga", "retry", payment)]
    for strange in ("0x" + "0" * 64, "nonsense"):
        assert (await olga("POST", f"/api/payments/{strange}/retry"))[0] == 404
    for wrong, field in (
        ({"reason": ""}, "reason"),
        ({"reason": "x" * 201}, "reason"),
        ({"reason": "two\nlines"}, "reason"),
        ({"raison": "x"}, "raison"),
        ([], "body"),
    ):
        status, body = await olga("POST", path, wrong)
        assert (status, body["field"]) == (400, field)


async def test_what_hangs_is_asked_to_be_sent_again(gateway: TestGateway, olga: Desk) -> None:
    (payment,) = await paid(gateway)
    await send(gateway, payment)
    nothing = {"success": True, "payments": 0, "transactions": 0}
    assert await olga("POST", "/api/queue/reset-stuck") == (200, nothing)
    assert (await Desk(gateway, "alice")("POST", "/api/queue/reset-stuck"))[0] == 403
    gateway.clock.ahead_ms = 301_000
    once = {"success": True, "payments": 1, "transactions": 1}
    assert await olga("POST", "/api/queue/reset-stuck", {"reason": "slow"}) == (200, once)
    late = await olga("POST", "/api/queue/reset-stuck", {"olderThanSeconds": 3_600})
    assert late == (200, nothing)
    assert (await olga("POST", "/api/queue/reset-stuck", {"olderThanSeconds": -1}))[0] == 400
    t = schema.chain_transactions.c
    asked = gateway.ledger.read_now(lambda c: c.scalar(select(t.rescue_asked_at_ms)))
    assert asked is not None


# --- alerts and settings --------------------------------------------------------------------------


async def test_alerts_are_shown_and_cleared_once(gateway: TestGateway, olga: Desk) -> None:
    await gateway.ledger.write(
        lambda c: alerts.raise_alert(c, "lane", "0x1", "error", "paused", 5, needs_review=True)
    )
    await gateway.ledger.write(lambda c: alerts.raise_alert(c, "fee", "fees", "info", "high", 6))
    both = (await olga.get("/api/alerts"))["alerts"]
    assert [each["kind"] for each in both] == ["lane", "fee"]
    (one,) = (await olga.get("/api/alerts?review=true"))["alerts"]
    assert (one["needsReview"], one["raisedAt"]) == (True, "1970-01-01T00:00:00.005Z")
    cleared = await olga("POST", "/api/alerts", {"id": one["id"], "reason": "funded"})
    assert cleared == (200, {"success": True, "id": one["id"], "clearedBy": "user:olga"})
    status, body = await olga("POST", "/api/alerts", {"id": one["id"]})
    assert (status, body["field"]) == (404, "id")
    assert notes(gateway) == [("user:olga", "clear-alert", str(one["id"]))]
    for wrong in ({}, {"id": 0}, {"id": "1"}, {"id": 2**63}):
        status, body = await olga("POST", "/api/alerts", wrong)
        assert (status, body["field"]) == (400, "id")
    assert (await Desk(gateway, "bob")("GET", "/api/alerts"))[0] == 403


async def test_settings_change_all_or_none_and_are_in_force_at_once(
    gateway: TestGateway, olga: Desk
) -> None:
    before = await olga.get("/api/settings")
    assert before["settings"]["payment_batch_size"] == 50
    assert before["settings"]["payment_batch_interval_ms"] == 4_000
    assert before["settings"]["payments_per_transaction"] == 50
    assert before["settings"]["confirmation_interval_ms"] == 2_000
    wanted = {"payment_batch_size": 100, "confirmations": "finalized", "reason": "a busy day"}
    status, body = await olga("PATCH", "/api/settings", wanted)
    assert (status, body["settings"]["payment_batch_size"]) == (200, 100)
    assert gateway.services.live.now.payment_batch_size == 100
    assert body["settings"]["confirmations"] == "finalized"
    shown = {each["name"]: each for each in body["details"]}
    assert shown["confirmations"]["source"] == "operator"
    await olga("PATCH", "/api/settings", {"confirmations": None})
    assert gateway.services.live.now.confirmations == 1
    assert [action for _, action, _ in notes(gateway)] == ["set", "set", "reset"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"payment_batch_size": 0}, "payment_batch_size"),
        ({"payment_batch_size": True}, "payment_batch_size"),
        ({"payment_batch_size": "100"}, "payment_batch_size"),
        ({"payment_batch_size": [100]}, "payment_batch_size"),
        ({"payment_batch_size": {"a": 1}}, "payment_batch_size"),
        ({"confirmations": "soon"}, "confirmations"),
        ({"paymentBatchSize": 5}, "paymentBatchSize"),
        ({"payment_batch_size": 10, "confirmation_batch_size": 0}, "confirmation_batch_size"),
        ({"priority_fee_gwei": 10_000.0, "max_fee_cap_gwei": 1.0}, "max_fee_cap_gwei"),
        ({"reason": "none"}, "body"),
        ({}, "body"),
    ],
)
async def test_settings_that_do_not_hold_change_nothing(
    gateway: TestGateway, olga: Desk, change: dict[str, Any], field: str
) -> None:
    status, body = await olga("PATCH", "/api/settings", change)
    assert (status, body["field"]) == (400, field)
    assert gateway.rows(schema.settings) == 0
    assert notes(gateway) == []


async def test_settings_are_for_operators(gateway: TestGateway) -> None:
    for desk in (Desk(gateway, "bob"), Desk(gateway, "olga", Scope.MERCHANT)):
        assert (await desk("GET", "/api/settings"))[0] == 403
        assert (await desk("PATCH", "/api/settings", {"payment_batch_size": 9}))[0] == 403


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (Seen(all=True), Wanted()),
        (Seen(all=True), Wanted(card="card-1")),
        (Seen(all=True), Wanted(merchant=MERCHANT)),
        (Seen(paid_by="alice"), Wanted()),
        (Seen(sold_by="bob"), Wanted()),
        (Seen(paid_by="alice", sold_by="alice"), Wanted(state="sent")),
    ],
)
def test_no_list_reads_all_payments(gateway: TestGateway, seen: Seen, wanted: Wanted) -> None:
    asked: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, text: str, given: Any, *_: Any) -> None:
        asked.append((text, given))

    with gateway.ledger.read_engine.begin() as connection:
        event.listen(connection, "before_cursor_execute", note)
        payment_list.page(connection, seen, wanted, Place(5, "0x1"), 50)
        (text, given) = asked[0]
        plans = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given)]
    assert not any(plan == "SCAN payments" for plan in plans), plans

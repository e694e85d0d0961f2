"""Accepting payments over real HTTP on a real SQLite ledger: verdicts, retries, limits, races."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from taprail_common.errors import SignatureError
from taprail_common.ids import payment_id
from taprail_common.payment_state import PaymentState
from taprail_common.wire import Outcome, Verdict
from taprail_gateway import registry
from taprail_gateway.ledger import queries, schema
from tests.support.gateway_fixtures import (
    MERCHANT,
    TERMINAL,
    UNIT,
    Reply,
    TestCard,
    TestGateway,
    running_gateway,
)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


def reason(reply: Reply) -> str | None:
    code: str | None = reply.json.get("reasonCode")
    return code


def held_units(gateway: TestGateway, card: TestCard) -> int:
    return gateway.ledger.read_now(queries.held_by_account)[card.issued.account]


def spent_units(gateway: TestGateway, card: TestCard) -> int:
    wanted = select(schema.card_spend.c.spent_units).where(
        schema.card_spend.c.card_uuid == card.issued.card_uuid
    )
    return gateway.ledger.read_now(lambda connection: connection.scalar(wanted) or 0)


def counter_of(gateway: TestGateway, card: TestCard) -> int | None:
    wanted = select(schema.cards.c.sun_counter).where(schema.cards.c.uuid == card.issued.card_uuid)
    return gateway.ledger.read_now(lambda connection: connection.scalar(wanted))


# --- verdicts -------------------------------------------------------------------------------------


async def test_a_tap_is_accepted_with_a_signed_verdict_about_this_request(
    gateway: TestGateway,
) -> None:
    card = gateway.card()
    reply = await gateway.pay(card, requestId="req-1")
    reply.verify(gateway.public_key)
    verdict = Verdict.model_validate_json(reply.body)
    assert reply.status == 200
    assert verdict.verdict is Outcome.APPROVED
    assert (verdict.request_id, verdict.terminal_id) == ("req-1", TERMINAL)
    assert (verdict.amount, verdict.currency) == (3 * UNIT, "TUSD")
    assert verdict.transaction_id == payment_id(TERMINAL, "req-1")
    body = reply.json
    assert body["success"] is True
    assert body["status"] == "pending"
    assert body["message"] == "Payment initiated successfully"
    assert body["authCode"].startswith("AUTH_")
    assert body["statusUrl"] == f"/api/payment/status/{verdict.transaction_id}"
    assert body["websocketChannel"] == f"transaction:{verdict.transaction_id}"
    assert body["queueJobId"]
    assert isinstance(body["processingTime"], int)
    assert (body["estimatedProcessingTime"], body["estimateBasis"]) == ("2-5 seconds", "configured")


async def test_an_accepted_payment_is_stored_with_its_hold_spend_counter_and_event(
    gateway: TestGateway,
) -> None:
    card = gateway.card()
    bell = gateway.services.wakeups.pending.listen()
    reply = await gateway.pay(card)
    stored = gateway.ledger.read_now(
        lambda connection: queries.payment(connection, reply.json["transactionId"])
    )
    assert stored is not None
    assert (stored.state, stored.amount_units, stored.priority) == ("pending", 3 * UNIT, 10)
    assert (stored.payer, stored.merchant_id) == (card.issued.account, MERCHANT)
    assert held_units(gateway, card) == spent_units(gateway, card) == 3 * UNIT
    assert counter_of(gateway, card) == 1
    assert gateway.ledger.read_now(queries.check_invariants) == []
    assert bell.was_rung


async def test_a_verdict_is_worth_nothing_for_another_request(gateway: TestGateway) -> None:
    card = gateway.card()
    first, second = await gateway.pay(card), await gateway.pay(card)
    forged = Reply(200, first.body, first.signature, second.request, {})
    with pytest.raises(SignatureError):
        forged.verify(gateway.public_key)


async def test_a_decline_is_signed_and_final(gateway: TestGateway) -> None:
    card = gateway.card()
    request = gateway.request(card.tap(), amount=51 * UNIT)
    reply = await gateway.post(request)
    reply.verify(gateway.public_key)
    assert reply.status == 400
    assert reply.json["success"] is False
    assert reply.json["error"] == "Transaction not authorized"
    assert reason(reply) == "single_limit"
    assert "50.00" in reply.json["reason"]
    gateway.ledger.write_now(
        lambda connection: registry.set_card_limits(
            connection, card.issued.card_uuid, single_limit_units=99 * UNIT
        )
    )
    again = await gateway.post(request)
    assert (again.status, again.body) == (400, reply.body)
    assert gateway.rows(schema.payments) == 0


async def test_the_daily_limit_says_what_is_left(gateway: TestGateway) -> None:
    card = gateway.card(daily_limit_units=8 * UNIT)
    assert (await gateway.pay(card, amount=4_800_000)).status == 200
    declined = await gateway.pay(card, amount=3_200_001)
    assert reason(declined) == "daily_limit"
    assert declined.json["leftUnits"] == 3_200_000
    assert declined.json["reason"] == "Insufficient daily limit: 3.20 left today"
    assert (await gateway.pay(card, amount=3_200_000)).status == 200
    assert spent_units(gateway, card) == 8 * UNIT


async def test_funds_are_held_to_the_unit(gateway: TestGateway) -> None:
    card = gateway.card(balance_units=10 * UNIT)
    assert (await gateway.pay(card, amount=10 * UNIT - 1)).status == 200
    assert reason(await gateway.pay(card, amount=2)) == "insufficient_balance"
    assert (await gateway.pay(card, amount=1)).status == 200
    assert held_units(gateway, card) == 10 * UNIT


# --- retries and replays --------------------------------------------------------------------------


async def test_the_very_same_request_is_given_the_very_same_answer(gateway: TestGateway) -> None:
    request = gateway.request(gateway.card().tap())
    first = await gateway.post(request)
    gateway.clock.ahead_ms = 3_600_000  # an hour later, long after acceptUntil
    again = await gateway.post(request)
    assert (again.status, again.body, again.signature) == (200, first.body, first.signature)
    assert gateway.rows(schema.payments) == 1


async def test_a_hundred_deliveries_at_once_make_one_payment(gateway: TestGateway) -> None:
    card = gateway.card()
    request = gateway.request(card.tap())
    replies = await asyncio.gather(*(gateway.post(request) for _ in range(100)))
    assert {(reply.status, reply.body) for reply in replies} == {(200, replies[0].body)}
    assert gateway.rows(schema.payments) == 1
    assert held_units(gateway, card) == 3 * UNIT


async def test_a_request_id_is_not_taken_for_another_request(gateway: TestGateway) -> None:
    card = gateway.card()
    first = await gateway.pay(card, requestId="req-1")
    other = await gateway.pay(card, requestId="req-1", amount=UNIT)
    assert (other.status, reason(other), other.json["field"]) == (
        409,
        "request_id_reused",
        "requestId",
    )
    assert other.signature is None
    assert counter_of(gateway, card) == 1
    again = await gateway.post(first.request)
    assert again.body == first.body


async def test_a_used_tap_in_another_request_is_a_replay(gateway: TestGateway) -> None:
    card = gateway.card()
    proof = card.tap()
    assert (await gateway.post(gateway.request(proof))).status == 200
    replayed = await gateway.post(gateway.request(proof))
    replayed.verify(gateway.public_key)
    assert (replayed.status, reason(replayed)) == (400, "card_replayed")
    assert gateway.rows(schema.payments) == 1


async def test_of_one_tap_in_many_requests_at_once_one_is_accepted(gateway: TestGateway) -> None:
    proof = gateway.card().tap()
    replies = await asyncio.gather(
        *(gateway.post(gateway.request(proof, amount=UNIT)) for _ in range(30))
    )
    assert sorted(reply.status for reply in replies) == [200] + [400] * 29
    assert {reason(reply) for reply in replies if reply.status == 400} == {"card_replayed"}


async def test_a_stale_tap_is_refused_for_good(gateway: TestGateway) -> None:
    card = gateway.card()
    request = gateway.request(card.tap())
    gateway.clock.ahead_ms = 16_000
    refused = await gateway.post(request)
    refused.verify(gateway.public_key)
    assert (refused.status, reason(refused)) == (400, "accept_until_passed")
    gateway.clock.ahead_ms = 0
    again = await gateway.post(request)
    assert (again.status, again.body) == (400, refused.body)
    assert counter_of(gateway, card) == 0
    assert gateway.rows(schema.payments) == 0


async def test_a_terminal_whose_clock_is_ahead_is_told_so(gateway: TestGateway) -> None:
    request = gateway.request(gateway.card().tap())
    gateway.clock.ahead_ms = -60_000
    assert reason(await gateway.post(request)) == "clock_skew"


# --- races ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"balance_units": 20 * UNIT}, "insufficient_balance"),
        ({"daily_limit_units": 20 * UNIT}, "daily_limit"),
    ],
)
async def test_fifty_taps_at_once_never_overshoot(
    gateway: TestGateway, order: dict[str, Any], code: str
) -> None:
    card = gateway.card(**order)
    # One card's taps may arrive in any order; a tap that was overtaken is a replay.
    replies = await asyncio.gather(*(gateway.pay(card, amount=UNIT) for _ in range(50)))
    accepted = [reply for reply in replies if reply.status == 200]
    assert len(accepted) <= 20
    while (reply := await gateway.pay(card, amount=UNIT)).status == 200:
        accepted.append(reply)
    assert reason(reply) == code
    assert len(accepted) == 20
    assert held_units(gateway, card) == spent_units(gateway, card) == 20 * UNIT
    assert gateway.ledger.read_now(queries.check_invariants) == []


async def test_cards_do_not_disturb_one_another(gateway: TestGateway) -> None:
    cards = [gateway.card(f"04AABBCCDDEE{n:02X}", balance_units=2 * UNIT) for n in range(40)]
    replies = await asyncio.gather(*(gateway.pay(card, amount=2 * UNIT) for card in cards))
    assert {reply.status for reply in replies} == {200}
    assert len({reply.json["authCode"] for reply in replies}) == 40


# --- who and what is known ------------------------------------------------------------------------


async def test_a_card_that_was_never_issued_is_unknown(gateway: TestGateway) -> None:
    card = gateway.card()
    forget = update(schema.cards).values(uid_digest="somebody else's")
    gateway.ledger.write_now(lambda connection: connection.execute(forget))
    reply = await gateway.pay(card)
    reply.verify(gateway.public_key)
    assert (reply.status, reason(reply)) == (400, "card_unknown")


async def test_a_forged_proof_is_refused_and_the_genuine_tap_still_works(
    gateway: TestGateway,
) -> None:
    card = gateway.card()
    proof = card.tap()
    forged = await gateway.post(gateway.request({**proof, "mac": "0" * 16}))
    assert (forged.status, reason(forged)) == (400, "card_proof_invalid")
    assert (await gateway.post(gateway.request(proof))).status == 200


async def test_freezing_a_card_and_revoking_a_terminal_work_at_the_next_tap(
    gateway: TestGateway,
) -> None:
    card = gateway.card()
    assert (await gateway.pay(card)).status == 200

    def set_card(status: str) -> None:
        gateway.ledger.write_now(
            lambda connection: registry.set_card_status(connection, card.issued.card_uuid, status)
        )

    set_card("frozen")
    assert reason(await gateway.pay(card)) == "card_frozen"
    assert counter_of(gateway, card) == 2  # the tap is used up all the same
    set_card("active")
    assert (await gateway.pay(card)).status == 200
    gateway.ledger.write_now(lambda connection: registry.revoke_terminal(connection, TERMINAL))
    refused = await gateway.pay(card)
    refused.verify(gateway.public_key)
    assert reason(refused) == "terminal_revoked"


async def test_merchant_and_currency_must_be_the_terminals_own(gateway: TestGateway) -> None:
    card = gateway.card()
    assert reason(await gateway.pay(card, merchantId="somebody")) == "invalid_merchant"
    assert reason(await gateway.pay(card, currency="EURX")) == "currency_unsupported"

    def close(connection: Connection) -> None:
        connection.execute(update(schema.merchants).values(status="closed"))

    gateway.ledger.write_now(close)
    assert reason(await gateway.pay(card)) == "invalid_merchant"


async def test_a_serial_number_alone_pays_only_where_it_is_allowed(
    gateway: TestGateway, tmp_path: Path
) -> None:
    uid = "04112233"
    gateway.card(uid + "AABBCC", profile="uid")
    proof = {"profile": "uid", "uid": uid + "AABBCC"}
    assert reason(await gateway.post(gateway.request(proof))) == "card_profile_disabled"
    lenient_folder = tmp_path / "lenient"
    lenient_folder.mkdir()
    async with running_gateway(lenient_folder, accept_uid_cards=True) as lenient:
        lenient.card(uid + "AABBCC", profile="uid")
        assert (await lenient.post(lenient.request(proof))).status == 200
        lenient.card("04AABBCCDDEE77")
        of_sun_card = {"profile": "uid", "uid": "04AABBCCDDEE77"}
        assert reason(await lenient.post(lenient.request(of_sun_card))) == "card_proof_invalid"


# --- nothing is kept but the evidence -------------------------------------------------------------


async def test_request_and_answer_are_kept_as_evidence_byte_for_byte(gateway: TestGateway) -> None:
    reply = await gateway.pay(gateway.card())
    row = gateway.ledger.read_now(
        lambda connection: connection.execute(select(schema.verdicts)).one()
    )
    assert (row.request_body, row.body) == (reply.request, reply.body)
    assert row.signature == reply.signature
    assert row.payment_id == reply.json["transactionId"]
    assert row.request_signature == gateway.headers(reply.request)["TapRail-Signature"]


async def test_the_estimate_follows_what_settled_lately(gateway: TestGateway) -> None:
    gateway.estimate.settled([1_200] * 50 + [8_500] * 50)
    reply = await gateway.pay(gateway.card())
    assert reply.json["estimatedProcessingTime"] == "1-9 seconds"
    assert reply.json["estimateBasis"] == "recent"


async def test_the_answer_is_json_that_any_reader_agrees_on(gateway: TestGateway) -> None:
    reply = await gateway.pay(gateway.card())
    assert reply.headers["Content-Type"].startswith("application/json")
    assert json.loads(reply.body)["amount"] == 3 * UNIT


async def test_a_gateway_that_drains_takes_nothing_new_and_still_answers_what_it_took(
    gateway: TestGateway,
) -> None:
    card = gateway.card()
    accepted = await gateway.pay(card)
    gateway.services.acceptor.is_draining = lambda: True
    refused = await gateway.pay(card)
    assert (refused.status, refused.json["reasonCode"]) == (503, "draining")
    assert gateway.ledger.read_now(queries.open_counts)[PaymentState.PENDING] == 1
    again = await gateway.post(accepted.request)
    assert (again.status, again.body) == (200, accepted.body)


async def test_a_gateway_that_drains_says_for_good_what_can_no_longer_be_charged(
    gateway: TestGateway,
) -> None:
    card = gateway.card()
    gateway.services.acceptor.is_draining = lambda: True
    early = await gateway.pay(card)
    assert early.status == 503
    assert counter_of(gateway, card) == 0  # the tap is not used up: it may be charged yet
    gateway.clock.ahead_ms = 20_000  # past acceptUntil, which the terminal cannot change
    late = await gateway.post(early.request)
    assert (late.status, reason(late)) == (400, "accept_until_passed")
    late.verify(gateway.public_key)
    gateway.services.acceptor.is_draining = lambda: False
    again = await gateway.post(early.request)
    assert (again.status, again.body) == (400, late.body)
    assert held_units(gateway, card) == spent_units(gateway, card) == 0


async def test_after_a_drain_the_same_tap_is_charged_once(gateway: TestGateway) -> None:
    card = gateway.card()
    gateway.services.acceptor.is_draining = lambda: True
    refused = await gateway.pay(card)
    gateway.services.acceptor.is_draining = lambda: False
    accepted = await gateway.post(refused.request)
    assert (refused.status, accepted.status) == (503, 200)
    assert spent_units(gateway, card) == 3 * UNIT

"""Taps that were taken without asking, by real HTTP on a real ledger: policies, bounds, losses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from taprail_common.clock import rfc3339
from taprail_common.ids import payment_id
from taprail_common.offline_wire import POLICY_PATH, OfflinePolicy
from taprail_common.signing import Domain, verify
from taprail_common.wire import SIGNATURE_HEADER, SIGNED_VALIDITY_S, parse
from taprail_gateway import registry
from taprail_gateway.ledger import alerts, offline, schema, transitions
from taprail_gateway.ledger.actions import By
from taprail_gateway.offline_policy import Limits
from taprail_gateway.registry import CardOrder
from taprail_hwsim.cards import KeycardCash
from taprail_terminal.card_session import converse
from taprail_terminal.charge import Charge
from tests.support.gateway_fixtures import (
    TERMINAL,
    TOKEN_DOMAIN,
    UNIT,
    Reply,
    TestGateway,
    running_gateway,
)

CARD = KeycardCash(bytes.fromhex("04112233445566"), bytes(range(1, 33)))
PAYEE = "0x" + "c0ffee" * 6 + "0001"
LIMITS = Limits(per_tap_units=5 * UNIT, max_count=2, sum_units=8 * UNIT, max_age_s=3600)
MINUTE_MS = 60_000


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as gateway:
        gateway.ledger.write_now(lambda db: _issue(db, gateway))
        yield gateway


def _issue(connection: Any, gateway: TestGateway) -> None:
    order = CardOrder(
        "alice",
        profile="signed",
        address=CARD.address,
        card_uuid="k",
        single_limit_units=50 * UNIT,
        daily_limit_units=60 * UNIT,
    )
    issued = registry.issue_card(connection, gateway.custody, order, gateway.now_ms())
    transitions.refresh_balances(connection, {issued.account: 100 * UNIT}, 1)


def allow(gateway: TestGateway, limits: Limits = LIMITS, ago_ms: int = 2 * MINUTE_MS) -> None:
    by = By("test", gateway.now_ms() - ago_ms)
    gateway.ledger.write_now(lambda db: offline.put(db, TERMINAL, limits, by))


def tap(
    gateway: TestGateway,
    request_id: str,
    units: int = UNIT,
    ago_ms: int = MINUTE_MS,
    **changes: Any,
) -> dict[str, Any]:
    """An offline tap of some time ago, signed by the card at that time."""
    at_ms = gateway.now_ms() - ago_ms
    nonce = bytes.fromhex(payment_id(TERMINAL, request_id)[2:])
    until_s = at_ms // 1000 + LIMITS.max_age_s + SIGNED_VALIDITY_S
    charge = Charge(request_id, TOKEN_DOMAIN.separator, PAYEE, units, until_s, nonce)
    offline_tap = {
        "requestId": request_id,
        "amount": units,
        "tappedAt": rfc3339(at_ms),
        "acceptUntil": rfc3339(at_ms + LIMITS.max_age_s * 1000),
        "offline": True,
        "offlineVersion": 1,
    }
    return gateway.request(signed(charge), **{**offline_tap, **changes})


def signed(charge: Charge) -> dict[str, Any]:
    conversation = converse(charge)
    command = next(conversation)
    while True:
        try:
            command = conversation.send((CARD.apdu(command) or ("", b""))[1])
        except StopIteration as done:
            proof: dict[str, Any] = done.value.proof.model_dump(by_alias=True)
            return proof


def outcome(reply: Reply) -> str:
    return str(reply.json.get("reasonCode") or reply.json["verdict"])


async def policy(gateway: TestGateway) -> OfflinePolicy | None:
    headers = gateway.query_headers(POLICY_PATH)
    async with gateway.http.get(POLICY_PATH, headers=headers) as response:
        body = await response.read()
        if response.status == 404:
            return None
        verify(gateway.public_key, Domain.OFFLINE_POLICY, body, response.headers[SIGNATURE_HEADER])
    return parse(OfflinePolicy, body)


async def test_it_is_off_until_it_is_set_and_then_told_with_the_frozen_cards(
    gateway: TestGateway,
) -> None:
    assert await policy(gateway) is None
    assert outcome(await gateway.post(tap(gateway, "r0"))) == "offline_not_allowed"
    allow(gateway)
    told = await policy(gateway)
    assert told is not None
    assert (told.version, told.max_count, told.signing.payee) == (1, 2, PAYEE)
    assert not told.names(CARD.address)
    gateway.ledger.write_now(lambda db: registry.set_card_status(db, "k", "frozen"))
    newer = await policy(gateway)
    assert newer is not None
    assert newer.names(CARD.address)
    assert newer.revision != told.revision


async def test_taps_within_the_policy_are_paid_once_and_more_of_them_are_losses(
    gateway: TestGateway,
) -> None:
    allow(gateway)
    first = await gateway.post(tap(gateway, "r1", 4 * UNIT))
    assert outcome(first) == "approved"
    assert (await gateway.post(first.request)).body == first.body
    assert outcome(await gateway.post(tap(gateway, "r2", 5 * UNIT))) == "offline_limit"  # the sum
    assert outcome(await gateway.post(tap(gateway, "r3", UNIT))) == "offline_limit"  # the count
    figures = gateway.ledger.read_now(lambda db: offline.figures(db, TERMINAL))
    assert (figures.count, figures.lost_count, figures.lost_units) == (3, 2, 6 * UNIT)
    told = gateway.ledger.read_now(alerts.open_alerts)
    assert [(each.kind, each.level, bool(each.needs_review)) for each in told] == [
        ("offline_loss", "error", True)
    ] * 2
    assert "5.00" in told[0].text
    assert gateway.rows(schema.payments) == 1
    async with gateway.http.get("/metrics") as response:
        measured = await response.text()
    assert 'taprail_offline_taps{what="came_in"} 3.0' in measured
    assert 'taprail_offline_taps{what="lost"} 2.0' in measured


async def test_what_came_in_before_a_tap_did_not_wait_beside_it(gateway: TestGateway) -> None:
    allow(gateway, ago_ms=60 * MINUTE_MS)
    for number in range(2):
        wanted = tap(gateway, f"early{number}", UNIT, ago_ms=50 * MINUTE_MS)
        assert outcome(await gateway.post(wanted)) == "approved"
    received = update(schema.offline_taps).values(received_at_ms=gateway.now_ms() - 5 * MINUTE_MS)
    gateway.ledger.write_now(lambda db: db.execute(received))
    for number in range(2):
        assert outcome(await gateway.post(tap(gateway, f"late{number}"))) == "approved"


async def test_an_ended_policy_holds_for_taps_of_its_time_and_for_no_later_ones(
    gateway: TestGateway,
) -> None:
    allow(gateway, ago_ms=30 * MINUTE_MS)
    by = By("test", gateway.now_ms() - 10 * MINUTE_MS)
    gateway.ledger.write_now(lambda db: offline.end(db, TERMINAL, by))
    assert await policy(gateway) is None
    assert outcome(await gateway.post(tap(gateway, "away"))) == "approved"
    gateway.clock.ahead_ms = 70 * MINUTE_MS  # longer than the policy that it may have had
    assert outcome(await gateway.post(tap(gateway, "later"))) == "offline_not_allowed"
    assert outcome(await gateway.post(tap(gateway, "v9", offlineVersion=9))) == (
        "offline_not_allowed"
    )


async def test_a_card_that_does_not_sign_is_never_taken_offline(gateway: TestGateway) -> None:
    allow(gateway)
    wanted = {**tap(gateway, "sun"), "proof": gateway.card().tap()}
    assert outcome(await gateway.post(wanted)) == "offline_not_allowed"

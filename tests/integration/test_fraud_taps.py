"""Suspicious taps at a gateway with the rules it comes with: who is told what of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from taprail_common.wire import Verdict
from taprail_gateway.ledger import audit_log
from taprail_gateway.ledger.alerts import Alert, open_alerts
from taprail_gateway.ledger.schema import activity, payments
from tests.support.gateway_fixtures import UNIT, TestCard, TestGateway, running_gateway


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as gateway:
        yield gateway


async def pay_often(gateway: TestGateway, card: TestCard, times: int) -> None:
    for _ in range(times):
        assert (await gateway.pay(card, amount=UNIT)).status == 200


def alerts_of(gateway: TestGateway) -> list[Alert]:
    return gateway.ledger.read_now(open_alerts)


async def test_a_copied_card_is_declined_and_everybody_is_told_why(gateway: TestGateway) -> None:
    """New, tapped two hundred times elsewhere, and now ten times what it usually pays."""
    card = gateway.card()
    await pay_often(gateway, card, 5)
    card.counter += 200
    reply = await gateway.pay(card, amount=10 * UNIT)
    reply.verify(gateway.public_key)
    assert reply.json["reasonCode"] == "high_fraud_risk"
    assert reply.json["reason"].startswith("High fraud risk: more than 5 times its usual amount; ")
    assert [each["rule"] for each in reply.json["rules"]] == ["amount", "counter_jump", "new_card"]
    assert Verdict.model_validate_json(reply.body).reason_code == "high_fraud_risk"
    assert gateway.rows(payments) == 5
    (alert,) = alerts_of(gateway)
    assert (alert.kind, alert.subject) == ("fraud_declined", card.issued.card_uuid)
    assert alert.text.startswith("100 points at counter-1: more than 5 times its usual amount")
    last = gateway.ledger.read_now(lambda connection: list(audit_log.links(connection)))[-1]
    (told,) = last.decisions()
    assert told["points"] == 100
    assert told["rules"].keys() == {"amount", "counter_jump", "new_card"}


async def test_a_hasty_card_is_taken_and_an_operator_told_once(gateway: TestGateway) -> None:
    card = gateway.card()
    await pay_often(gateway, card, 11)
    for _ in range(2):
        assert (await gateway.pay(card, amount=10 * UNIT)).status == 200
    (alert,) = alerts_of(gateway)
    assert alert.kind == "fraud_suspected"
    assert "12 taps of the card within a minute" in alert.text


async def test_a_declined_card_is_usual_again_after_a_quiet_day(gateway: TestGateway) -> None:
    card = gateway.card()
    await pay_often(gateway, card, 5)
    card.counter += 200
    assert (await gateway.pay(card, amount=10 * UNIT)).status == 400
    gateway.clock.ahead_ms += 26 * 3_600_000
    assert (await gateway.pay(card, amount=10 * UNIT)).status == 200


async def test_a_stranger_with_an_old_tap_cannot_have_a_card_suspected(
    gateway: TestGateway,
) -> None:
    card = gateway.card()
    used = card.tap()
    assert (await gateway.post(gateway.request(used))).status == 200
    for _ in range(15):
        reply = await gateway.post(gateway.request(used))
        assert reply.json["reasonCode"] == "card_replayed"
    rows = gateway.ledger.read_now(lambda c: c.execute(activity.select()).mappings().all())
    use = {row["kind"]: row["hour_taps"] + row["hour_taps_before"] for row in rows}
    assert use == {"card": 1, "terminal": 16}

"""Alerts on both engines: one open alert for a kind and a subject, however often it is raised."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from taprail_gateway.ledger import alerts
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.errors import GuardError
from tests.support.ledger_fixtures import NOW_MS, on_both_engines

pytestmark = on_both_engines

LANE = "0x" + "bb" * 20


def raised(connection: Connection, subject: str = LANE, at_ms: int = NOW_MS) -> bool:
    return alerts.raise_alert(connection, "lane_paused", subject, "error", "no funds", at_ms)


async def test_an_alert_is_raised_once_while_it_is_open(ledger: Ledger) -> None:
    assert await ledger.write(raised)
    assert not await ledger.write(lambda c: raised(c, at_ms=NOW_MS + 1))
    (alert,) = await ledger.read(alerts.open_alerts)
    assert (alert.kind, alert.subject, alert.level) == ("lane_paused", LANE, "error")
    assert (alert.text, alert.raised_at_ms, alert.needs_review) == ("no funds", NOW_MS, False)


async def test_another_kind_or_subject_is_another_alert(ledger: Ledger) -> None:
    await ledger.write(raised)
    assert await ledger.write(lambda c: raised(c, subject="other"))
    assert await ledger.write(
        lambda c: alerts.raise_alert(c, "foreign_nonce", LANE, "error", "who?", NOW_MS, True)
    )
    found = await ledger.read(alerts.open_alerts)
    assert [alert.needs_review for alert in found] == [False, False, True]
    assert len(await ledger.read(lambda c: alerts.open_alerts(c, limit=2))) == 2


async def test_what_is_cured_is_cleared_and_may_come_again(ledger: Ledger) -> None:
    await ledger.write(raised)
    assert await ledger.write(lambda c: alerts.clear_alert(c, "lane_paused", LANE, NOW_MS + 1))
    assert not await ledger.write(lambda c: alerts.clear_alert(c, "lane_paused", LANE, NOW_MS + 2))
    assert await ledger.read(alerts.open_alerts) == []
    assert await ledger.write(raised)
    assert len(await ledger.read(alerts.open_alerts)) == 1


async def test_many_are_raised_and_cleared_together(ledger: Ledger) -> None:
    texts = [("a", "first"), ("b", "second"), ("a", "again")]
    await ledger.write(lambda c: alerts.raise_alerts(c, "kind", texts, "warning", NOW_MS, True))
    found = await ledger.read(alerts.open_alerts)
    assert [(alert.subject, alert.text) for alert in found] == [("a", "first"), ("b", "second")]
    await ledger.write(lambda c: alerts.clear_alerts(c, "kind", ["b", "c"], NOW_MS))
    await ledger.write(lambda c: alerts.clear_alerts(c, "other", ["a"], NOW_MS))
    assert [alert.subject for alert in await ledger.read(alerts.open_alerts)] == ["a"]


async def test_a_person_clears_by_number_once(ledger: Ledger) -> None:
    await ledger.write(raised)
    (alert,) = await ledger.read(alerts.open_alerts)
    await ledger.write(lambda c: alerts.close_alert(c, alert.id, NOW_MS, "ada"))
    with pytest.raises(GuardError, match="no such alert is open"):
        await ledger.write(lambda c: alerts.close_alert(c, alert.id, NOW_MS, "bob"))


async def test_a_text_is_kept_up_to_its_bound(ledger: Ledger) -> None:
    await ledger.write(lambda c: alerts.raise_alert(c, "kind", "x", "info", "y" * 5_000, NOW_MS))
    (alert,) = await ledger.read(alerts.open_alerts)
    assert len(alert.text) == alerts.MAX_TEXT

"""What operators do by hand: payments that failed or hang, alerts, settings. Each is on record."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection

from taprail_common.api.base import Empty, Why
from taprail_common.api.office import (
    AlertList,
    AlertPart,
    AlertQuery,
    Cleared,
    Reviewed,
    SettingPart,
    SettingsAnswer,
)
from taprail_common.api.payments import Reset, Retried, StuckQuery
from taprail_common.errors import InputError
from taprail_common.ids import is_payment_id
from taprail_common.payment_state import PaymentState
from taprail_gateway.api.context import Services
from taprail_gateway.api.errors import not_found
from taprail_gateway.api.settings_message import SettingsChange
from taprail_gateway.api.table import OPERATORS, Call, Route
from taprail_gateway.ledger import actions, by_hand
from taprail_gateway.ledger import alerts as ledger_alerts
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.settle import tuning


async def retry(call: Call[Why, Empty]) -> Retried:
    """POST /api/payments/{id}/retry: it can never charge twice, so it is safe at any time."""
    if not is_payment_id(call.id):
        raise not_found("Transaction not found")
    by = call.by(call.body.reason)
    await call.services.ledger.write(partial(by_hand.retry, payment_id=call.id, by=by))
    call.services.wakeups.pending.ring()
    call.services.wakeups.events.ring()
    return Retried(transaction_id=call.id, status=PaymentState.PENDING)


async def reset_stuck(call: Call[StuckQuery, Empty]) -> Reset:
    """POST /api/queue/reset-stuck: the same bytes again, then a higher fee; never bound anew."""
    by, older_s = call.by(call.body.reason), call.body.older_than_seconds
    if older_s is None:
        older_s = call.services.live.now.reset_stuck_after_s
    stuck = await call.services.ledger.write(
        partial(by_hand.ask_rescue, older_than_s=older_s, by=by)
    )
    call.services.wakeups.bound.ring()
    return Reset(**asdict(stuck))


async def alerts(call: Call[Empty, AlertQuery]) -> AlertList:
    """GET /api/alerts."""
    query = call.query
    found = await call.services.ledger.read(
        partial(ledger_alerts.open_alerts, limit=query.limit, only_review=query.review)
    )
    return AlertList(alerts=[AlertPart.model_validate(each) for each in found])


async def clear_alert(call: Call[Reviewed, Empty]) -> Cleared:
    """POST /api/alerts: somebody has looked into one."""
    by, number = call.by(call.body.reason), call.body.id

    def work(connection: Connection) -> None:
        ledger_alerts.close_alert(connection, number, by.at_ms, by.actor)
        actions.note(connection, "clear-alert", str(number), by)

    try:
        await call.services.ledger.write(work)
    except GuardError:
        raise not_found("no such alert is open", "id") from None
    return Cleared(id=number, cleared_by=by.actor)


async def settings(call: Call[Empty, Empty]) -> SettingsAnswer:
    """GET /api/settings."""
    return await _settings(call.services)


async def change_settings(call: Call[Any, Empty]) -> SettingsAnswer:
    """PATCH /api/settings: all or none; in force at once here, within a second elsewhere."""
    by = call.by(call.body.reason)
    given = call.body.model_fields_set - {"reason"}
    if not given:
        raise InputError("body", "names no setting")
    wanted = {name: getattr(call.body, name) for name in sorted(given)}
    await call.services.ledger.write(partial(_change, call.services, wanted=wanted, by=by))
    await call.services.live.look(call.services.ledger)
    return await _settings(call.services)


def _change(services: Services, connection: Connection, *, wanted: dict[str, Any], by: By) -> None:
    tuning.change(connection, services.live.base, wanted, by)


async def _settings(services: Services) -> SettingsAnswer:
    stored = await services.ledger.read(actions.stored_settings)
    listed = tuning.listed(services.live.base, stored)
    return SettingsAnswer(
        settings={each["name"]: each["value"] for each in listed},
        details=[SettingPart.model_validate(each) for each in listed],
    )


ROUTES: Final = (
    Route(
        "POST",
        "/api/payments/{id}/retry",
        "Send a payment round again that is not confirmed",
        retry,
        Retried,
        scopes=OPERATORS,
        body=Why,
        refusals={404: "no such payment", 409: "it is not on the list for manual review"},
    ),
    Route(
        "POST",
        "/api/queue/reset-stuck",
        "Have transactions that hang broadcast again, and then bumped",
        reset_stuck,
        Reset,
        scopes=OPERATORS,
        body=StuckQuery,
    ),
    Route(
        "GET",
        "/api/alerts",
        "What a person should look at",
        alerts,
        AlertList,
        scopes=OPERATORS,
        query=AlertQuery,
    ),
    Route(
        "POST",
        "/api/alerts",
        "Clear an alert that was looked into",
        clear_alert,
        Cleared,
        scopes=OPERATORS,
        body=Reviewed,
        refusals={404: "no such alert is open"},
    ),
    Route(
        "GET",
        "/api/settings",
        "Settings of settlement, as they are in force",
        settings,
        SettingsAnswer,
        scopes=OPERATORS,
    ),
    Route(
        "PATCH",
        "/api/settings",
        "Change settings of settlement without a restart",
        change_settings,
        SettingsAnswer,
        scopes=OPERATORS,
        body=SettingsChange,
    ),
)

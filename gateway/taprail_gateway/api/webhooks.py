"""`/api/webhooks`: where merchants are told, and sending again what was given up.

Endpoints are added and removed, and their secrets made, by `taprail admin webhook`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, select

from taprail_common.api.base import Empty
from taprail_common.api.office import Replayed, ReplayOrder, WebhookList, WebhookPart
from taprail_common.wire import to_ms
from taprail_gateway.api.errors import not_found
from taprail_gateway.api.people import SELLERS
from taprail_gateway.api.table import Call, Route
from taprail_gateway.directory import User
from taprail_gateway.ledger import actions, webhooks
from taprail_gateway.ledger.schema import merchants
from taprail_gateway.ledger.webhooks import Endpoint

REPLAYED_S: Final = 72 * 3_600
"""How far back a replay goes that does not say: over a weekend."""


async def listed(call: Call[Empty, Empty]) -> WebhookList:
    """GET /api/webhooks: a merchant's own, or all."""
    found = await call.services.ledger.read(partial(_seen, user=call.bearer))
    return WebhookList(webhooks=[WebhookPart.model_validate(each) for each in found])


async def replay(call: Call[ReplayOrder, Empty]) -> Replayed:
    """POST /api/webhooks/{id}/replay: what was given up goes out again, with the same ids."""
    by, since = call.by(call.body.reason), call.body.since
    since_ms = by.at_ms - REPLAYED_S * 1000 if since is None else to_ms(since)
    seen = await call.services.ledger.read(partial(_seen, user=call.bearer))
    if call.id not in {each.id for each in seen}:
        raise not_found("there is no such webhook")

    def work(connection: Connection) -> int:
        count = webhooks.replay(connection, call.id, since_ms, by.at_ms)
        actions.note(connection, "webhook-replay", call.id, by, after=count)
        return count

    count = await call.services.ledger.write(work)
    call.services.wakeups.callbacks.ring()
    return Replayed(id=call.id, deliveries=count)


def _seen(connection: Connection, *, user: User) -> list[Endpoint]:
    found = webhooks.all_endpoints(connection)
    if user.is_operator:
        return found
    own = set(connection.scalars(select(merchants.c.id).where(merchants.c.user_id == user.id)))
    return [each for each in found if each.merchant_id in own]


ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route(
        "GET",
        "/api/webhooks",
        "Where merchants are told: one's own, or all",
        listed,
        WebhookList,
        scopes=SELLERS,
    ),
    Route(
        "POST",
        "/api/webhooks/{id}/replay",
        "Send again what a webhook did not take and was given up",
        replay,
        Replayed,
        scopes=SELLERS,
        body=ReplayOrder,
        refusals={404: "there is none that is the caller's"},
    ),
)

"""`/api/payment/queue-status` and `ws-status`: how the queues and the sockets are doing."""

from __future__ import annotations

from taprail_common.api.base import Empty
from taprail_common.api.queues import QueuePart, Queues, QueueStatus, Websocket, WebsocketStatus
from taprail_gateway.api.context import SOCKETS
from taprail_gateway.api.table import Call
from taprail_gateway.ledger.queue_rates import WINDOW_S


async def queue_status(call: Call[Empty, Empty]) -> QueueStatus:
    """GET /api/payment/queue-status."""
    report = await call.services.health.report()
    queues = {name: QueuePart.model_validate(each) for name, each in report.queues.items()}
    return QueueStatus(
        queues=Queues(**queues),
        states=report.states,
        window_seconds=WINDOW_S,
        avg_seconds=report.average_s,
        per_second=report.per_s,
        failures_by_reason=report.failures,
        cache_hit_rate=report.hit_rate,
        timestamp=report.at_ms,
    )


async def ws_status(call: Call[Empty, Empty]) -> WebsocketStatus:
    """GET /api/payment/ws-status: of this gateway; other users are operators' business."""
    sockets = call.request.app.get(SOCKETS)
    presence = None if sockets is None else sockets.presence()
    users = [] if presence is None else presence.users
    user = call.user
    shown = users if user is not None and user.is_operator else []
    if user is not None and user.id in users and not user.is_operator:
        shown = [user.id]
    return WebsocketStatus(
        websocket=Websocket(
            status="inactive" if presence is None else "active",
            total_connections=0 if presence is None else presence.connections,
            unique_users=len(users),
            connected_users=shown,
            timestamp=call.services.clock.now_ms(),
        )
    )

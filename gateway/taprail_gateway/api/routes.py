"""The HTTP application: all its addresses in one table, and its bounds."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from aiohttp import web

from taprail_common.api.base import Problem
from taprail_common.api.queues import QueueStatus, WebsocketStatus
from taprail_common.wire import MAX_BODY_BYTES
from taprail_gateway.api import (
    cards,
    charges,
    fleet,
    health,
    listing,
    metrics,
    openapi,
    operate,
    pairing,
    payments,
    people,
    queues,
    refunds,
    technicians,
    terminal_keys,
    terminals,
    webhooks,
)
from taprail_gateway.api.context import SERVICES, Services
from taprail_gateway.api.errors import errors_as_json
from taprail_gateway.api.metrics import Shown
from taprail_gateway.api.table import Plain, Route

ROUTES: Final[tuple[Route[Any, Any] | Plain, ...]] = (
    *payments.ROUTES,
    *refunds.ROUTES,
    Route(
        "GET",
        "/api/payment/queue-status",
        "How the queues are doing",
        queues.queue_status,
        QueueStatus,
        terminals=True,
    ),
    Route(
        "GET",
        "/api/payment/ws-status",
        "Who listens at this gateway",
        queues.ws_status,
        WebsocketStatus,
        terminals=True,
    ),
    *listing.ROUTES,
    *operate.ROUTES,
    *cards.ROUTES,
    *terminals.ROUTES,
    *pairing.ROUTES,
    *terminal_keys.ROUTES,
    *fleet.ROUTES,
    *technicians.ROUTES,
    *charges.ROUTES,
    *people.ROUTES,
    *webhooks.ROUTES,
    *health.ROUTES,
    Plain(
        "GET",
        "/metrics",
        "Figures for Prometheus",
        metrics.metrics,
        {200: str, 404: Problem},
        is_open=True,
    ),
    Plain("GET", openapi.PATH, "This document", openapi.document, {200: dict}, is_open=True),
)


def build_app(services: Services, shown: Shown = Shown.LOOPBACK) -> web.Application:
    """An application that serves HTTP on a started ledger; push and settlement are not its
    business."""
    app = web.Application(
        middlewares=[metrics.count_requests, errors_as_json], client_max_size=MAX_BODY_BYTES
    )
    app[SERVICES] = services
    app[metrics.METRICS] = metrics.Metrics(shown, {route.path for route in ROUTES})
    app[openapi.DOCUMENT] = _document()
    for route in ROUTES:
        if route.method == "GET":
            app.router.add_get(route.path, route.serve)  # and HEAD
        else:
            app.router.add_route(route.method, route.path, route.serve)
    return app


@cache
def _document() -> bytes:
    """The same for every application of this process."""
    return openapi.describe(ROUTES)

"""The HTTP application: its addresses and its bounds."""

from __future__ import annotations

from aiohttp import web

from taprail_common.wire import MAX_BODY_BYTES
from taprail_gateway.api import health, payments, terminals
from taprail_gateway.api.context import SERVICES, Services
from taprail_gateway.api.errors import errors_as_json


def build_app(services: Services) -> web.Application:
    """An application that serves HTTP on a started ledger; push and settlement are not its
    business."""
    app = web.Application(middlewares=[errors_as_json], client_max_size=MAX_BODY_BYTES)
    app[SERVICES] = services
    app.router.add_post("/api/payment/process-async", payments.process_async)
    app.router.add_get("/api/payment/status/{id}", payments.status)
    app.router.add_get("/api/terminals/hello", terminals.hello)
    app.router.add_get("/healthz", health.healthz)
    app.router.add_get("/readyz", health.readyz)
    return app

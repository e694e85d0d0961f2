"""Whether the gateway lives, and whether it can do its work right now."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from taprail_common.api.gateway import Alive, NotReady, Ready
from taprail_gateway.api.context import SERVICES
from taprail_gateway.api.table import Plain


async def healthz(_request: web.Request) -> web.Response:
    """GET /healthz: 200 as long as the event loop turns."""
    return web.json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: 200, or 503 with what is in the way."""
    problems = request.app[SERVICES].not_ready()
    if problems:
        return web.json_response({"status": "not ready", "problems": problems}, status=503)
    return web.json_response({"status": "ready"})


ROUTES: Final = (
    Plain("GET", "/healthz", "Whether the gateway lives", healthz, {200: Alive}, is_open=True),
    Plain(
        "GET",
        "/readyz",
        "Whether it can do its work",
        readyz,
        {200: Ready, 503: NotReady},
        is_open=True,
    ),
)

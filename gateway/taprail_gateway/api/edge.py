"""What lies before the addresses: requests of other web sites, and bytes that are no HTTP."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from taprail_common.wire import SIGNATURE_HEADER, TERMINAL_HEADER, TIMESTAMP_HEADER

_log = structlog.get_logger("api")

_METHODS: Final = "GET, HEAD, POST, PATCH"
_HEADERS: Final = ", ".join(
    (
        *("Authorization", "Content-Type", "Idempotency-Key"),
        *(TERMINAL_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER),
    )
)
_EXPOSED: Final = f"Retry-After, {SIGNATURE_HEADER}"
_REMEMBER_S: Final = "600"


def allow_origins(app: web.Application, origins: Sequence[str]) -> None:
    """Let scripts of these web sites ask and read the answers (Fetch standard, section 3.2)."""
    allowed = frozenset(origins)
    if not allowed:
        return

    async def preflight(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        return web.Response(status=204) if asks and _is_ours(request) else await handler(request)

    async def name_origin(request: web.Request, response: web.StreamResponse) -> None:
        if not _is_ours(request):
            return
        # Without it a cache might give one site's answer to another.
        response.headers.add("Vary", "Origin")
        origin = request.headers.get("Origin", "")
        if origin in allowed:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED
            if request.method == "OPTIONS":
                response.headers["Access-Control-Allow-Methods"] = _METHODS
                response.headers["Access-Control-Allow-Headers"] = _HEADERS
                response.headers["Access-Control-Max-Age"] = _REMEMBER_S

    app.middlewares.append(web.middleware(preflight))
    app.on_response_prepare.append(name_origin)


def _is_ours(request: web.Request) -> bool:
    return request.path.startswith("/api/")  # the push has its own rules


def quiet_logger() -> logging.Logger:
    """A logger for the server: bytes that are no HTTP are a stranger's, and no trace of ours.

    The library would log them in full, with whatever secret is among them.
    """
    logger = logging.getLogger("aiohttp.server.taprail")
    if not logger.filters:
        logger.addFilter(_is_not_garbage)
    return logger


def _is_not_garbage(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError):
        return True
    _log.debug("api.garbage", kind=type(error).__name__)
    return False

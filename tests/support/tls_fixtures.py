"""A gateway behind TLS, with a certificate of its own that it may change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from taprail_gateway.api.context import SOCKETS
from taprail_gateway.api.routes import build_app
from taprail_gateway.tls import make_certificate, server_context
from tests.support.gateway_fixtures import TestGateway


@asynccontextmanager
async def shown(
    gateway: TestGateway, folder: Path, name: str, pins: tuple[str, ...], port: int = 0
) -> AsyncIterator[str]:
    """The gateway and its push behind this certificate, telling of these pins; its address."""
    app = build_app(replace(gateway.services, tls_pins=pins))
    app[SOCKETS] = gateway.push
    gateway.push.attach(app)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    tls = server_context(folder / f"{name}.pem", folder / f"{name}.key")
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
        yield "https://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


def make(folder: Path, name: str) -> str:
    """A certificate and its key; the SHA-256 that it is known by."""
    now = datetime.now(UTC)
    return make_certificate(folder / f"{name}.pem", folder / f"{name}.key", "gateway", now)

"""`/metrics` for Prometheus: requests, queues, payments by state, caches, the process.

Labels are names of our own: addresses as the table writes them, queues, states. No id, card, token
or address of anybody is ever one.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum
from functools import lru_cache
from typing import Final

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from taprail_common.api.queues import Health
from taprail_gateway.api.context import SERVICES, SOCKETS, Services
from taprail_gateway.api.errors import not_found
from taprail_gateway.ledger import offline
from taprail_gateway.ledger.offline import Figures
from taprail_gateway.queue_health import Report

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "OPTIONS"})
_NOWHERE: Final = "none"
_SOCKETS: Final = "/nfc-ws/"
_FIGURES_KEPT: Final = 1_000
"""More than addresses with the answers that they give."""
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_FORWARDED: Final = ("Forwarded", "X-Forwarded-For", "X-Real-IP")


class Shown(StrEnum):
    """To whom."""

    OFF = "off"
    LOOPBACK = "loopback"
    """Who asks from this very machine, and not through a proxy on it."""
    ALL = "all"


class Metrics:
    """The figures of one application."""

    def __init__(self, shown: Shown, paths: Iterable[str]) -> None:
        self._shown = shown
        self._paths = frozenset(paths)
        # Looking for the figures of some labels takes longer than to count.
        self._figures = lru_cache(_FIGURES_KEPT)(self._labelled)
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "taprail_http_requests", "Requests", ["method", "path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "taprail_http_seconds", "Time to answer", ["path"], registry=registry, buckets=_SECONDS
        )
        self._queue = Gauge(
            "taprail_queue", "What is in a queue", ["queue", "what"], registry=registry
        )
        self._oldest = Gauge(
            "taprail_queue_oldest_seconds", "Age of the oldest", ["queue"], registry=registry
        )
        self._healthy = Gauge(
            "taprail_queue_healthy",
            "1: healthy, 0.5: degraded, 0: stopped",
            ["queue"],
            registry=registry,
        )
        self._payments = Gauge(
            "taprail_payments",
            "By state; the final ones of the window",
            ["state"],
            registry=registry,
        )
        self._lookups = Gauge(
            "taprail_cache_lookups", "Since the start", ["cache", "found"], registry=registry
        )
        self._offline = Gauge(
            "taprail_offline_taps", "Taken without asking, so far", ["what"], registry=registry
        )
        self._offline_units = Gauge(
            "taprail_offline_units", "The same, in the token's units", ["what"], registry=registry
        )
        self._sockets = Gauge("taprail_sockets", "Open sockets", registry=registry)
        self._ready = Gauge("taprail_ready", "Whether it can do its work", registry=registry)

    def note(self, method: str, path: str, status: int, seconds: float) -> None:
        """One request was answered."""
        if path not in self._paths:
            path = _NOWHERE
        named = method if method in _METHODS else "other"
        answered, took = self._figures(named, path, status)
        answered.inc()
        took.observe(seconds)

    def _labelled(self, method: str, path: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(method, path, str(status)), self._seconds.labels(path)

    def may_see(self, request: web.Request) -> bool:
        """Whether the figures are for whoever asks."""
        if self._shown is not Shown.LOOPBACK:
            return self._shown is Shown.ALL
        if any(name in request.headers for name in _FORWARDED):
            return False
        try:
            return ipaddress.ip_address(request.remote or "").is_loopback
        except ValueError:
            return False

    def text(self, services: Services, report: Report, taps: Figures, sockets: int) -> bytes:
        """All figures as Prometheus reads them."""
        self._take(report)
        self._offline.labels("came_in").set(taps.count)
        self._offline.labels("lost").set(taps.lost_count)
        self._offline_units.labels("came_in").set(taps.units)
        self._offline_units.labels("lost").set(taps.lost_units)
        for cache, use in services.caches.items():
            self._lookups.labels(cache, "yes").set(use.hits)
            self._lookups.labels(cache, "no").set(use.misses)
        self._sockets.set(sockets)
        self._ready.set(not services.not_ready())
        return generate_latest(self._registry)

    def _take(self, report: Report) -> None:
        health = {Health.HEALTHY: 1.0, Health.DEGRADED: 0.5, Health.STOPPED: 0.0}
        for name, queue in report.queues.items():
            for what in ("waiting", "active", "delayed", "completed", "failed", "per_minute"):
                self._queue.labels(name, what).set(getattr(queue, what))
            self._oldest.labels(name).set(queue.oldest_s or 0)
            self._healthy.labels(name).set(health[queue.status])
        for state, count in report.states.items():
            self._payments.labels(state).set(count)


METRICS: Final = web.AppKey("metrics", Metrics)


@web.middleware
async def count_requests(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Note each answer; errors are answers too, so this stands around them.

    The push is left out: a socket lasts as long as somebody listens.
    """
    began_s = time.perf_counter()
    response = await handler(request)
    resource = request.match_info.route.resource
    path = "" if resource is None else resource.canonical
    if path != _SOCKETS:
        seconds = time.perf_counter() - began_s
        request.app[METRICS].note(request.method, path, response.status, seconds)
    return response


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics."""
    figures = request.app[METRICS]
    if not figures.may_see(request):
        raise not_found("there is nothing at this address")
    services = request.app[SERVICES]
    sockets = request.app.get(SOCKETS)
    count = 0 if sockets is None else sockets.presence().connections
    taps = await services.ledger.read(offline.figures)
    text = figures.text(services, await services.health.report(), taps, count)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

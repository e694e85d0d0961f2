"""The way to the gateway, one stage after the other: name, connection, TLS, round trips.

Answers for saying which stage fails and how long each took. It sends nothing but the handshake,
and holds the certificate against what the terminal's own connections are held against; the round
trips are the caller's signed questions.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

from aiohttp import ServerFingerprintMismatch

from taprail_common.client.pins import PinnedCertificates
from taprail_terminal.console.aside import aside
from taprail_terminal.feedback.parts import PartHealth, healthy

STAGE_LIMIT_S: Final = 4.0
DEFAULT_ROUNDS: Final = 10
MAX_ROUNDS: Final = 50

_INTERFACES: Final = Path("/sys/class/net")
_NETWORK: Final = "plug the network cable in, or put the Wi-Fi right; then `net test`"
_DNS: Final = "check the name in [terminal] gateway_url and the DNS server of this network"
_CONNECT: Final = "is the gateway running, and does a firewall let this terminal through to it?"
_TLS: Final = "compare the gateway's certificate with what this terminal trusts, and both clocks"
_STRANGER: Final = "find out who answers there; if the gateway is new, pair this terminal anew"
_NO_TLS: Final = "does [terminal] gateway_url have the right port, and is it https there?"

PinsOfNow = Callable[[], PinnedCertificates | None]


def _no_pins() -> PinnedCertificates | None:
    return None


@dataclass(frozen=True, slots=True)
class Target:
    """Where the gateway is. Its certificate is held against `pins` where any are known, and against
    what this machine trusts where not."""

    host: str
    port: int
    is_tls: bool
    pins: PinsOfNow = _no_pins

    @classmethod
    def of(cls, url: str, pins: PinsOfNow = _no_pins) -> Target:
        """The target of a gateway's URL."""
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        return cls(parts.hostname or "", parts.port or (443 if is_tls else 80), is_tls, pins)


async def network(target: Target, interfaces: Path = _INTERFACES) -> PartHealth:
    """Whether any line out of this machine is up."""
    if target.host in {"localhost", "127.0.0.1", "::1"}:
        return healthy("network", "the gateway is on this machine")
    up = await aside("network", partial(_interfaces_up, interfaces))
    if up:
        return healthy("network", f"up: {', '.join(up)}")
    return _bad("network", "no line is up", _NETWORK)


async def dns(target: Target) -> PartHealth:
    """Whether the gateway's name has an address."""
    began_s = time.monotonic()
    try:
        address = await _address(target)
    except TimeoutError:
        return _bad("dns", f"no answer about {target.host} in {STAGE_LIMIT_S:g} s", _DNS)
    except OSError as exc:
        return _bad("dns", f"{target.host} has no address ({exc.strerror})", _DNS)
    return healthy("dns", f"{target.host} is {address}, {_since_ms(began_s)} ms")


async def connect(target: Target) -> PartHealth:
    """Whether somebody listens there."""
    return await _stage("connect", target)


async def tls(target: Target) -> PartHealth:
    """Whether the handshake holds, and the certificate is the gateway's."""
    if not target.is_tls:
        return healthy("tls", "not used: [terminal] gateway_url is http")
    pins = target.pins()
    trust = await aside("tls", ssl.create_default_context if pins is None else _any_certificate)
    return await _stage("tls", target, trust, pins)


def _any_certificate() -> ssl.SSLContext:
    """Whoever signed it, and whenever: it is known by its digest."""
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    return trust


async def round_trips_ms(ask: Callable[[], Awaitable[int]], rounds: int) -> list[int]:
    """So many signed questions one after the other; raises TapRailError with the first failure."""
    return [await ask() for _ in range(max(1, min(rounds, MAX_ROUNDS)))]


def percentiles(times_ms: Sequence[int]) -> dict[str, Any]:
    """Of times that were measured."""
    ordered = sorted(times_ms)

    def at(share: float) -> int:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {
        "rounds": len(ordered),
        "p50Ms": at(0.50),
        "p90Ms": at(0.90),
        "p99Ms": at(0.99),
        "maxMs": ordered[-1],
    }


async def _address(target: Target) -> str:
    """Raises OSError, or TimeoutError after STAGE_LIMIT_S."""
    look = partial(socket.getaddrinfo, target.host, target.port, type=socket.SOCK_STREAM)
    async with asyncio.timeout(STAGE_LIMIT_S):
        found = await aside("dns", look)
    return str(found[0][4][0])


async def _stage(
    name: str,
    target: Target,
    trust: ssl.SSLContext | None = None,
    pins: PinnedCertificates | None = None,
) -> PartHealth:
    try:
        address = await _address(target)
    except OSError:  # a time-out is one too
        return _bad(name, f"not tried: {target.host} has no address", _DNS)
    began_s = time.monotonic()
    shown = target.host if trust is not None else None
    try:
        async with asyncio.timeout(STAGE_LIMIT_S):
            _, writer = await asyncio.open_connection(
                address, target.port, ssl=trust, server_hostname=shown
            )
    except OSError as exc:
        return _bad(name, *_why(exc))
    try:
        spoken = writer.get_extra_info("ssl_object")
        if pins is not None:
            pins.check(cast("asyncio.Transport", writer.transport))
    except ServerFingerprintMismatch as exc:
        detail = f"a certificate that is not the gateway's ({exc.got.hex()[:16]})"
        return _bad(name, detail, _STRANGER)
    finally:
        writer.transport.abort()
    version = f"{spoken.version()}, " if spoken is not None else ""
    return healthy(name, f"{version}{_since_ms(began_s)} ms")


def _why(exc: OSError) -> tuple[str, str]:
    """What went wrong on the way, and what to do about it."""
    match exc:
        case ssl.SSLCertVerificationError():
            return f"the certificate is not good: {exc.verify_message}", _TLS
        case ssl.SSLError():
            return f"the handshake failed ({exc.reason or 'no reason given'})", _NO_TLS
        case TimeoutError():
            return f"no answer in {STAGE_LIMIT_S:g} s", _CONNECT
        case ConnectionResetError():
            return "whoever answers hangs up", _CONNECT
    if exc.errno is not None and exc.errno > 0:
        return os.strerror(exc.errno).lower(), _CONNECT
    return "cannot be reached", _CONNECT


def _interfaces_up(folder: Path) -> list[str]:
    """Interfaces that carry; a tunnel's state is `unknown` while it works."""
    up = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        state = entry / "operstate"
        if entry.name != "lo" and state.exists() and state.read_text().strip() in {"up", "unknown"}:
            up.append(entry.name)
    return up


def _since_ms(began_s: float) -> int:
    return round((time.monotonic() - began_s) * 1000)


def _bad(name: str, detail: str, fix: str) -> PartHealth:
    return PartHealth(name, ok=False, detail=detail, fix=fix)

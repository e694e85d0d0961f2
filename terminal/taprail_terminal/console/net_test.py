"""The way to the gateway, one stage after the other: name, connection, TLS, round trips.

Answers for saying which stage fails and how long each took. It sends nothing but the handshake; the
round trips are the caller's signed questions.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from taprail_terminal.feedback.parts import PartHealth, healthy

STAGE_LIMIT_S: Final = 4.0
DEFAULT_ROUNDS: Final = 10
MAX_ROUNDS: Final = 50

_INTERFACES: Final = Path("/sys/class/net")
_NETWORK: Final = "plug the network cable in, or put the Wi-Fi right; then `net test`"
_DNS: Final = "check the name in [terminal] gateway_url and the DNS server of this network"
_CONNECT: Final = "is the gateway running, and does a firewall let this terminal through to it?"
_TLS: Final = "compare the gateway's certificate with what this terminal trusts, and both clocks"


@dataclass(frozen=True, slots=True)
class Target:
    """Where the gateway is; `trust` is what its certificate is held against."""

    host: str
    port: int
    trust: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str, trust: ssl.SSLContext | None = None) -> Target:
        """The target of a gateway's URL; the machine's own certificates when none are given."""
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        if is_tls and trust is None:
            trust = ssl.create_default_context()
        return cls(parts.hostname or "", parts.port or (443 if is_tls else 80), trust)


async def network(target: Target, interfaces: Path = _INTERFACES) -> PartHealth:
    """Whether any line out of this machine is up."""
    if target.host in {"localhost", "127.0.0.1", "::1"}:
        return healthy("network", "the gateway is on this machine")
    up = await asyncio.to_thread(_interfaces_up, interfaces)
    if up:
        return healthy("network", f"up: {', '.join(up)}")
    return _bad("network", "no line is up", _NETWORK)


async def dns(target: Target) -> PartHealth:
    """Whether the gateway's name has an address."""
    began_s = time.monotonic()
    try:
        async with asyncio.timeout(STAGE_LIMIT_S):
            found = await asyncio.get_running_loop().getaddrinfo(
                target.host, target.port, type=socket.SOCK_STREAM
            )
    except TimeoutError:
        return _bad("dns", f"no answer about {target.host} in {STAGE_LIMIT_S:g} s", _DNS)
    except OSError as exc:
        return _bad("dns", f"{target.host} has no address ({exc.strerror})", _DNS)
    return healthy("dns", f"{target.host} is {found[0][4][0]}, {_since_ms(began_s)} ms")


async def connect(target: Target) -> PartHealth:
    """Whether somebody listens there."""
    return await _stage("connect", target, None, _CONNECT)


async def tls(target: Target) -> PartHealth:
    """Whether the handshake holds."""
    if target.trust is None:
        return healthy("tls", "not used: [terminal] gateway_url is http")
    return await _stage("tls", target, target.trust, _TLS)


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


async def _stage(
    name: str, target: Target, trust: ssl.SSLContext | None, what_to_do: str
) -> PartHealth:
    began_s = time.monotonic()
    try:
        async with asyncio.timeout(STAGE_LIMIT_S):
            _, writer = await asyncio.open_connection(target.host, target.port, ssl=trust)
    except TimeoutError:
        return _bad(name, f"no answer in {STAGE_LIMIT_S:g} s", what_to_do)
    except ssl.SSLCertVerificationError as exc:
        return _bad(name, f"the certificate is not good: {exc.verify_message}", what_to_do)
    except OSError as exc:
        return _bad(name, _words(exc), what_to_do)
    spoken = writer.get_extra_info("ssl_object")
    version = f"{spoken.version()}, " if spoken is not None else ""
    writer.transport.abort()
    return healthy(name, f"{version}{_since_ms(began_s)} ms")


def _interfaces_up(folder: Path) -> list[str]:
    """Interfaces that carry; a tunnel's state is `unknown` while it works."""
    up = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        state = entry / "operstate"
        if entry.name != "lo" and state.exists() and state.read_text().strip() in {"up", "unknown"}:
            up.append(entry.name)
    return up


def _words(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError):
        return f"the handshake failed ({exc.reason or 'no reason given'})"
    if exc.errno is not None and exc.errno > 0:
        return os.strerror(exc.errno).lower()
    return "cannot be reached"


def _since_ms(began_s: float) -> int:
    return round((time.monotonic() - began_s) * 1000)


def _bad(name: str, detail: str, fix: str) -> PartHealth:
    return PartHealth(name, ok=False, detail=detail, fix=fix)

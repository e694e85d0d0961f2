"""What the handlers work with, put together once by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from aiohttp import web
from nacl.signing import SigningKey

from taprail_common.clock import Clock
from taprail_common.eip3009 import TokenDomain
from taprail_gateway.accept import Acceptor
from taprail_gateway.api.rates import RateLimits
from taprail_gateway.authorize import Rules
from taprail_gateway.custody import Custody
from taprail_gateway.directory import Directory
from taprail_gateway.heartbeats import Heartbeats
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.pin_desk import PinDesk
from taprail_gateway.proofs import ProofReader
from taprail_gateway.queue_health import Caches, QueueHealth, Told
from taprail_gateway.remembered import CacheUse
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.tokens import Tokens
from taprail_gateway.wakeups import Wakeups


@dataclass(frozen=True, slots=True)
class Services:
    """`explorer_url` is a template with `{txHash}`; `not_ready` lists why the gateway cannot do its
    work right now, and is empty when it can."""

    ledger: Ledger
    clock: Clock
    key: SigningKey
    gateway_id: str
    rules: Rules
    proofs: ProofReader
    acceptor: Acceptor
    directory: Directory
    tokens: Tokens
    wakeups: Wakeups
    token_domain: TokenDomain
    health: QueueHealth
    live: LiveSettings
    custody: Custody
    pins: PinDesk
    rates: RateLimits
    explorer_url: str | None = None
    tls_pins: tuple[str, ...] = ()
    """SHA-256 of the certificates that this gateway shows itself, now and next."""
    not_ready: Callable[[], list[str]] = list
    heartbeats: Heartbeats = field(default_factory=Heartbeats)

    @property
    def caches(self) -> dict[str, CacheUse]:
        """How often what every request needs was in memory already."""
        return {"cards": self.proofs.use, **self.directory.use}

    def cache_numbers(self) -> Caches:
        """The same, as a queue has it."""
        uses = self.caches.values()
        hits, misses = sum(use.hits for use in uses), sum(use.misses for use in uses)
        under_way, refused = self.ledger.reads_under_way, self.ledger.reads_refused
        return Caches(hits + misses, under_way, refused, hits)

    def explorer_link(self, tx_hash: str | None) -> str | None:
        """Where a person can look at a transaction."""
        if self.explorer_url is None or tx_hash is None:
            return None
        return self.explorer_url.replace("{txHash}", tx_hash)


class Presence(Protocol):
    """Who listens."""

    @property
    def connections(self) -> int: ...
    @property
    def users(self) -> list[str]: ...


class Sockets(Protocol):
    """The push, as the HTTP edge sees it."""

    def presence(self) -> Presence: ...
    def told(self) -> Told: ...
    def shut_out(self, whose: str, why: str) -> None: ...


SERVICES: Final = web.AppKey("services", Services)
SOCKETS: Final = web.AppKey("sockets", Sockets)
"""Set where there is a push."""

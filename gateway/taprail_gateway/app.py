"""The composition root of the gateway: opens everything, joins it, and closes it in reverse order.

Nothing else in the package builds an engine, reads a key file or starts a task at import.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

import structlog
from aiohttp import web
from nacl.signing import SigningKey
from sqlalchemy import select

from taprail_common.clock import Clock, SystemClock
from taprail_common.eip3009 import TokenDomain
from taprail_common.errors import OperatorError
from taprail_common.service import SERVICE_MANAGER
from taprail_common.signing import fingerprint, gateway_id, load_key_file, public_key_text
from taprail_gateway import cores, facts, issuer
from taprail_gateway.accept import Acceptor
from taprail_gateway.api.context import SOCKETS, Services
from taprail_gateway.api.edge import allow_origins, quiet_logger
from taprail_gateway.api.rates import RateLimits
from taprail_gateway.api.routes import build_app
from taprail_gateway.authorize import Rules
from taprail_gateway.callbacks.kinds import dispatching
from taprail_gateway.config import GatewaySettings
from taprail_gateway.custody import Custody
from taprail_gateway.directory import Directory
from taprail_gateway.estimate import SettlementEstimate, configured_bounds_ms
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.pin_desk import Pepper, PinDesk
from taprail_gateway.proofs import ProofReader
from taprail_gateway.push import Push
from taprail_gateway.queue_health import QueueHealth, Sources
from taprail_gateway.settle.chain import Chain, TokenInfo
from taprail_gateway.settle.connect import connect
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.live import LiveSettings, QueueMode
from taprail_gateway.settle.reward_check import check_once
from taprail_gateway.tls import server_context
from taprail_gateway.tokens import Tokens
from taprail_gateway.verdict_keys import former_keys
from taprail_gateway.wakeups import Wakeups

_DRAIN_S: Final = 5.0
"""For answers that are being written when the gateway closes; an accept takes milliseconds."""

_KEEP_ALIVE_S: Final = 75.0

_COLLECT_EVERY: Final = 20_000
"""New objects between two looks for cycles (Python's default is 700): a request makes hundreds, and
none that is in a cycle."""

_log = structlog.get_logger("gateway")


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a gateway that has started can be found, and by what key it is known."""

    url: str
    host: str
    port: int
    gateway_id: str
    public_key: str


@dataclass(frozen=True, slots=True)
class _Secrets:
    """What is read from the key files."""

    key: SigningKey
    custody: Custody
    tokens: Tokens

    @classmethod
    def load(cls, settings: GatewaySettings) -> _Secrets:
        return cls(
            load_key_file(settings.key_file, "gateway key"),
            Custody.load(settings.master_key_file),
            Tokens.load(settings.jwt_secret_file, settings.gateway.jwt_public_keys),
        )


async def serve(settings: GatewaySettings, on_ready: Callable[[Ready], None]) -> None:
    """Run until SIGTERM or SIGINT; raises OperatorError when something has to be put right."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    if settings.gateway.one_core:
        loop.set_default_executor(ThreadPoolExecutor(initializer=cores.roam))
        cores.share_one()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with running(settings, SystemClock()) as ready:
        # What was loaded lives as long as the process: nobody has to look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_EVERY)
        on_ready(ready)
        await stopped.wait()
        _log.info("gateway.closing")


@asynccontextmanager
async def running(settings: GatewaySettings, clock: Clock) -> AsyncIterator[Ready]:
    """A gateway that settles, pushes and serves within the block."""
    settings.check()
    secrets = _Secrets.load(settings)
    async with _open_ledger(settings, clock) as ledger, _connected(settings) as chain:
        _claim(ledger, chain.token, secrets)
        await _check_rewards(settings, ledger, chain)
        wakeups = Wakeups()
        live = LiveSettings(settings.settlement)
        contract = settings.rewards.contract
        settlement = Settlement(
            ledger,
            chain,
            secrets.custody,
            live,
            clock,
            wakeups,
            rewards_contract=contract.lower() if contract is not None else None,
        )
        estimate = _first_estimate(settings)
        services = replace(
            _services(settings, ledger, chain.token, secrets, wakeups, estimate, live),
            not_ready=settlement.obstacles,
        )
        services.health.sources.obstacles = settlement.obstacles
        services.health.sources.caches = services.cache_numbers
        push = Push(services, estimate, settings.push, settings.gateway.cors_origins)
        services.health.sources.told = push.told
        async with (
            _settling(settlement),
            _watched(ledger),
            dispatching(settings, ledger, secrets.custody, clock, wakeups),
            _listening(settings, services, push) as (host, port),
        ):
            yield Ready(
                f"{'https' if services.tls_pins else 'http'}://{_in_url(host)}:{port}",
                host,
                port,
                services.gateway_id,
                public_key_text(secrets.key.verify_key),
            )


@asynccontextmanager
async def _open_ledger(settings: GatewaySettings, clock: Clock) -> AsyncIterator[Ledger]:
    ledger = Ledger.open(settings.database_url, clock=clock)
    try:
        await ledger.start()
    except BaseException:
        ledger.dispose()
        raise
    try:
        yield ledger
    finally:
        await ledger.close()


@asynccontextmanager
async def _connected(settings: GatewaySettings) -> AsyncIterator[Chain]:
    chain = await connect(settings.chain)
    try:
        yield chain
    finally:
        await chain.close()


@asynccontextmanager
async def _settling(settlement: Settlement) -> AsyncIterator[None]:
    await settlement.start()
    try:
        yield
    finally:
        await settlement.stop()


@asynccontextmanager
async def _watched(ledger: Ledger) -> AsyncIterator[None]:
    """Tell systemd that we live, as long as the loop turns and the ledger answers."""

    async def is_well() -> None:
        await ledger.read(lambda connection: connection.execute(select(1)))

    feeding = asyncio.create_task(SERVICE_MANAGER.feed(is_well))
    try:
        yield
    finally:
        feeding.cancel()
        SERVICE_MANAGER.stopping()


@asynccontextmanager
async def _listening(
    settings: GatewaySettings, services: Services, push: Push
) -> AsyncIterator[tuple[str, int]]:
    """Serve HTTP and sockets; on the way out first the door is closed, then those inside leave."""
    app = build_app(services, settings.gateway.metrics)
    app[SOCKETS] = push
    allow_origins(app, settings.gateway.cors_origins)
    push.attach(app)
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=quiet_logger(),
        shutdown_timeout=_DRAIN_S,
        keepalive_timeout=_KEEP_ALIVE_S,
        auto_decompress=False,  # `read_body` refuses what is compressed
    )
    await runner.setup()
    table = settings.gateway
    tls = None
    if table.tls_certificate_file is not None and table.tls_key_file is not None:
        tls = server_context(table.tls_certificate_file, table.tls_key_file)
    site = web.TCPSite(runner, table.host, table.port, ssl_context=tls)
    try:
        await _bind(site, settings)
        push.start()
        host, port = runner.addresses[0][:2]
        yield host, port
        await site.stop()
        await push.stop()
    finally:
        await runner.cleanup()


async def _bind(site: web.TCPSite, settings: GatewaySettings) -> None:
    host, port = settings.gateway.host, settings.gateway.port
    try:
        await site.start()
    except OSError as exc:
        reason = "is in use" if exc.errno == errno.EADDRINUSE else f"cannot be had ({exc.strerror})"
        raise OperatorError(
            f"port {port} of {host} {reason}", fix="stop what uses it, or set gateway.port"
        ) from exc


def _claim(ledger: Ledger, token: TokenInfo, secrets: _Secrets) -> None:
    wanted = facts.LedgerFacts(
        token.chain_id,
        token.address,
        token.symbol,
        token.decimals,
        fingerprint(secrets.key.verify_key),
    )
    ledger.write_now(lambda connection: facts.claim(connection, wanted))
    ledger.write_now(secrets.custody.attach)


async def _check_rewards(settings: GatewaySettings, ledger: Ledger, chain: Chain) -> None:
    contract = settings.rewards.contract
    if contract is not None:
        await check_once(ledger, chain, contract.lower())


def _services(
    settings: GatewaySettings,
    ledger: Ledger,
    token: TokenInfo,
    secrets: _Secrets,
    wakeups: Wakeups,
    estimate: SettlementEstimate,
    live: LiveSettings,
) -> Services:
    key, custody = secrets.key, secrets.custody
    rules = Rules(token.symbol, token.decimals, settings.gateway.accept_uid_cards, settings.fraud)
    keys = ledger.read_now(lambda connection: issuer.load(connection, custody))
    return Services(
        ledger=ledger,
        clock=ledger.clock,
        key=key,
        gateway_id=gateway_id(key.verify_key),
        rules=rules,
        proofs=ProofReader(keys, custody.uid_digest, token.domain_separator),
        acceptor=Acceptor(key, rules, ledger.clock, estimate, lambda: _is_draining(live)),
        directory=Directory(ledger),
        tokens=secrets.tokens,
        wakeups=wakeups,
        health=QueueHealth(ledger, Sources(live, works_on=_side_queues(settings))),
        live=live,
        custody=custody,
        pins=PinDesk(
            ledger,
            key,
            Pepper(settings.pin_pepper_file),
            settings.gateway.pin_above_units,
            former_keys(settings.key_file)[:1],
        ),
        rates=RateLimits(settings.limits),
        token_domain=TokenDomain(token.name, token.version, token.chain_id, token.address),
        explorer_url=settings.gateway.explorer_url,
        tls_pins=settings.tls_pins,
    )


def _side_queues(settings: GatewaySettings) -> frozenset[str]:
    is_on = {"mint": settings.rewards.contract is not None, "webhook": settings.webhooks.enabled}
    return frozenset(name for name, on in is_on.items() if on)


def _is_draining(live: LiveSettings) -> bool:
    return live.queue_mode is QueueMode.DRAINING


def _first_estimate(settings: GatewaySettings) -> SettlementEstimate:
    least_ms, most_ms = configured_bounds_ms(
        settings.gateway.block_interval_ms,
        settings.settlement.usual_depth,
        settings.settlement.payment_batch_interval_ms,
        settings.settlement.confirmation_interval_ms,
    )
    return SettlementEstimate(least_ms=least_ms, most_ms=most_ms)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host

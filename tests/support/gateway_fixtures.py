"""A gateway on a real SQLite ledger and a real port, without a chain; with cards that tap.

Cards are the simulator's, which does its own card maths; terminals sign with keys of their own.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from nacl.signing import SigningKey, VerifyKey
from sqlalchemy import Connection, Table, func, select

from taprail_common.clock import SystemClock, rfc3339
from taprail_common.eip3009 import TokenDomain
from taprail_common.ids import new_id
from taprail_common.signing import Domain, gateway_id, public_key_text, sign, verify
from taprail_common.wire import (
    SIGNATURE_HEADER,
    TAP_VALIDITY_MS,
    TERMINAL_HEADER,
    TIMESTAMP_HEADER,
)
from taprail_gateway import issuer, registry
from taprail_gateway.accept import Acceptor
from taprail_gateway.api.context import SOCKETS, Services
from taprail_gateway.api.edge import quiet_logger
from taprail_gateway.api.rates import UNLIMITED, RateLimits
from taprail_gateway.api.routes import build_app
from taprail_gateway.authorize import Rules
from taprail_gateway.custody import Custody, create_master_key
from taprail_gateway.directory import Directory
from taprail_gateway.estimate import SettlementEstimate
from taprail_gateway.fraud_settings import DEFAULTS, FraudSettings
from taprail_gateway.ledger import transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.pin_desk import Pepper, PinDesk
from taprail_gateway.proofs import ProofReader
from taprail_gateway.push import Push
from taprail_gateway.push_settings import PushSettings
from taprail_gateway.queue_health import QueueHealth, Sources
from taprail_gateway.registry import CardOrder, IssuedCard
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.settle.settings import SettlementSettings
from taprail_gateway.tokens import Scope, TokenKey, Tokens
from taprail_gateway.wakeups import Wakeups
from taprail_hwsim.cards.ntag424 import Ntag424
from tests.support.empty_ledger import empty_ledger

MERCHANT = "kiosk"
TERMINAL = "counter-1"
PATH = "/api/payment/process-async"
SECRET = b"a secret of thirty-two characters or more"
UNIT = 1_000_000
"""1.00 of the token, which has 6 decimals."""


class SteppingClock(SystemClock):
    """The machine's clock, set ahead by the test."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


@dataclass
class TestCard:
    """An issued card with its chip; `tap` gives the proof of the next tap."""

    __test__ = False
    issued: IssuedCard
    chip: Ntag424
    counter: int = 0

    def tap(self) -> dict[str, str]:
        self.counter += 1
        picc, mac = self.chip.sun_proof(self.counter)
        return {"profile": "sun", "piccData": picc, "mac": mac}


@dataclass
class TestGateway:
    """The gateway under test, and what a terminal and an app need to speak to it."""

    __test__ = False
    ledger: Ledger
    custody: Custody
    services: Services
    clock: SteppingClock
    terminal_key: SigningKey
    estimate: SettlementEstimate
    push: Push
    url: str = ""
    http: aiohttp.ClientSession = field(default=None)  # type: ignore[assignment]  # set at start

    @property
    def public_key(self) -> VerifyKey:
        return self.services.key.verify_key

    def now_ms(self) -> int:
        return self.clock.now_ms()

    # --- provisioning -------------------------------------------------------------------------

    def card(
        self, uid: str = "04AABBCCDDEE01", *, balance_units: int = 100 * UNIT, **order: Any
    ) -> TestCard:
        raw = bytes.fromhex(uid)
        tenth = 10 if order.get("profile") == "uid" else 1  # a weak card may not pay more
        wanted = CardOrder(
            **{
                "user_id": "alice",
                "uid": raw,
                "single_limit_units": 50 * UNIT // tenth,
                "daily_limit_units": 200 * UNIT // tenth,
                **order,
            }
        )

        def issue(connection: Connection) -> tuple[IssuedCard, issuer.CardKeys]:
            issued = registry.issue_card(connection, self.custody, wanted, self.now_ms())
            transitions.refresh_balances(connection, {issued.account: balance_units}, 1)
            keys = issuer.load(connection, self.custody)
            return issued, issuer.card_keys(keys, issued.key_version, raw)

        issued, keys = self.ledger.write_now(issue)
        return TestCard(issued, Ntag424(raw, keys.meta_read_key, keys.file_read_key))

    def rows(self, table: Table) -> int:
        """How many rows a table has."""
        return self.ledger.read_now(
            lambda connection: int(connection.scalar(select(func.count()).select_from(table)) or 0)
        )

    # --- a terminal ---------------------------------------------------------------------------

    def request(self, proof: dict[str, str], **changes: Any) -> dict[str, Any]:
        now_ms = self.now_ms()
        return {
            "requestId": new_id("req"),
            "terminalId": TERMINAL,
            "merchantId": MERCHANT,
            "amount": 3 * UNIT,
            "currency": "TUSD",
            "tappedAt": rfc3339(now_ms),
            "acceptUntil": rfc3339(now_ms + TAP_VALIDITY_MS),
            "proof": proof,
            **changes,
        }

    def headers(self, body: bytes, *, key: SigningKey | None = None) -> dict[str, str]:
        return {
            TERMINAL_HEADER: TERMINAL,
            SIGNATURE_HEADER: sign(key or self.terminal_key, Domain.PAYMENT_REQUEST, body),
            "Content-Type": "application/json",
        }

    async def post(
        self, body: bytes | dict[str, Any], headers: dict[str, str] | None = None
    ) -> Reply:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = self.headers(raw) if headers is None else headers
        async with self.http.post(PATH, data=raw, headers=given) as response:
            return Reply(
                response.status,
                await response.read(),
                response.headers.get(SIGNATURE_HEADER),
                raw,
                dict(response.headers),
            )

    async def pay(self, card: TestCard, **changes: Any) -> Reply:
        return await self.post(self.request(card.tap(), **changes))

    def query_headers(self, path: str, *, at_ms: int | None = None) -> dict[str, str]:
        timestamp = str(self.now_ms() if at_ms is None else at_ms)
        signed = f"GET {path}\n{TERMINAL}\n{timestamp}".encode()
        return {
            TERMINAL_HEADER: TERMINAL,
            TIMESTAMP_HEADER: timestamp,
            SIGNATURE_HEADER: sign(self.terminal_key, Domain.QUERY, signed),
        }

    def token(self, user_id: str, scopes: Collection[Scope] = tuple(Scope)) -> str:
        """A user's token, for all that their role allows unless told otherwise."""
        now_ms = self.now_ms()
        return self.services.tokens.issue(user_id, now_ms=now_ms, days=1, scopes=scopes)

    def bearer(self, user_id: str) -> dict[str, str]:
        token = self.token(user_id)
        return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


TOKEN_DOMAIN = TokenDomain("Test Dollar", "1", 31337, "0x" + "70" * 20)


@dataclass(frozen=True)
class Reply:
    """An answer, with the bytes that it answers."""

    status: int
    body: bytes
    signature: str | None
    request: bytes
    headers: dict[str, str]

    @property
    def json(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded

    def verify(self, key: VerifyKey) -> None:
        """Raise SignatureError unless this is the gateway's verdict about this very request."""
        verify(key, Domain.VERDICT, self.body, self.signature or "", about=self.request)


@asynccontextmanager
async def running_gateway(
    folder: Path,
    *,
    accept_uid_cards: bool = False,
    ledger_url: str | None = None,
    fraud: FraudSettings = DEFAULTS,
    push: PushSettings | None = None,
) -> AsyncIterator[TestGateway]:
    """A gateway on an ephemeral port; user alice (customer), bob (merchant), olga (operator)."""
    url = ledger_url or empty_ledger(folder)
    rules = Rules("TUSD", 6, accept_uid_cards, fraud)
    async with _serving(_build(folder, url, rules, push)) as gateway:
        yield gateway


@asynccontextmanager
async def gateway_beside(
    first: TestGateway, ledger_url: str, push: PushSettings | None = None
) -> AsyncIterator[TestGateway]:
    """Another gateway of the same name, on the same ledger, with connections of its own."""
    ledger = Ledger.open(ledger_url, clock=first.clock)
    services = replace(
        first.services,
        ledger=ledger,
        wakeups=Wakeups(),
        directory=Directory(ledger),
        acceptor=Acceptor(first.services.key, first.services.rules, first.clock, first.estimate),
    )
    beside = Push(services, first.estimate, push)
    async with _serving(replace(first, ledger=ledger, services=services, push=beside)) as gateway:
        yield gateway


@asynccontextmanager
async def _serving(gateway: TestGateway) -> AsyncIterator[TestGateway]:
    await gateway.ledger.start()
    app = build_app(gateway.services)
    app[SOCKETS] = gateway.push
    gateway.push.attach(app)
    runner = web.AppRunner(app, access_log=None, logger=quiet_logger(), auto_decompress=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    gateway.push.start()
    host, port = runner.addresses[0][:2]
    gateway.url = f"http://{host}:{port}"
    async with aiohttp.ClientSession(gateway.url) as http:
        gateway.http = http
        yield gateway
    await gateway.push.stop()
    await runner.cleanup()
    await gateway.ledger.close()


def _build(
    folder: Path, ledger_url: str, rules: Rules, push_settings: PushSettings | None
) -> TestGateway:
    clock = SteppingClock()
    ledger = Ledger.open(ledger_url, clock=clock)
    create_master_key(folder / "master.key")
    custody = Custody.load(folder / "master.key")
    ledger.write_now(custody.attach)
    terminal_key = SigningKey.generate()
    ledger.write_now(lambda connection: _provision(connection, custody, terminal_key, clock))
    key = SigningKey.generate()
    estimate = SettlementEstimate(least_ms=2_000, most_ms=5_000)
    live = LiveSettings(SettlementSettings())
    services = Services(
        ledger=ledger,
        clock=clock,
        key=key,
        gateway_id=gateway_id(key.verify_key),
        rules=rules,
        proofs=ProofReader(
            ledger.read_now(lambda connection: issuer.load(connection, custody)),
            custody.uid_digest,
            TOKEN_DOMAIN.separator,
        ),
        acceptor=Acceptor(key, rules, clock, estimate),
        directory=Directory(ledger),
        tokens=Tokens([TokenKey.shared(SECRET)]),
        wakeups=Wakeups(),
        token_domain=TOKEN_DOMAIN,
        health=QueueHealth(ledger, Sources(live, works_on=frozenset({"mint", "webhook"}))),
        live=live,
        custody=custody,
        pins=PinDesk(ledger, key, Pepper(folder / "pin.pepper"), ask_above_units=40 * UNIT),
        rates=RateLimits(UNLIMITED),
        explorer_url="https://explorer.example/tx/{txHash}",
    )
    push = Push(services, estimate, push_settings)
    services.health.sources.told = push.told
    services.health.sources.caches = services.cache_numbers
    return TestGateway(ledger, custody, services, clock, terminal_key, estimate, push)


def _provision(
    connection: Connection, custody: Custody, terminal_key: SigningKey, clock: SystemClock
) -> None:
    now_ms = clock.now_ms()
    issuer.ensure(connection, custody, now_ms)
    for user, role in (("alice", "customer"), ("bob", "merchant"), ("olga", "operator")):
        registry.add_user(connection, user, user.title(), role, now_ms)
    registry.add_user(connection, "mallory", "Mallory", "customer", now_ms)
    account = "0x" + "c0ffee" * 6 + "0001"
    registry.add_merchant(connection, MERCHANT, "Kiosk", account, now_ms, user_id="bob")
    public_key = public_key_text(terminal_key.verify_key)
    registry.add_terminal(connection, TERMINAL, MERCHANT, public_key, now_ms)

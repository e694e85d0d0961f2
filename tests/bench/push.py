"""How soon listeners hear of a commit, and what it costs to let them listen.

A gateway process on a real chain; a thousand users are connected, each of whom follows a card of
their own, and payments are made with all the cards in turn. What is measured is the time from the
moment when the ledger shows that a payment is completed (it is looked at every millisecond) to the
moment when its payer's app, in the crowd's process, has read so from its socket. Before, twice as
many sockets are opened that do nothing, and the gateway's memory is compared.
"""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import closing
from typing import Final, Self

from sqlalchemy import Connection, literal_column, select, update

from taprail_common.clock import SystemClock
from taprail_gateway import registry
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.engines import ledger_url
from taprail_gateway.ledger.sqlite_engine import ledger_file
from taprail_gateway.tokens import Tokens
from taprail_hwsim.load import percentile
from tests.bench import crowd
from tests.bench.market import Market, open_market
from tests.bench.scenario import Bench, BenchError, Results, rss_mb

LISTENERS: Final = 1_000
IDLE: Final = 2_000
_WARM_UP: Final = 100
PAYMENTS: Final = 2_000
_RATE_PER_S: Final = 100
_CONNECTIONS: Final = 16
_FILES: Final = 8_192
_LONGEST_S: Final = 120.0
_LOOK_S: Final = 0.001
_OF_CROWD: Final = (
    select(schema.cards.c.uuid)
    .where(schema.cards.c.user_id == "crowd")
    .order_by(literal_column("rowid"))  # as they were issued; the bench's ledger is SQLite
)


async def measure(bench: Bench) -> Results:
    """`push.*`."""
    _allow_files()
    bench.say(f"a gateway with {IDLE:,} users")
    async with open_market(bench.sub("market"), cards=IDLE) as market:
        users = await asyncio.to_thread(_provision, market)
        socket_kb = await _kb_per_socket(bench, market, users)
        bench.say(f"{PAYMENTS:,} payments while {LISTENERS:,} listen")
        late_ms = await _latencies_ms(market, users[:LISTENERS])
    return {
        "push.p50_ms": percentile(late_ms, 50),
        "push.p99_ms": percentile(late_ms, 99),
        "push.kb_per_socket": socket_kb,
    }


class _User:
    """A user with a token and a card."""

    def __init__(self, token: str, card: str) -> None:
        self.token = token
        self.card = card


def _provision(market: Market) -> list[_User]:
    """Give each card a user of its own."""
    settings = GatewaySettings.load(market.stack.gateway_config)
    tokens = Tokens.load(settings.jwt_secret_file)
    now_ms = SystemClock().now_ms()

    def work(connection: Connection) -> list[str]:
        card = schema.cards.c
        uuids = list(connection.scalars(_OF_CROWD))
        for number, uuid in enumerate(uuids):
            registry.add_user(connection, f"user-{number}", "One of many", "customer", now_ms)
            changed = update(schema.cards).where(card.uuid == uuid)
            connection.execute(changed.values(user_id=f"user-{number}"))
        return uuids

    ledger = market.ledger()
    try:
        uuids = ledger.write_now(work)
    finally:
        ledger.dispose()
    return [
        _User(tokens.issue(f"user-{number}", now_ms=now_ms, days=1), uuid)
        for number, uuid in enumerate(uuids)
    ]


# --- memory -------------------------------------------------------------------------------------


async def _kb_per_socket(bench: Bench, market: Market, users: Sequence[_User]) -> float:
    bench.say(f"{IDLE:,} sockets that do nothing")
    pid, url = market.stack.gateway.pid, market.stack.gateway_url
    tokens = [user.token for user in users]
    async with crowd.connected(crowd.Plan(url, tokens[:_WARM_UP])):
        before_mb = rss_mb(pid)
        async with crowd.connected(crowd.Plan(url, tokens[_WARM_UP:])):
            return (rss_mb(pid) - before_mb) * 1000 / (len(users) - _WARM_UP)


# --- time -----------------------------------------------------------------------------------------


class _Commits:
    """When each step could first be read from the ledger.

    SQLite tells by a word of shared memory whether anybody has written (PRAGMA data_version), so a
    look each millisecond costs next to nothing: it must not be in the way of what is measured.
    """

    def __init__(self, market: Market) -> None:
        url = GatewaySettings.load(market.stack.gateway_config).database_url
        self._path = ledger_file(ledger_url(url))
        self._seqs: list[int] = []
        self._at_s: list[float] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def at_s(self, seq: int) -> float:
        """By the clock of `time.monotonic`; of what no look has shown yet, of the latest."""
        return self._at_s[min(bisect_left(self._seqs, seq), len(self._seqs) - 1)]

    def _watch(self) -> None:
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as database:
            version = 0
            while not self._stopped.wait(_LOOK_S):
                (now,) = database.execute("PRAGMA data_version").fetchone()
                if now != version:
                    version = now
                    self._look(database)

    def _look(self, database: sqlite3.Connection) -> None:
        (seq,) = database.execute("SELECT coalesce(max(seq), 0) FROM payment_events").fetchone()
        if not self._seqs or seq > self._seqs[-1]:
            self._at_s.append(time.monotonic())
            self._seqs.append(seq)


async def _latencies_ms(market: Market, users: Sequence[_User]) -> list[float]:
    market.cards = market.cards[: len(users)]
    plan = crowd.Plan(
        market.stack.gateway_url,
        [user.token for user in users],
        [user.card for user in users],
        PAYMENTS,
    )
    async with crowd.connected(plan) as listening, asyncio.timeout(_LONGEST_S):
        with _Commits(market) as commits:
            await market.pay(PAYMENTS, connections=_CONNECTIONS, rate_per_s=_RATE_PER_S)
            heard = await listening.heard()
    return [(each.at_s - commits.at_s(each.seq)) * 1000 for each in heard]


def _allow_files() -> None:
    """A socket is an open file here and in the gateway, which inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < _FILES:
        raise BenchError(f"this system lets a process open {hard} files; {_FILES} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, _FILES), hard))

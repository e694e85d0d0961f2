"""How soon listeners hear of a commit, and what it costs to let them listen.

A gateway process on a real chain; a thousand users are connected, each of whom follows a card of
their own, and payments are made with all the cards in turn. What is measured is the time from the
moment when a read of the ledger shows that a payment is completed (it is read every millisecond,
by a thread of its own) to the moment when its payer's app has read so from its socket. Before,
twice as many sockets are opened that do nothing, and the gateway's memory is compared.
"""

from __future__ import annotations

import asyncio
import json
import resource
import threading
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Self

import aiohttp
from sqlalchemy import Connection, literal_column, select, update

from taprail_common.clock import SystemClock
from taprail_gateway import registry
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger import queries, schema
from taprail_gateway.tokens import Tokens
from taprail_hwsim.load import percentile
from tests.bench.market import Market, open_market
from tests.bench.scenario import Bench, BenchError, Results, rss_mb

LISTENERS: Final = 1_000
IDLE: Final = 2_000
_WARM_UP: Final = 100
PAYMENTS: Final = 2_000
_RATE_PER_S: Final = 100
_CONNECTIONS: Final = 16
_AT_ONCE: Final = 50
_FILES: Final = 8_192
_LONGEST_S: Final = 120.0
_LOOK_S: Final = 0.001
_SOCKET: Final = "/nfc-ws/?EIO=4&transport=websocket"
_OF_CROWD: Final = (
    select(schema.cards.c.uuid)
    .where(schema.cards.c.user_id == "crowd")
    .order_by(literal_column("rowid"))  # as they were issued; the bench's ledger is SQLite
)
_BALANCE: Final = '42["balance:update",'


async def measure(bench: Bench) -> Results:
    """`push.*`."""
    _allow_files()
    bench.say(f"a gateway with {IDLE:,} users")
    async with open_market(bench.sub("market"), cards=IDLE) as market:
        users = await asyncio.to_thread(_provision, market)
        idle_kb = await _idle_socket_kb(bench, market, users)
        bench.say(f"{PAYMENTS:,} payments while {LISTENERS:,} listen")
        late_ms = await _latencies_ms(market, users[:LISTENERS])
    return {
        "push.p50_ms": percentile(late_ms, 50),
        "push.p99_ms": percentile(late_ms, 99),
        "push.idle_socket_kb": idle_kb,
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


# --- sockets --------------------------------------------------------------------------------------


Sockets = list[aiohttp.ClientWebSocketResponse]


@asynccontextmanager
async def _connected(market: Market, users: Sequence[_User]) -> AsyncIterator[Sockets]:
    """A socket for each user, who has been told that they are connected."""
    async with AsyncExitStack() as exits:
        connector = aiohttp.TCPConnector(limit=0)
        http = aiohttp.ClientSession(market.stack.gateway_url, connector=connector)
        await exits.enter_async_context(http)
        sockets: Sockets = []
        for at in range(0, len(users), _AT_ONCE):
            some = users[at : at + _AT_ONCE]
            sockets += await asyncio.gather(*(_connect(http, user) for user in some))
        yield sockets
        await asyncio.gather(*(socket.close() for socket in sockets))


async def _connect(http: aiohttp.ClientSession, user: _User) -> aiohttp.ClientWebSocketResponse:
    socket = await http.ws_connect(_SOCKET)
    await socket.send_str("40" + json.dumps({"token": user.token}))
    await _until(socket, '42["connected"')
    return socket


async def _until(socket: aiohttp.ClientWebSocketResponse, start: str) -> str:
    """The next message that begins like this; pings on the way are answered."""
    async for message in socket:
        text = str(message.data)
        if text.startswith(start):
            return text
        if text == "2":
            await socket.send_str("3")
        if text.startswith("44"):
            raise BenchError(f"a socket was refused: {text}")
    raise BenchError("a socket was closed by the gateway")


async def _idle_socket_kb(bench: Bench, market: Market, users: Sequence[_User]) -> float:
    bench.say(f"{IDLE:,} sockets that do nothing")
    pid = market.stack.gateway.pid
    async with _connected(market, users[:_WARM_UP]):
        before_mb = rss_mb(pid)
        async with _connected(market, users[_WARM_UP:]):
            return (rss_mb(pid) - before_mb) * 1000 / (len(users) - _WARM_UP)


# --- time -----------------------------------------------------------------------------------------


class _Commits:
    """When each step could first be read from the ledger."""

    def __init__(self, market: Market) -> None:
        self._ledger = market.ledger()
        self._seqs = [self._ledger.read_now(queries.last_event_seq)]
        self._at_s = [time.monotonic()]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._ledger.dispose()

    def at_s(self, seq: int) -> float:
        """By the clock of `time.monotonic`; of what no look has shown yet, now."""
        place = bisect_left(self._seqs, seq)
        return self._at_s[place] if place < len(self._at_s) else time.monotonic()

    def _look(self) -> None:
        while not self._stopped.wait(_LOOK_S):
            seq = self._ledger.read_now(queries.last_event_seq)
            if seq > self._seqs[-1]:
                self._at_s.append(time.monotonic())  # before the other, which is looked through
                self._seqs.append(seq)


async def _latencies_ms(market: Market, users: Sequence[_User]) -> list[float]:
    late_ms: list[float] = []
    all_heard = asyncio.Event()

    async def listen(
        socket: aiohttp.ClientWebSocketResponse, user: _User, commits: _Commits
    ) -> None:
        await socket.send_str("42" + json.dumps(["subscribe:card", user.card]))
        while True:
            text = await _until(socket, _BALANCE)
            now_s = time.monotonic()
            seq = int(json.loads(text[2:])[1]["cursor"])
            late_ms.append((now_s - commits.at_s(seq)) * 1000)
            if len(late_ms) == PAYMENTS:
                all_heard.set()

    market.cards = market.cards[: len(users)]
    async with _connected(market, users) as sockets, asyncio.timeout(_LONGEST_S):
        with _Commits(market) as commits:
            listening = [
                asyncio.create_task(listen(socket, user, commits))
                for socket, user in zip(sockets, users, strict=True)
            ]
            try:
                await market.pay(PAYMENTS, connections=_CONNECTIONS, rate_per_s=_RATE_PER_S)
                await all_heard.wait()
            finally:
                for task in listening:
                    task.cancel()
                await asyncio.gather(*listening, return_exceptions=True)
    return late_ms


def _allow_files() -> None:
    """A socket is an open file here and in the gateway, which inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < _FILES:
        raise BenchError(f"this system lets a process open {hard} files; {_FILES} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, _FILES), hard))

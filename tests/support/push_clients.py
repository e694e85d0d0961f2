"""Socket.IO clients that keep what they hear, and the steps of settlement that they hear of."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import socketio
from nacl.signing import SigningKey
from socketio.exceptions import ConnectionError as NotConnected
from sqlalchemy import Connection

from taprail_common.signing import Domain, sign, verify
from taprail_common.wire import PaymentNotice, SignedEnvelope
from taprail_gateway import registry
from taprail_gateway.ledger import transitions
from taprail_gateway.ledger.transitions import Attempt, Confirmed
from tests.support.gateway_fixtures import TERMINAL, TestGateway
from tests.support.ledger_fixtures import lease_of

WAIT_S = 10
TX_HASH = "0x" + "ab" * 32


class Heard:
    """A client and everything that it was told, in order."""

    def __init__(self) -> None:
        self.client = socketio.AsyncClient(reconnection=False)
        self.events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.refusal: Any = None
        self.client.on("*", self._hear)
        self.client.on("connect_error", self._refused)

    async def connect(self, gateway: TestGateway, auth: dict[str, Any] | None) -> None:
        await self.client.connect(
            gateway.url, auth=auth, socketio_path="nfc-ws", transports=["websocket"]
        )

    async def _hear(self, event: str, data: Any = None) -> None:
        await self.events.put((event, data))

    async def _refused(self, data: Any) -> None:
        self.refusal = data

    async def next(self) -> tuple[str, Any]:
        async with asyncio.timeout(WAIT_S):
            return await self.events.get()


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what nothing rings a bell for."""
    for _ in range(WAIT_S * 200):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"did not come to hold within {WAIT_S} s")


@asynccontextmanager
async def connected(gateway: TestGateway, auth: dict[str, Any] | None) -> AsyncIterator[Heard]:
    heard = Heard()
    await heard.connect(gateway, auth)
    try:
        yield heard
    finally:
        await heard.client.disconnect()


def terminal_auth(
    gateway: TestGateway, *, late_ms: int = 0, key: SigningKey | None = None, nonce: str = ""
) -> dict[str, Any]:
    timestamp = gateway.now_ms() + late_ms
    nonce = nonce or secrets.token_hex(16)
    text = f"{gateway.services.gateway_id}\n{TERMINAL}\n{timestamp}\n{nonce}"
    signature = sign(key or gateway.terminal_key, Domain.CONNECT, text.encode())
    return {
        "terminalId": TERMINAL,
        "timestamp": timestamp,
        "nonce": nonce,
        "signature": signature,
    }


def user_auth(gateway: TestGateway, user_id: str) -> dict[str, str]:
    return {"token": gateway.bearer(user_id)["Authorization"].removeprefix("Bearer ")}


async def send(gateway: TestGateway, payment: str) -> None:
    """Take a payment to `sent`, as settlement would: bound to a transaction, then broadcast."""
    now_ms = gateway.now_ms()

    def work(connection: Connection) -> None:
        lane = registry.ensure_lane(connection, gateway.custody, now_ms)
        lease = lease_of(connection, lane)
        transitions.start_lane(connection, lease, 0)
        transaction = transitions.bind(
            connection,
            lease,
            nonce=0,
            payment_ids=[payment],
            attempt=Attempt(TX_HASH, b"signed", 100_000, 2, 1),
            valid_before_s=now_ms // 1000 + 600,
            at_ms=now_ms,
        )
        transitions.mark_broadcast(connection, [transaction], now_ms)

    await gateway.ledger.write(work)
    gateway.services.wakeups.events.ring()


async def complete(gateway: TestGateway, payment: str, account: str) -> None:
    now_ms = gateway.now_ms()
    confirmed = Confirmed(payment, TX_HASH, 9, "0x" + "cd" * 32)
    await gateway.ledger.write(
        lambda connection: transitions.complete(connection, [confirmed], {account: 0}, 9, now_ms)
    )
    gateway.services.wakeups.events.ring()


def opened(gateway: TestGateway, told: tuple[str, Any]) -> PaymentNotice:
    """The notice in a `payment:verdict`, its signature checked."""
    event, data = told
    assert event == "payment:verdict"
    envelope = SignedEnvelope.model_validate(data)
    verify(gateway.public_key, Domain.NOTICE, envelope.body.encode(), envelope.signature)
    return PaymentNotice.model_validate_json(envelope.body)


async def refusal_of(gateway: TestGateway, auth: dict[str, Any] | None) -> Any:
    heard = Heard()
    with pytest.raises(NotConnected):
        await heard.connect(gateway, auth)
    await heard.client.disconnect()
    return heard.refusal

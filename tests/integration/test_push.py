"""Push over real Socket.IO clients: who may listen, and what terminals and users are told."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from nacl.signing import SigningKey

from taprail_common.errors import SignatureError
from taprail_common.payment_state import PaymentEvent
from taprail_common.signing import Domain, verify
from taprail_common.wire import SignedEnvelope
from taprail_gateway import registry
from taprail_gateway.ledger import transitions
from tests.support.gateway_fixtures import TERMINAL, TestGateway, running_gateway
from tests.support.push_clients import (
    TX_HASH,
    WAIT_S,
    complete,
    connected,
    opened,
    refusal_of,
    send,
    terminal_auth,
    user_auth,
)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


async def test_a_terminal_is_told_what_became_of_its_payments(gateway: TestGateway) -> None:
    card = gateway.card()
    async with connected(gateway, terminal_auth(gateway)) as terminal:
        # An answered sync proves that the socket is in its room.
        await terminal.client.call("terminal:sync", {"requestIds": []}, timeout=WAIT_S)
        payment = (await gateway.pay(card, requestId="req-1")).json["transactionId"]
        await send(gateway, payment)
        sent = opened(gateway, await terminal.next())
        assert (sent.request_id, sent.status, sent.tx_hash) == ("req-1", "sent", None)
        await complete(gateway, payment, card.issued.account)
        done = opened(gateway, await terminal.next())
        assert (done.transaction_id, done.status, done.tx_hash) == (payment, "completed", TX_HASH)
        assert done.terminal_id == TERMINAL
    assert gateway.estimate.current.basis == "recent"


async def test_a_terminal_is_told_things_in_the_gateways_hand(gateway: TestGateway) -> None:
    async with connected(gateway, terminal_auth(gateway)) as terminal:
        await terminal.client.call("terminal:sync", {"requestIds": []}, timeout=WAIT_S)
        await gateway.push.to_terminal("another", "charge:request", {"amount": 1})
        await gateway.push.to_terminal(TERMINAL, "charge:request", {"amount": 5})
        event, data = await terminal.next()
    assert event == "charge:request"
    envelope = SignedEnvelope.model_validate(data)
    said = envelope.body.encode()
    assert json.loads(said) == {"amount": 5, "terminalId": TERMINAL}
    verify(gateway.public_key, Domain.COMMAND, said, envelope.signature, about=event.encode())
    with pytest.raises(SignatureError):
        verify(gateway.public_key, Domain.COMMAND, said, envelope.signature, about=b"charge:cancel")


async def test_a_terminal_that_was_away_asks_for_the_current_state(gateway: TestGateway) -> None:
    card = gateway.card()
    payment = (await gateway.pay(card, requestId="req-1")).json["transactionId"]
    async with connected(gateway, user_auth(gateway, "alice")) as alice:
        await alice.client.emit("subscribe:transaction", payment)
        assert [(await alice.next())[0] for _ in range(2)] == ["connected", "transaction:update"]
        await send(gateway, payment)
        await complete(gateway, payment, card.issued.account)
        while (await alice.next())[0] != "transaction:completed":
            pass  # once she was told, it is told: what the terminal hears now, it asked for
    async with connected(gateway, terminal_auth(gateway)) as terminal:
        answer = await terminal.client.call(
            "terminal:sync", {"requestIds": ["req-1", "req-2"]}, timeout=WAIT_S
        )
        assert answer == {"known": ["req-1"], "unknown": ["req-2"]}
        assert opened(gateway, await terminal.next()).status == "completed"
        for bad in ({"requestIds": ["x"] * 101}, {"requestIds": [7]}, {}, None):
            refused = await terminal.client.call("terminal:sync", bad, timeout=WAIT_S)
            assert "error" in refused


async def test_a_terminal_that_was_away_hears_what_it_missed_once_and_in_order(
    gateway: TestGateway,
) -> None:
    first, second = (gateway.card(f"04AABBCCDDEE0{number}") for number in (1, 2))
    asked = {"requestIds": ["req-1", "req-2"]}
    async with connected(gateway, terminal_auth(gateway)) as terminal:
        one = (await gateway.pay(first, requestId="req-1")).json["transactionId"]
        await send(gateway, one)
        cursor = opened(gateway, await terminal.next()).cursor
    two = (await gateway.pay(second, requestId="req-2")).json["transactionId"]
    await complete(gateway, one, first.issued.account)
    now_ms = gateway.now_ms()
    await gateway.ledger.write(
        lambda connection: transitions.apply(
            connection, PaymentEvent.REJECT, [two], now_ms, failure_reason="cancelled"
        )
    )
    gateway.services.wakeups.events.ring()
    async with connected(gateway, {**terminal_auth(gateway), "cursor": cursor}) as terminal:
        missed = [opened(gateway, await terminal.next()) for _ in range(2)]
        assert [(each.request_id, each.status) for each in missed] == [
            ("req-1", "completed"),
            ("req-2", "failed"),
        ]
        # What it was told it is not told again, whatever it asks for.
        answer = await terminal.client.call("terminal:sync", asked, timeout=WAIT_S)
        assert answer == {"known": ["req-1", "req-2"], "unknown": []}
        assert terminal.events.empty()
    newest = {**terminal_auth(gateway), "cursor": missed[-1].cursor}
    async with connected(gateway, newest) as terminal:
        await terminal.client.call("terminal:sync", {"requestIds": []}, timeout=WAIT_S)
        assert terminal.events.empty()
        # It has asked for all the same: what it had before this connection it may have lost.
        await terminal.client.call("terminal:sync", asked, timeout=WAIT_S)
        told = [opened(gateway, await terminal.next()) for _ in range(2)]
        assert [(each.status, each.cursor) for each in told] == [
            ("completed", None),
            ("failed", None),
        ]
    async with connected(gateway, {**terminal_auth(gateway), "cursor": "nonsense"}) as terminal:
        await terminal.client.call("terminal:sync", {"requestIds": []}, timeout=WAIT_S)
        assert terminal.events.empty()


async def test_a_terminal_must_sign_freshly_with_its_own_key(gateway: TestGateway) -> None:
    used = terminal_auth(gateway)
    async with connected(gateway, used):
        pass
    wrong: list[dict[str, Any]] = [
        used,  # its nonce was taken
        terminal_auth(gateway, key=SigningKey.generate()),
        terminal_auth(gateway, late_ms=-31_000),
        terminal_auth(gateway, late_ms=31_000),
        terminal_auth(gateway, nonce="short"),
        {**terminal_auth(gateway), "terminalId": "nobody"},
        {**terminal_auth(gateway), "nonce": secrets.token_hex(16)},
    ]
    for auth in wrong:
        refusal = await refusal_of(gateway, auth)
        assert refusal["message"] == "Authentication failed"
        signed = "\n".join(
            str(part)
            for part in (
                gateway.services.gateway_id,
                auth["terminalId"],
                auth["timestamp"],
                auth["nonce"],
            )
        )
        gateway_time = refusal["data"]["gatewayTime"]
        verify(
            gateway.public_key,
            Domain.ANSWER,
            gateway_time.encode(),
            refusal["data"]["signature"],
            about=signed.encode(),
        )


async def test_a_revoked_terminal_is_not_let_in(gateway: TestGateway) -> None:
    gateway.ledger.write_now(lambda connection: registry.revoke_terminal(connection, TERMINAL))
    assert (await refusal_of(gateway, terminal_auth(gateway)))["message"] == "Authentication failed"


async def test_a_user_needs_a_token(gateway: TestGateway) -> None:
    nothing = await refusal_of(gateway, None)
    assert "No authentication token provided" in str(nothing)
    assert "Authentication failed" in str(await refusal_of(gateway, {"token": "nonsense"}))
    async with connected(gateway, user_auth(gateway, "alice")) as alice:
        event, data = await alice.next()
        assert (event, data["userId"]) == ("connected", "alice")
        assert data["message"] == "Connected to NFC Payment WebSocket"
        await alice.client.emit("ping")
        event, data = await alice.next()
        assert (event, data["userId"]) == ("pong", "alice")


async def test_a_user_follows_a_payment_of_their_own_from_its_current_state(
    gateway: TestGateway,
) -> None:
    card = gateway.card()
    payment = (await gateway.pay(card)).json["transactionId"]
    async with (
        connected(gateway, user_auth(gateway, "alice")) as alice,
        connected(gateway, user_auth(gateway, "mallory")) as mallory,
    ):
        await alice.next(), await mallory.next()
        await mallory.client.emit("subscribe:transaction", payment)
        event, data = await mallory.next()
        assert (event, data["message"]) == ("error", "Transaction not found")
        await alice.client.emit("subscribe:transaction", {"transactionId": payment})
        assert (await alice.next())[1]["status"] == "pending"
        await send(gateway, payment)
        told = [await alice.next(), await alice.next()]
        assert [(event, data["status"]) for event, data in told] == [
            ("transaction:update", "processing"),
            ("transaction:update", "sent"),
        ]
        await complete(gateway, payment, card.issued.account)
        assert (await alice.next())[1]["status"] == "completed"
        event, data = await alice.next()
        assert event == "transaction:completed"
        assert data["explorerUrl"] == f"https://explorer.example/tx/{TX_HASH}"
        assert (data["txHash"], data["amount"]) == (TX_HASH, 3_000_000)
        assert mallory.events.empty()


async def test_a_failure_is_told_with_its_reason(gateway: TestGateway) -> None:
    payment = (await gateway.pay(gateway.card())).json["transactionId"]
    async with connected(gateway, user_auth(gateway, "bob")) as merchant:
        await merchant.next()
        await merchant.client.emit("subscribe:transaction", payment)
        await merchant.next()
        now_ms = gateway.now_ms()
        await gateway.ledger.write(
            lambda connection: transitions.apply(
                connection, PaymentEvent.REJECT, [payment], now_ms, failure_reason="cancelled"
            )
        )
        gateway.services.wakeups.events.ring()
        assert (await merchant.next())[1]["status"] == "failed"
        event, data = await merchant.next()
        assert (event, data["reason"]) == ("transaction:failed", "cancelled")


async def test_news_are_told_even_when_nobody_rings(gateway: TestGateway) -> None:
    payment = (await gateway.pay(gateway.card())).json["transactionId"]
    async with connected(gateway, terminal_auth(gateway)) as terminal:
        await terminal.client.call("terminal:sync", {"requestIds": []}, timeout=WAIT_S)
        await send(gateway, payment)
        assert opened(gateway, await terminal.next()).status == "sent"


@asynccontextmanager
async def raw_socket(gateway: TestGateway) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A socket below Socket.IO, which says what no honest library would."""
    path = "/nfc-ws/?EIO=4&transport=websocket"
    async with gateway.http.ws_connect(path) as socket:
        await socket.receive(timeout=WAIT_S)  # the handshake
        yield socket


@pytest.mark.parametrize("auth", ['{"token":"\\ud800.a.b"}', '{"terminalId":"\\ud800"}'])
async def test_text_that_has_no_encoding_is_refused_like_any_other(
    gateway: TestGateway, auth: str
) -> None:
    async with raw_socket(gateway) as socket:
        await socket.send_str(f"40{auth}")
        refusal = await socket.receive_str(timeout=WAIT_S)
    assert refusal.startswith("44")
    assert "Authentication failed" in refusal


async def test_a_message_with_binary_parts_is_not_gathered(gateway: TestGateway) -> None:
    async with raw_socket(gateway) as socket:
        await socket.send_str("40" + json.dumps(user_auth(gateway, "alice")))
        while "connected" not in await socket.receive_str(timeout=WAIT_S):
            pass
        await socket.send_str('459999999999-["ping",{"_placeholder":true,"num":0}]')
        await socket.send_str('42["ping"]')
        assert "pong" in await socket.receive_str(timeout=WAIT_S)

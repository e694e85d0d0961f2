"""Clients that are slow, silent, loud or gone cost nobody anything but themselves."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from taprail_gateway import push, push_server, push_socket
from tests.support.gateway_fixtures import TestGateway, running_gateway
from tests.support.push_clients import (
    WAIT_S,
    Heard,
    connected,
    eventually,
    user_auth,
)
from tests.support.push_vanishing import (
    AT_ONCE,
    PATH,
    let_vanish,
    said,
    until_nothing_is_left,
)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


@asynccontextmanager
async def stranger(gateway: TestGateway) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A web socket that has not said who it is."""
    async with gateway.http.ws_connect(PATH) as raw:
        assert (await raw.receive_str(timeout=WAIT_S)).startswith("0{")
        yield raw


@asynccontextmanager
async def somebody(gateway: TestGateway) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """The same, after it has said that it is alice."""
    async with stranger(gateway) as raw:
        await raw.send_str("40" + json.dumps(user_auth(gateway, "alice")))
        while "connected" not in await raw.receive_str(timeout=WAIT_S):
            pass
        yield raw


async def is_closed(raw: aiohttp.ClientWebSocketResponse) -> bool:
    """Wait until the far end closes, whatever it says before."""
    async with asyncio.timeout(WAIT_S):
        async for _ in raw:
            pass
    return raw.closed


async def test_who_does_not_read_is_closed_and_nobody_waits_for_them(
    gateway: TestGateway,
) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await speak_and_stop_reading(stuck, gateway)
        async with connected(gateway, user_auth(gateway, "bob")) as bob:
            await bob.next()
            await until_connected(gateway, 2)
            heard_bytes = await tell_all_until_one_is_left(gateway, bob)
            assert gateway.push.presence().users == ["bob"]
            assert heard_bytes >= push_socket.MAX_UNREAD_BYTES
            assert gateway.push.told().behind == 1


async def tell_all_until_one_is_left(gateway: TestGateway, reader: Heard) -> int:
    """Talk to everybody, and let one of them read; gives how much that was."""
    text, said_bytes = "x" * 20_000, 0
    while gateway.push.presence().connections == 2:
        for _ in range(AT_ONCE // 2):
            sids = gateway.push._present.where(lambda _: True)
            gateway.push._server.send_to(sids, "news", {"t": text})
        for _ in range(AT_ONCE // 2):
            assert (await reader.next())[0] == "news"
            said_bytes += len(text)
    return said_bytes


async def test_who_stops_to_poll_is_closed_and_nobody_waits_for_them(gateway: TestGateway) -> None:
    path = await poller(gateway, "alice")
    async with connected(gateway, user_auth(gateway, "bob")) as bob:
        await bob.next()
        await until_connected(gateway, 2)
        heard_bytes = await tell_all_until_one_is_left(gateway, bob)
        assert gateway.push.presence().users == ["bob"]
        assert heard_bytes >= 20_000 * (push_socket.MAX_WAITING - AT_ONCE)
    async with gateway.http.get(path) as late:
        assert late.status == 400
    await until_nothing_is_left(gateway)


async def poller(gateway: TestGateway, user: str) -> str:
    """Somebody who has said who they are by polling; gives the path to go on with."""
    path = "/nfc-ws/?EIO=4&transport=polling"
    async with gateway.http.get(path) as opened:
        path = f"{path}&sid={json.loads((await opened.text())[1:])['sid']}"
    auth = "40" + json.dumps(user_auth(gateway, user))
    async with gateway.http.post(path, data=auth) as said_who:
        assert said_who.status == 200
    told = ""
    while "connected" not in told:
        async with gateway.http.get(path) as polled:
            told += await polled.text()
    return path


async def test_an_upgrade_is_tried_once_at_a_time_and_not_for_ever(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_socket, "UPGRADE_S", 0.5)
    path = (await poller(gateway, "alice")).replace("polling", "websocket")
    async with gateway.http.ws_connect(path) as first:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await gateway.http.ws_connect(path)
        assert await is_closed(first)
    async with gateway.http.ws_connect(path) as second:
        await second.send_str("2probe")
        assert await second.receive_str(timeout=WAIT_S) == "3probe"
        await second.send_str("5")
        await second.send_str(said("ping"))
        while "pong" not in await second.receive_str(timeout=WAIT_S):
            pass
    await until_nothing_is_left(gateway)


async def test_who_answers_no_ping_is_closed(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = gateway.push._server.eio
    monkeypatch.setattr(engine, "ping_interval", 0.05)
    monkeypatch.setattr(engine, "ping_timeout", 0.1)
    async with somebody(gateway) as deaf:
        assert await is_closed(deaf)
    async with somebody(gateway) as alice:
        for _ in range(5):
            while await alice.receive_str(timeout=WAIT_S) != "2":
                pass
            await alice.send_str("3")
        assert gateway.push.presence().users == ["alice"]
    await until_nothing_is_left(gateway)


async def speak_and_stop_reading(raw: socket.socket, gateway: TestGateway) -> None:
    """A web socket by hand: it says who it is, and reads nothing from then on."""
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    hello = f"GET {PATH} HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\n{key}"
    payload = ("40" + json.dumps(user_auth(gateway, "alice"))).encode()
    # RFC 6455 section 5.2: a text frame with a 16-bit length, masked by zeros.
    frame = b"\x81\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload
    loop = asyncio.get_running_loop()
    raw.setblocking(False)
    await loop.sock_sendall(raw, f"{hello}Connection: Upgrade\r\n\r\n".encode())
    assert b" 101 " in await loop.sock_recv(raw, 4096)
    await loop.sock_sendall(raw, frame)


async def until_connected(gateway: TestGateway, count: int) -> None:
    await eventually(lambda: gateway.push.presence().connections == count)


async def test_who_does_not_say_who_they_are_is_closed(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_server, "IDENTIFY_S", 0.1)
    async with somebody(gateway) as alice:
        async with stranger(gateway) as raw:
            assert await is_closed(raw)
        async with stranger(gateway) as raw:
            await raw.send_str("40" + json.dumps({"token": "nonsense"}))
            assert (await raw.receive_str(timeout=WAIT_S)).startswith("44")
            assert await is_closed(raw)
        await alice.send_str(said("ping"))
        assert "pong" in await alice.receive_str(timeout=WAIT_S)
        await alice.send_str("41")  # she leaves, and her transport stays
        assert await is_closed(alice)


async def test_strangers_are_few_and_keep_nobody_out(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_server, "MAX_STRANGERS", 2)
    async with stranger(gateway) as first, stranger(gateway), somebody(gateway):
        assert await is_closed(first)
        assert len(gateway.push._server._strangers) == 1


async def test_who_polls_is_bounded_as_well(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_server, "IDENTIFY_S", 0.1)
    path = "/nfc-ws/?EIO=4&transport=polling"
    async with gateway.http.get(path) as opened:
        sid = json.loads((await opened.text())[1:])["sid"]
    async with gateway.http.get(f"{path}&sid={sid}") as polled:  # hangs until it is closed
        assert await polled.text() == "1"
    async with gateway.http.post(f"{path}&sid={sid}", data="40") as late:
        assert late.status == 400
    async with gateway.http.get(path) as opened:
        sid = json.loads((await opened.text())[1:])["sid"]
    body = "4" + "x" * push_socket.MAX_MESSAGE_BYTES
    async with gateway.http.post(f"{path}&sid={sid}", data=body) as refused:
        assert refused.status == 400
    await until_nothing_is_left(gateway)


async def test_sockets_are_bounded(gateway: TestGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_server, "MAX_SOCKETS", 1)
    async with somebody(gateway):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await gateway.http.ws_connect(PATH)


async def test_of_one_user_the_newest_sockets_stay(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "MAX_OF_ONE", 2)
    async with somebody(gateway) as first, somebody(gateway), somebody(gateway):
        assert await is_closed(first)
        assert gateway.push.presence().connections == 2


async def test_who_talks_without_end_is_closed(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_server, "MAX_SAID", 20)
    async with somebody(gateway) as raw:
        for _ in range(30):
            await raw.send_str(said("ping"))
        assert await is_closed(raw)


async def test_subscriptions_of_a_socket_are_bounded(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "MAX_SUBSCRIPTIONS", 1)
    cards = [gateway.card(f"04AABBCCDDEE0{number}").issued.card_uuid for number in (1, 2)]
    async with connected(gateway, user_auth(gateway, "alice")) as alice:
        await alice.next()
        for card in cards:
            await alice.client.emit("subscribe:card", card)
        assert (await alice.next())[0] == "card:status:update"
        event, data = await alice.next()
        assert (event, data["message"]) == ("error", "Too many subscriptions")
        assert data["cardUuid"] == cards[1]


HOSTILE = [
    "42",
    "42[",
    "42{}",
    "42[7]",
    '42["nothing:like:it",1]',
    '42["subscribe:card",{"cardUuid":{"a":["b"]}}]',
    '42["subscribe:transaction",{"transactionId":"\\ud800"}]',
    '42["subscribe:card",1,2,3,4]',
    '42["terminal:sync",{"requestIds":[]}]',
    "42" + "[" * 10_000,
    "43",
    "4",
    "45-",
    "451-[]",
    "47",
    "40",
    "40/admin,",
    "429999999999999999999[]",
]


NO_PACKETS = ["", "x", "9"]


async def test_hostile_messages_change_nothing(gateway: TestGateway) -> None:
    async with somebody(gateway) as raw:
        for text in HOSTILE:
            await raw.send_str(text)
        await raw.send_str(said("ping"))
        async with asyncio.timeout(WAIT_S):
            while "pong" not in await raw.receive_str():
                pass
    async with somebody(gateway) as raw:
        await raw.send_str(said("ping", "x" * push_socket.MAX_MESSAGE_BYTES))
        assert await is_closed(raw)
    for text in NO_PACKETS:
        async with somebody(gateway) as raw:
            await raw.send_str(text)
            assert await is_closed(raw)
    await until_nothing_is_left(gateway)
    async with somebody(gateway) as raw:
        await raw.send_bytes(b"\xff\x00")
        await raw.send_str(said("ping"))
        async with asyncio.timeout(WAIT_S):
            while "pong" not in str((await raw.receive()).data):
                pass


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_both_transports_serve(gateway: TestGateway, transport: str) -> None:
    card = gateway.card().issued.card_uuid
    heard = Heard()
    await heard.client.connect(
        gateway.url,
        auth=user_auth(gateway, "alice"),
        socketio_path="nfc-ws",
        transports=[transport],
    )
    assert (await heard.next())[0] == "connected"
    await heard.client.emit("subscribe:card", card)
    assert (await heard.next())[0] == "card:status:update"
    await heard.client.disconnect()


async def test_memory_stays_flat_while_clients_come_and_vanish(gateway: TestGateway) -> None:
    card, clients = gateway.card().issued.card_uuid, 500
    objects = []
    for half in range(2):
        await let_vanish(gateway, card, range(half * clients, (half + 1) * clients))
        await until_connected(gateway, 0)
        await until_nothing_is_left(gateway)
        gc.collect()
        objects.append(len(gc.get_objects()))
    # As many clients again have left less than one object each.
    assert objects[1] - objects[0] < clients

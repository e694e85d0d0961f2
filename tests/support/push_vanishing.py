"""Clients that come, subscribe and vanish without a word, and whether anything is left of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Final

from tests.support.gateway_fixtures import TestGateway
from tests.support.push_clients import eventually, terminal_auth, user_auth

PATH: Final = "/nfc-ws/?EIO=4&transport=websocket"
AT_ONCE: Final = 20


def said(*event: object) -> str:
    """A Socket.IO event as it travels."""
    return "42" + json.dumps(event)


async def let_vanish(gateway: TestGateway, card: str, numbers: Sequence[int]) -> None:
    """So many clients, some at once; the number says what each does before it is gone."""
    for at in range(0, len(numbers), AT_ONCE):
        some = numbers[at : at + AT_ONCE]
        await asyncio.gather(*(_come_and_vanish(gateway, card, number) for number in some))


async def _come_and_vanish(gateway: TestGateway, card: str, number: int) -> None:
    raw = await gateway.http.ws_connect(PATH)
    user = user_auth(gateway, "alice") if number % 5 else terminal_auth(gateway)
    if number % 7:
        await raw.send_str("40" + json.dumps(user))
        await raw.send_str(said("subscribe:card", card))
    if number % 3:
        while number % 7 and number % 5 and "card:status" not in await raw.receive_str():
            pass
    transport = raw._response.connection and raw._response.connection.transport
    assert transport is not None
    transport.abort()
    await raw.close()


async def until_nothing_is_left(gateway: TestGateway) -> None:
    """No trace in the server, the library's rooms or ours, and no task but the push's own."""
    server, hub = gateway.push._server, gateway.push
    kept = (server.environ, server.eio.sockets, server.manager.rooms, server._strangers)
    mine = (server._said, hub._present._who, hub._present._of, hub._rooms._rooms, hub._rooms._of)
    gone = (hub._told_since, server._closing)
    await eventually(lambda: not any((*kept, *mine, *gone)))

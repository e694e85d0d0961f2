"""Posting to strangers' servers, with real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientTimeout, web
from aiohttp.test_utils import TestServer

from taprail_gateway.callbacks import outside
from taprail_gateway.callbacks.outside import AddressError, Outside, OutsideError
from tests.support.ssrf_forms import BY_NAME, BY_TEXT

HERE = "127.0.0.1"


class Receiver:
    """A server that answers as its path says."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.hanging = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        what = request.match_info["what"]
        if what == "hang":
            self.hanging.set()
            await asyncio.Event().wait()
        if what == "redirect":
            return web.Response(status=302, headers={"Location": "/204"})
        if what == "endless":
            answer = web.StreamResponse()
            await answer.prepare(request)
            while True:
                await answer.write(b"x" * 65_536)
        return web.Response(status=int(what), headers={"Set-Cookie": "a=b"})


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[tuple[str, Receiver]]:
    played = Receiver()
    app = web.Application()
    app.router.add_post("/{what}", played.answer)
    async with TestServer(app, host=HERE) as server:
        yield str(server.make_url("/")), played


async def test_any_2xx_is_taken_and_all_else_is_not(receiver: tuple[str, Receiver]) -> None:
    url, played = receiver
    async with Outside([HERE]) as posts:
        for status in (200, 202, 204):
            await posts.post(f"{url}{status}", b"hello", {"webhook-id": "1"})
        for status in (400, 404, 410, 500):
            with pytest.raises(OutsideError, match=f"answered {status}"):
                await posts.post(f"{url}{status}", b"hello", {})
    assert played.bodies == [b"hello"] * 7


async def test_a_redirect_is_not_followed(receiver: tuple[str, Receiver]) -> None:
    url, played = receiver
    async with Outside([HERE]) as posts:
        with pytest.raises(OutsideError, match="redirects are not followed"):
            await posts.post(f"{url}redirect", b"once", {})
    assert played.bodies == [b"once"]


async def test_an_endless_answer_is_not_read(receiver: tuple[str, Receiver]) -> None:
    url, _ = receiver
    async with Outside([HERE]) as posts, asyncio.timeout(5):
        await posts.post(f"{url}endless", b"", {})


async def test_a_server_that_hangs_is_given_up(
    receiver: tuple[str, Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, played = receiver
    monkeypatch.setattr(outside, "_TIMEOUT", ClientTimeout(total=0.2))
    async with Outside([HERE]) as posts:
        with pytest.raises(OutsideError, match="did not answer within"):
            await posts.post(f"{url}hang", b"", {})
    assert played.hanging.is_set()


async def test_what_is_not_allowed_is_never_connected_to(receiver: tuple[str, Receiver]) -> None:
    url, played = receiver
    async with Outside() as posts:
        with pytest.raises(AddressError):
            await posts.post(f"{url}200", b"", {})
    assert played.bodies == []


@dataclass
class Wire:
    """What this process resolves and connects to; nothing leaves it."""

    stands_for: list[str] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)
    connected: list[str] = field(default_factory=list)

    async def getaddrinfo(self, _: object, host: str, port: int, **__: object) -> list[Any]:
        self.resolved.append(host)
        kind = socket.SOCK_STREAM
        return [
            (socket.AF_INET6, kind, 6, "", (each, port, 0, 0))
            if ":" in each
            else (socket.AF_INET, kind, 6, "", (each, port))
            for each in self.stands_for
        ]

    async def sock_connect(self, _: object, __: object, address: tuple[str, int]) -> None:
        self.connected.append(address[0])
        raise ConnectionRefusedError


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire()
    for name in ("getaddrinfo", "sock_connect"):
        stand_in = getattr(wire, name)
        monkeypatch.setattr(
            asyncio.SelectorEventLoop, name, lambda *a, to=stand_in, **k: to(*a, **k), raising=True
        )
    return wire


async def test_no_form_of_a_hidden_address_is_ever_connected_to(wire: Wire) -> None:
    assert len(BY_TEXT) + len(BY_NAME) > 60
    async with Outside() as posts:
        for url in BY_TEXT:
            with pytest.raises(AddressError):
                await posts.post(url, b"", {})
        assert wire.resolved == []
        for addresses in BY_NAME:
            wire.stands_for = addresses
            with pytest.raises(OutsideError, match="not public"):
                await posts.post("https://shop.example/", b"", {})
        # What a resolver takes for 127.0.0.1 and we do not know as an address is a name to us.
        wire.stands_for = ["127.0.0.1"]
        for host in ("127.0.0.0x1", "0177.0.0.0x1", "127.0x1"):
            with pytest.raises(OutsideError, match="not public"):
                await posts.post(f"https://{host}/", b"", {})
    assert wire.connected == []


async def test_a_public_name_is_resolved_once_and_what_was_checked_is_connected_to(
    wire: Wire,
) -> None:
    wire.stands_for = ["8.8.8.8", "1.1.1.1"]
    async with Outside() as posts:
        with pytest.raises(OutsideError, match="could not be reached"):
            await posts.post("https://shop.example/hooks", b"", {})
    assert wire.resolved == ["shop.example"]
    assert set(wire.connected) == set(wire.stands_for)


async def test_a_name_that_stands_for_a_hidden_address_is_not_connected_to() -> None:
    name = next(iter({"localhost", socket.gethostname()}))
    with pytest.raises(OSError, match="not public"):
        await outside._PublicResolver(frozenset()).resolve(name, 443)


async def test_nobody_there(receiver: tuple[str, Receiver]) -> None:
    with socket.create_server((HERE, 0)) as taken:
        port = taken.getsockname()[1]
    async with Outside([HERE]) as posts:
        with pytest.raises(OutsideError, match="could not be reached"):
            await posts.post(f"http://{HERE}:{port}/", b"", {})

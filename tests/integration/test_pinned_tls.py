"""TLS between a terminal and its gateway, by real certificates: known, changed, or another's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from nacl.signing import VerifyKey

from taprail_common.client.exchange import WrongCertificateError
from taprail_common.errors import LinkError
from taprail_common.pairing import Code
from taprail_gateway import pairing as codes
from taprail_gateway.api.routes import build_app
from taprail_gateway.ledger.actions import By
from taprail_gateway.pairing import Wanted
from taprail_gateway.tls import make_certificate, server_context
from taprail_terminal.gateway_link import Expected, GatewayLink
from taprail_terminal.identity import Identity
from taprail_terminal.paired import Place
from taprail_terminal.pairing import pair
from taprail_terminal.tls_pins import PINS_FILE, Pins, known_pins
from tests.support.gateway_fixtures import MERCHANT, TERMINAL, TestGateway, running_gateway

CODE = Code.parse("K7QF-4MX9-FT2W")
KEY = CODE.key()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


@asynccontextmanager
async def shown(
    gateway: TestGateway, folder: Path, name: str, pins: tuple[str, ...], port: int = 0
) -> AsyncIterator[str]:
    """The gateway behind this certificate, telling of these pins; its address."""
    app = build_app(replace(gateway.services, tls_pins=pins))
    runner = web.AppRunner(app)
    await runner.setup()
    tls = server_context(folder / f"{name}.pem", folder / f"{name}.key")
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
        yield "https://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


def make(folder: Path, name: str) -> str:
    now = datetime.now(UTC)
    return make_certificate(folder / f"{name}.pem", folder / f"{name}.key", "gateway", now)


async def greet(gateway: TestGateway, url: str, folder: Path) -> None:
    key: VerifyKey = gateway.public_key
    link = GatewayLink(
        Expected(url, key, MERCHANT, "TUSD", 6),
        Identity(TERMINAL, gateway.terminal_key),
        gateway.clock,
        pins=Pins(folder),
    )
    await link.open()
    try:
        await link.greet()
    finally:
        await link.close()


async def test_a_certificate_is_learnt_by_pairing_and_changed_by_what_the_key_has_told(
    gateway: TestGateway, tmp_path: Path
) -> None:
    now, then, later = (make(tmp_path, name) for name in ("now", "then", "later"))
    state = tmp_path / "state"
    by = By("cli:olga", gateway.now_ms())
    wanted = Wanted(TERMINAL)
    gateway.ledger.write_now(lambda db: codes.offer(db, CODE, KEY, wanted, by))
    place = Place("", state, state / "device.key")
    async with shown(gateway, tmp_path, "then", (now,)) as url:
        with pytest.raises(LinkError, match="does not show the gateway's certificate"):
            await pair(replace(place, gateway_url=url), CODE.text)
        assert not (state / "paired.json").exists()
    async with shown(gateway, tmp_path, "now", (now,)) as url:
        await pair(replace(place, gateway_url=url), CODE.text)
        gateway.terminal_key = Identity.load(TERMINAL, state / "device.key")._key
        await greet(gateway, url, state)
    assert known_pins(state) == (now,)
    async with shown(gateway, tmp_path, "now", (now, then)) as url:
        await greet(gateway, url, state)
    assert known_pins(state) == (now, then)  # announced, and then in use
    async with shown(gateway, tmp_path, "then", (then,)) as url:
        await greet(gateway, url, state)
    # One that was off when the next was announced asks again, and believes the gateway's key.
    async with shown(gateway, tmp_path, "later", (later,)) as url:
        await greet(gateway, url, state)
    assert known_pins(state) == (later,)


async def test_who_sits_between_with_another_certificate_is_refused_with_words(
    gateway: TestGateway, tmp_path: Path
) -> None:
    ours, theirs = make(tmp_path, "ours"), make(tmp_path, "theirs")
    Pins(tmp_path).hear((ours,))
    async with shown(gateway, tmp_path, "theirs", (ours,)) as url:  # relays to the real one
        with pytest.raises(WrongCertificateError, match=f"not the gateway's .{theirs[:16]}"):
            await greet(gateway, url, tmp_path)
    assert known_pins(tmp_path) == (ours,)
    (tmp_path / PINS_FILE).write_text("[7")
    assert known_pins(tmp_path) == ()

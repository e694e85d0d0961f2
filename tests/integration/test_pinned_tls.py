"""TLS between a terminal and its gateway, by real certificates: known, changed, or another's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import ServerFingerprintMismatch
from nacl.signing import VerifyKey

from taprail_common.client.exchange import WrongCertificateError
from taprail_common.errors import LinkError, OperatorError
from taprail_common.pairing import Code
from taprail_gateway import pairing as codes
from taprail_gateway.ledger.actions import By
from taprail_gateway.pairing import Wanted
from taprail_terminal.gateway_link import Expected, GatewayLink
from taprail_terminal.identity import Identity
from taprail_terminal.outbox import OutboxRow
from taprail_terminal.paired import Place
from taprail_terminal.pairing import pair
from taprail_terminal.push_link import SOCKET_PATH, PushLink
from taprail_terminal.tls_known import PINS_FILE, check_address, known_pins
from taprail_terminal.tls_pins import Pins
from tests.support.gateway_fixtures import MERCHANT, TERMINAL, TestGateway, running_gateway
from tests.support.terminal_fixtures import Counter, make_till
from tests.support.tls_fixtures import make, shown

CODE = Code.parse("K7QF-4MX9-FT2W")
KEY = CODE.key()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


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
    # From then on it speaks to nobody without TLS, whatever its file or a pushed setting says.
    check_address(url, state)
    with pytest.raises(OperatorError, match=r"is without TLS.*pair the terminal anew"):
        check_address(gateway.url, state)
    gateway.ledger.write_now(lambda db: codes.offer(db, CODE, KEY, wanted, by))
    await pair(replace(place, gateway_url=gateway.url), CODE.text)  # a person, with a code
    check_address(gateway.url, state)
    assert known_pins(state) == ()


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


async def test_the_socket_too_is_opened_to_a_known_certificate_only(
    gateway: TestGateway, tmp_path: Path
) -> None:
    ours, theirs = make(tmp_path, "ours"), make(tmp_path, "theirs")
    Pins(tmp_path).hear((ours,))
    push = PushLink(
        "",
        gateway.public_key,
        Identity(TERMINAL, gateway.terminal_key),
        gateway.clock,
        on_notice=_nothing,
        open_requests=_none_open,
        till=make_till(Counter(), gateway.clock),
        pins=Pins(tmp_path),
    )
    path = f"/{SOCKET_PATH}/?EIO=4&transport=websocket"
    async with push._session() as session:
        async with (
            shown(gateway, tmp_path, "ours", (ours,)) as url,
            session.ws_connect(url + path) as socket,
        ):
            assert (await socket.receive_str()).startswith("0")  # Engine.IO says hello
        async with shown(gateway, tmp_path, "theirs", (ours,)) as url:
            with pytest.raises(ServerFingerprintMismatch) as refused:
                await session.ws_connect(url + path)
    assert refused.value.got.hex() == theirs


async def _nothing(_notice: object) -> None:
    return


async def _none_open() -> list[OutboxRow]:
    return []

"""A terminal's key changes and at no moment it cannot pay, wherever the change is cut off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from taprail_common.errors import LinkError, SignatureError
from taprail_common.fleet_wire import KEY_PATH, NextKey
from taprail_common.signing import Domain, create_key_file, sign
from taprail_common.wire import SIGNATURE_HEADER, TERMINAL_HEADER
from taprail_gateway import registry
from taprail_terminal import key_rotation
from taprail_terminal.gateway_link import Expected, GatewayLink
from taprail_terminal.identity import Identity
from tests.support.gateway_fixtures import MERCHANT, TERMINAL, TestGateway, running_gateway
from tests.support.office_desk import notes


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


@asynccontextmanager
async def linked(gateway: TestGateway, identity: Identity) -> AsyncIterator[GatewayLink]:
    expected = Expected(gateway.url, gateway.public_key, MERCHANT, "TUSD", 6)
    link = GatewayLink(expected, identity, gateway.clock)
    await link.open()
    yield link
    await link.close()


async def pays(gateway: TestGateway, key: SigningKey, uid: str) -> int:
    gateway.terminal_key = key
    return (await gateway.pay(gateway.card(uid=uid))).status


async def test_old_and_new_key_pay_until_the_new_one_was_used(
    gateway: TestGateway, tmp_path: Path
) -> None:
    file = tmp_path / "device.key"
    create_key_file(file)
    file.write_text(bytes(gateway.terminal_key).hex())
    old, identity = gateway.terminal_key, Identity.load(TERMINAL, file)
    new = key_rotation.make_next_key(file)  # cut off here: the terminal starts with the old key
    assert Identity.load(TERMINAL, file).public_key == identity.public_key
    async with linked(gateway, identity) as link:
        body = NextKey.of(TERMINAL, new, gateway.now_ms()).to_json()
        await link.tell(KEY_PATH, body, Domain.NEXT_KEY)  # or here: both are good
        assert await pays(gateway, old, "04AABBCCDDEE01") == 200
        await key_rotation.change_over(link, identity, file, gateway.now_ms())
        assert await pays(gateway, old, "04AABBCCDDEE02") == 200
        assert Identity.load(TERMINAL, file).public_key == identity.public_key
        assert not key_rotation.next_key_file(file).exists()
        await link.greet()  # by the new key, which is the terminal's from now on
        assert await pays(gateway, old, "04AABBCCDDEE03") == 401
        assert await pays(gateway, new, "04AABBCCDDEE04") == 200
    actions = [note[1] for note in notes(gateway)]
    assert actions[-1] == "change-terminal-key"


async def test_nobody_else_announces_a_key_and_no_one_who_was_revoked(
    gateway: TestGateway, tmp_path: Path
) -> None:
    identity = Identity(TERMINAL, gateway.terminal_key)
    theirs = SigningKey.generate()
    body = NextKey.of(TERMINAL, theirs, gateway.now_ms()).to_json()
    forged = {
        TERMINAL_HEADER: TERMINAL,
        SIGNATURE_HEADER: sign(theirs, Domain.NEXT_KEY, body),
        "Content-Type": "application/json",
    }
    async with gateway.http.post(KEY_PATH, data=body, headers=forged) as response:
        assert response.status == 401
    message = NextKey.of(TERMINAL, theirs, gateway.now_ms())
    claimed = message.model_copy(update={"proof": sign(gateway.terminal_key, Domain.QUERY, b"")})
    with pytest.raises(SignatureError):
        claimed.check()
    gateway.ledger.write_now(lambda db: registry.revoke_terminal(db, TERMINAL))
    file = tmp_path / "device.key"
    key_rotation.make_next_key(file)
    async with linked(gateway, identity) as link:
        with pytest.raises(LinkError, match="409"):
            await key_rotation.change_over(link, identity, file, gateway.now_ms())
    assert not file.exists()

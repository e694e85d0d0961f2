"""The gateway's key changes, and each terminal follows: also one that was off for two changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from taprail_common.errors import LinkError, OperatorError
from taprail_common.signing import fingerprint, gateway_id, load_key_file
from taprail_common.succession import successor
from taprail_common.wire import SunProof, TerminalPayment, from_ms
from taprail_gateway import verdict_keys
from taprail_gateway.accept import Acceptor
from taprail_gateway.ledger.actions import By
from taprail_terminal.gateway_link import Expected, GatewayKeyChangedError, GatewayLink
from taprail_terminal.identity import Identity
from taprail_terminal.outbox import OutboxRow
from taprail_terminal.trust import TRUST_FILE, follow, trusted
from tests.support.admin_fixtures import Admin, admin
from tests.support.gateway_fixtures import (
    MERCHANT,
    TERMINAL,
    UNIT,
    TestGateway,
    gateway_beside,
    running_gateway,
)

__all__ = ["admin"]


def change_key(gateway: TestGateway, new: SigningKey) -> None:
    """What a rotation and a restart come to."""
    old, services = gateway.services.key, gateway.services
    by = By("cli:olga", gateway.now_ms())
    gateway.ledger.write_now(lambda db: verdict_keys.name_successor(db, old, new, by))
    acceptor = Acceptor(new, services.rules, gateway.clock, gateway.estimate)
    name = gateway_id(new.verify_key)
    gateway.services = replace(services, key=new, gateway_id=name, acceptor=acceptor)


def link_to(gateway: TestGateway, folder: Path, given: SigningKey) -> GatewayLink:
    known = trusted(folder, given.verify_key)
    expected = Expected(
        *(gateway.url, known.current, MERCHANT, "TUSD", 6, known.former, known.former_until_ms)
    )
    return GatewayLink(
        expected,
        Identity(TERMINAL, gateway.terminal_key),
        gateway.clock,
        lambda key: follow(folder, given.verify_key, key, gateway.now_ms()),
    )


def request(gateway: TestGateway) -> OutboxRow:
    now_ms, tap = gateway.now_ms(), gateway.card().tap()
    body = TerminalPayment(
        request_id="req_before",
        terminal_id=TERMINAL,
        merchant_id=MERCHANT,
        amount=UNIT,
        currency="TUSD",
        tapped_at=from_ms(now_ms),
        accept_until=from_ms(now_ms + 15_000),
        proof=SunProof(picc_data=tap["piccData"], mac=tap["mac"]),
    ).to_json()
    signature = Identity(TERMINAL, gateway.terminal_key).sign_request(body)
    return OutboxRow("req_before", UNIT, "TUSD", body, signature, now_ms)


async def test_a_terminal_that_slept_through_two_changes_follows_and_knows_old_verdicts(
    tmp_path: Path,
) -> None:
    async with running_gateway(tmp_path) as first:
        given, row = first.services.key, request(first)
        link = link_to(first, tmp_path, given)
        await link.open()
        before = await link.ask(row)
        await link.close()
        for _ in range(2):
            change_key(first, SigningKey.generate())
    async with gateway_beside(first, f"sqlite:///{tmp_path / 'ledger.db'}") as second:
        link = link_to(second, tmp_path, given)
        await link.open()
        with pytest.raises(GatewayKeyChangedError):
            await link.greet()
        await link.close()
        assert trusted(tmp_path, given.verify_key).current == second.public_key
        link = link_to(second, tmp_path, given)  # after its restart
        await link.open()
        assert (await link.greet()).hello.gateway_id == gateway_id(second.public_key)
        assert (await link.ask(row)).evidence == before.evidence  # signed by the first key
        await link.close()


async def test_a_key_that_nobody_named_is_not_followed(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        stranger = SigningKey.generate()
        link = link_to(gateway, tmp_path, stranger)
        await link.open()
        with pytest.raises(LinkError, match="cannot be believed"):
            await link.greet()
        await link.close()
    assert not (tmp_path / TRUST_FILE).exists()
    (tmp_path / TRUST_FILE).write_text('{"given": 7')  # torn, or scribbled over
    assert trusted(tmp_path, stranger.verify_key).current == stranger.verify_key


def test_a_rotation_that_was_cut_off_goes_on(admin: Admin) -> None:
    file = admin.settings.key_file
    old = load_key_file(file, "key")
    new = verdict_keys.next_key(file)
    admin.do(lambda db: verdict_keys.name_successor(db, old, new, By("cli:olga", 1)))
    admin.claim()  # cut off here: the gateway starts with the old key
    done = admin.json("verdict-key", "rotate")
    assert (done["former"], done["current"]) == (
        fingerprint(old.verify_key),
        fingerprint(new.verify_key),
    )
    assert load_key_file(file, "key") == new
    assert verdict_keys.former_keys(file) == (old,)
    admin.claim()  # and with the new one, whose ledger this is now
    told = admin.do(verdict_keys.told_to_terminals)
    assert successor(old.verify_key, told) == new.verify_key
    theirs = bytes(SigningKey.generate().verify_key).hex()
    body = told[0].body.replace(bytes(new.verify_key).hex(), theirs)
    forged = told[0].model_copy(update={"body": body})
    assert successor(old.verify_key, [forged]) == old.verify_key
    file.write_text(bytes(SigningKey.generate()).hex())
    with pytest.raises(OperatorError, match="belongs to gateway key"):
        admin.claim()

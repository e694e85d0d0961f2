"""PINs over real HTTP, a real ledger and real argon2: asked for, counted, blocked, unlocked."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from sqlalchemy import select
from typer.testing import CliRunner

from taprail_common.errors import OperatorError, TapRailError
from taprail_common.ids import new_id
from taprail_common.pin_block import seal_pin
from taprail_common.wire import CardProof
from taprail_gateway.admin import app
from taprail_gateway.ledger import alerts, card_pins, schema
from taprail_gateway.ledger.actions import By
from taprail_gateway.pin_desk import Pepper
from tests.support.admin_fixtures import Admin
from tests.support.gateway_fixtures import (
    TERMINAL,
    UNIT,
    Reply,
    TestCard,
    TestGateway,
    gateway_beside,
    running_gateway,
)

PIN, ABOVE, BY = "4711", 10 * UNIT, By("test", 1, None)
_PROOF: TypeAdapter[Any] = TypeAdapter(CardProof)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    Pepper(tmp_path / "pin.pepper").make(0)
    async with running_gateway(tmp_path) as running:
        yield running


def with_pin(gateway: TestGateway, tmp_path: Path, uid: str = "04AABBCCDDEE01") -> TestCard:
    card = gateway.card(uid)
    uuid = card.issued.card_uuid
    verifier = Pepper(tmp_path / "pin.pepper").hashed(uuid, PIN)
    gateway.ledger.write_now(lambda db: card_pins.put(db, uuid, verifier, ABOVE, BY))
    return card


def request(
    gateway: TestGateway, card: TestCard, pin: str | None, amount: int = 11 * UNIT
) -> dict[str, Any]:
    """A tap, with what was typed."""
    proof, request_id = card.tap(), new_id("req")
    body = gateway.request(proof, requestId=request_id, amount=amount)
    if pin is not None:
        tap = _PROOF.validate_python(proof)
        body["pin"] = seal_pin(gateway.public_key, request_id, tap, pin)
    return body


async def pay(gateway: TestGateway, card: TestCard, pin: str | None, **changes: Any) -> Reply:
    return await gateway.post(request(gateway, card, pin, **changes))


def told(reply: Reply) -> tuple[str | None, int | None]:
    return reply.json.get("reasonCode"), reply.json.get("pinTriesLeft")


def tries(gateway: TestGateway, card: TestCard) -> int:
    found = gateway.ledger.read_now(lambda db: card_pins.describe(db, card.issued.card_uuid))
    assert found is not None
    return found["tries_left"]


def status(gateway: TestGateway, card: TestCard) -> str:
    wanted = select(schema.cards.c.status).where(schema.cards.c.uuid == card.issued.card_uuid)
    return str(gateway.ledger.read_now(lambda db: db.scalar(wanted)))


async def test_a_pin_is_asked_for_above_the_cards_amount_only(
    gateway: TestGateway, tmp_path: Path
) -> None:
    card = with_pin(gateway, tmp_path)
    assert (await pay(gateway, card, None, amount=ABOVE)).status == 200
    assert told(await pay(gateway, card, None)) == ("pin_required", None)
    reply = await pay(gateway, card, PIN)
    reply.verify(gateway.public_key)
    assert reply.status == 200
    assert tries(gateway, card) == 3


async def test_three_wrong_ones_freeze_the_card_in_the_commit_of_the_third(
    gateway: TestGateway, tmp_path: Path
) -> None:
    card = with_pin(gateway, tmp_path)
    assert told(await pay(gateway, card, "0000")) == ("pin_wrong", 2)
    assert told(await pay(gateway, card, "0001")) == ("pin_wrong", 1)
    assert status(gateway, card) == "active"
    assert told(await pay(gateway, card, "0002")) == ("pin_blocked", 0)
    assert (status(gateway, card), tries(gateway, card)) == ("frozen", 0)
    assert told(await pay(gateway, card, PIN)) == ("card_frozen", None)
    open_alerts = gateway.ledger.read_now(alerts.open_alerts)
    assert [each.kind for each in open_alerts] == ["pin_blocked"]
    gateway.ledger.write_now(lambda db: card_pins.unlock(db, card.issued.card_uuid, BY))
    assert (await pay(gateway, card, PIN)).status == 200


async def test_a_right_one_gives_the_tries_back(gateway: TestGateway, tmp_path: Path) -> None:
    card = with_pin(gateway, tmp_path)
    await pay(gateway, card, "0000")
    assert tries(gateway, card) == 2
    assert (await pay(gateway, card, PIN)).status == 200
    assert tries(gateway, card) == 3


async def test_the_same_request_again_spends_no_other_try(
    gateway: TestGateway, tmp_path: Path
) -> None:
    card = with_pin(gateway, tmp_path)
    body = json.dumps(request(gateway, card, "0000")).encode()
    first, *others = [await gateway.post(body) for _ in range(3)]
    assert all(reply.body == first.body for reply in others)
    assert tries(gateway, card) == 2


async def test_only_a_proof_that_holds_spends_a_try(gateway: TestGateway, tmp_path: Path) -> None:
    card = with_pin(gateway, tmp_path)
    used = request(gateway, card, None, amount=UNIT)
    assert (await gateway.post(used)).status == 200
    proof = used["proof"]
    for spoilt in (proof, {**proof, "mac": "00" * 8}):
        request_id = new_id("req")
        body = gateway.request(spoilt, requestId=request_id, amount=11 * UNIT)
        tap = _PROOF.validate_python(spoilt)
        body["pin"] = seal_pin(gateway.public_key, request_id, tap, "0000")
        assert told(await gateway.post(body))[0] in {"card_replayed", "card_proof_invalid"}
    assert tries(gateway, card) == 3


async def test_a_block_of_another_tap_is_no_try(gateway: TestGateway, tmp_path: Path) -> None:
    card = with_pin(gateway, tmp_path)
    caught = request(gateway, card, PIN)["pin"]
    moved = {**request(gateway, card, None), "pin": caught}
    assert told(await gateway.post(moved)) == ("pin_required", None)
    assert tries(gateway, card) == 3


@pytest.mark.parametrize(("ledger_engine", "gateways"), [("sqlite", 1), ("postgresql", 2)])
async def test_many_at_once_have_three_tries_together(
    tmp_path: Path, ledger_url: str, gateways: int
) -> None:
    """Guessing side by side, at however many gateways, gets nobody a fourth: what is accepted in
    the end is nothing, and the right one finds the card frozen."""
    Pepper(tmp_path / "pin.pepper").make(0)
    async with AsyncExitStack() as exits:
        first = await exits.enter_async_context(running_gateway(tmp_path, ledger_url=ledger_url))
        doors = [first]
        while len(doors) < gateways:
            doors.append(await exits.enter_async_context(gateway_beside(first, ledger_url)))
        card = with_pin(first, tmp_path)
        bodies = [request(first, card, f"{guess:04}") for guess in range(6)]
        posts = [doors[number % gateways].post(body) for number, body in enumerate(bodies)]
        codes = [told(reply)[0] for reply in await asyncio.gather(*posts)]
        spent = codes.count("pin_wrong") + codes.count("pin_blocked")
        assert 1 <= spent <= 3
        assert set(codes) <= {"pin_wrong", "pin_blocked", "card_frozen", "card_replayed"}
        assert tries(first, card) == 3 - spent
        for wrong in range(3 - spent):  # what the order of the counters has left
            await pay(doors[wrong % gateways], card, "0000")
        assert (status(first, card), tries(first, card)) == ("frozen", 0)
        for door in doors:
            assert told(await pay(door, card, PIN)) == ("card_frozen", None)


async def test_a_charge_of_the_till_stays_open_for_the_pin(
    gateway: TestGateway, tmp_path: Path
) -> None:
    card = with_pin(gateway, tmp_path)
    asked = {"amount": 11 * UNIT, "currency": "TUSD", "reference": "r", "deadlineSeconds": 60}
    path, bearer = f"/api/terminals/{TERMINAL}/charges", gateway.bearer("bob")
    async with gateway.http.post(path, json=asked, headers=bearer) as response:
        charge_id = (await response.json())["charge"]["chargeId"]
    for pin, code in ((None, "pin_required"), ("0000", "pin_wrong"), (PIN, None)):
        body = {**request(gateway, card, pin), "chargeId": charge_id}
        assert told(await gateway.post(body))[0] == code


def _files_with(folder: Path, text: str) -> list[Path]:
    return [file for file in folder.iterdir() if text.encode() in file.read_bytes()]


async def test_no_pin_leaves_a_trace(
    gateway: TestGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    card = with_pin(gateway, tmp_path)
    pin = "938415620731"
    reply = await pay(gateway, card, pin)
    assert pin not in reply.body.decode()
    assert pin not in caplog.text
    assert _files_with(tmp_path, pin) == []
    stored = gateway.ledger.read_now(lambda db: db.execute(select(schema.card_pins)).one())
    assert "$argon2id$" in stored.verifier


def test_a_pin_is_set_shown_and_removed_by_the_operator(admin: Admin) -> None:
    issued = admin.json("card", "issue", "--uid", "04AABBCCDDEE01", "--user", "alice")
    card = str(issued["cardUuid"])
    config = ["--config", str(admin.config)]

    def typed(*words: str, text: str) -> int:
        result = CliRunner().invoke(app, [*config, "card", "pin", *words], input=text)
        assert "4711" not in result.output
        return result.exit_code

    assert typed("set", card, "--above", "20.00", text="4711\n4711\n") == 0
    assert admin.json("card", "pin", "show", card) == {
        "pin": {"above_units": 20_000_000, "tries_left": 3}
    }
    assert typed("set", card, "--above", "0", text="4711\n4712\n") != 0
    admin("card", "pin", "unlock", card)
    admin("card", "pin", "remove", card)
    with pytest.raises(TapRailError, match="has no PIN"):
        admin("card", "pin", "unlock", card)
    weak = admin.json(
        "card", "issue", "--uid", "04AABBCCDDEE02", "--user", "alice", "--profile", "uid"
    )
    assert typed("set", str(weak["cardUuid"]), "--above", "0", text="4711\n4711\n") != 0


def test_a_pepper_that_is_lost_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="there are 2 PINs"):
        Pepper(tmp_path / "pin.pepper").make(2)

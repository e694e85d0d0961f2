"""A second version of the issuer's keys: who gets it, who goes on with the first, and the move."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from taprail_common.errors import OperatorError, TapRailError
from taprail_gateway import issuer
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import actions, schema
from taprail_hwsim.cards import Ntag424Chip
from taprail_hwsim.pn532 import Pn532Simulator
from tests.integration.test_card_life import verdict
from tests.integration.test_card_personalize import UID, assert_known, command
from tests.support.admin_fixtures import Admin
from tests.support.gateway_fixtures import UNIT, TestGateway, gateway_beside, running_gateway
from tests.support.ledger_fixtures import on_both_engines

NEXT_UID = "04AABBCCDDEE02"


# --- at the counter -------------------------------------------------------------------------------


@pytest.fixture
async def gateways(tmp_path: Path, ledger_url: str) -> AsyncIterator[list[TestGateway]]:
    """Two on a server, one on a file; none of them is told of anything."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running_gateway(tmp_path, ledger_url=ledger_url))
        both = [first]
        if "postgresql" in ledger_url:
            both.append(await stack.enter_async_context(gateway_beside(first, ledger_url)))
        yield both


def add_version(gateway: TestGateway) -> int:
    return gateway.ledger.write_now(lambda c: issuer.add(c, gateway.custody, gateway.now_ms()))


@on_both_engines
async def test_a_running_gateway_takes_cards_of_both_versions(gateways: list[TestGateway]) -> None:
    first = gateways[0]
    old = first.card()
    assert verdict(await first.pay(old, amount=UNIT), first) is None
    assert add_version(first) == 2
    new = first.card(NEXT_UID)
    assert (old.issued.key_version, new.issued.key_version) == (1, 2)
    for gateway in gateways:
        for card in (new, old, new):
            assert verdict(await gateway.pay(card, amount=UNIT), gateway) is None


@on_both_engines
async def test_a_card_that_has_moved_pays_by_its_new_keys_alone(
    gateways: list[TestGateway],
) -> None:
    gateway = gateways[0]
    card = gateway.card()
    add_version(gateway)
    issuers = gateway.ledger.read_now(lambda c: issuer.load(c, gateway.custody))
    uid = card.chip.uid
    keys = issuer.card_keys(issuers, 2, uid)
    moved = type(card)(card.issued, type(card.chip)(uid, keys.meta_read_key, keys.file_read_key))
    # It was cut off when the chip had all of its new keys, and the ledger did not know yet.
    refused = await gateway.pay(moved)
    assert verdict(refused, gateway) == "card_proof_invalid"
    assert "not those on record" in refused.json["reason"]
    gateway.ledger.write_now(lambda c: c.execute(schema.cards.update().values(key_version=2)))
    assert verdict(await gateway.pay(moved, amount=UNIT), gateway) is None
    copied = await gateway.pay(card)
    assert verdict(copied, gateway) == "card_proof_invalid"
    assert "not those on record" in copied.json["reason"]


async def test_a_proof_by_no_key_asks_the_ledger_and_teaches_nothing(
    gateways: list[TestGateway],
) -> None:
    gateway = gateways[0]
    card = gateway.card()
    forged = {**card.tap(), "mac": "0" * 16}
    reply = await gateway.post(gateway.request(forged))
    assert verdict(reply, gateway) == "card_proof_invalid"
    assert gateway.services.proofs.newest_version == 1


def test_versions_end_where_a_chip_could_not_tell_them(admin: Admin) -> None:
    custody = Custody.load(admin.settings.master_key_file)
    last = {"version": issuer.MAX_VERSION, "created_at_ms": 1}
    wrapped = {"wrapped_sun_master_key": b"\1", "wrapped_meta_read_key": b"\1"}
    admin.do(lambda c: c.execute(schema.issuer_keys.insert().values({**last, **wrapped})).close())
    with pytest.raises(OperatorError, match="255 versions"):
        admin.do(lambda c: issuer.add(c, custody, 1))


# --- by command -----------------------------------------------------------------------------------


@pytest.fixture
def simulator() -> Iterator[Pn532Simulator]:
    with Pn532Simulator() as simulator:
        yield simulator


def shown(admin: Admin) -> dict[int, tuple[str, int]]:
    rows = admin.json("card", "keys", "list")
    return {row["version"]: (row["use"], row["cards"]) for row in rows}


def test_a_version_is_added_and_cards_are_moved_over(
    admin: Admin, simulator: Pn532Simulator
) -> None:
    card = Ntag424Chip(UID)
    simulator.put(card)
    first = admin.json(*command(simulator, "--user", "alice"))["cardUuid"]
    assert shown(admin) == {1: ("new cards", 1)}
    assert admin.json("card", "keys", "add") == {"version": 2}
    assert shown(admin) == {1: ("as before", 1), 2: ("new cards", 0)}
    assert_known(admin, card, first)  # it goes on with what it has
    assert admin.json(*command(simulator))["cardUuid"] == first
    assert shown(admin) == {1: ("as before", 0), 2: ("new cards", 1)}
    assert_known(admin, card, first)
    told = [(each.action, each.before, each.after) for each in _history(admin)]
    assert told[0][0] == "card-personalize"
    assert (told[0][1], told[0][2]["keyVersion"]) == ({"keyVersion": 1}, 2)
    assert told[1] == ("issuer-keys-add", 1, 2)


def _history(admin: Admin) -> list[Any]:
    return list(admin.do(lambda c: actions.history(c, 9)))


@pytest.mark.parametrize("torn", [9, 17, 23, 28])
def test_a_card_that_is_torn_while_it_moves_is_finished_by_the_next_run(
    admin: Admin, simulator: Pn532Simulator, torn: int
) -> None:
    card = Ntag424Chip(UID)
    simulator.put(card)
    uuid = admin.json(*command(simulator, "--user", "alice"))["cardUuid"]
    admin("card", "keys", "add")
    simulator.lift()
    simulator.put(card, tear_after_apdus=torn)
    with pytest.raises(TapRailError, match="no card"):  # nobody has put it back
        admin(*command(simulator, "--wait", "1"))
    assert admin.json("card", "show", uuid)["key_version"] == 1
    simulator.put(card)
    admin(*command(simulator))
    assert admin.json("card", "show", uuid)["key_version"] == 2
    assert_known(admin, card, uuid)

"""What becomes of a card at the counter: written, tapped, ended and replaced, on either engine."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from taprail_common.payment_state import PaymentEvent
from taprail_gateway import card_life, issuer, registry
from taprail_gateway.card_life import Successor
from taprail_gateway.ledger import activities, queries, schema, transitions
from taprail_gateway.ledger.actions import By
from taprail_gateway.personalize.keys import key_set, older_sets
from taprail_gateway.personalize.layout import Layout, Mirror
from taprail_gateway.personalize.session import Wanted, personalize
from taprail_gateway.registry import CardOrder
from taprail_hwsim.cards import Ntag424Chip
from tests.support.gateway_fixtures import (
    UNIT,
    Reply,
    TestCard,
    TestGateway,
    gateway_beside,
    running_gateway,
)
from tests.support.ledger_fixtures import on_both_engines

UID, NEXT_UID = "04AABBCCDDEE01", "04AABBCCDDEE02"
DAY_MS = 86_400_000


@pytest.fixture
async def gateway(tmp_path: Path, ledger_url: str) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path, ledger_url=ledger_url) as gateway:
        yield gateway


def verdict(reply: Reply, gateway: TestGateway) -> str | None:
    """The reason of a decline, None for an acceptance; either is signed."""
    reply.verify(gateway.public_key)
    code: str | None = reply.json.get("reasonCode")
    assert (code is None) == (reply.status == 200)
    return code


def by(gateway: TestGateway) -> By:
    return By("cli:olga", gateway.now_ms())


class WrittenCard:
    """A chip that was delivered blank and personalised as the command does it."""

    def __init__(self, gateway: TestGateway, mirror: Mirror) -> None:
        uid = bytes.fromhex(UID)
        self.card = gateway.card(UID)
        issuers = gateway.ledger.read_now(
            lambda connection: issuer.load(connection, gateway.custody)
        )
        version = self.card.issued.key_version
        wanted = Wanted(
            uid,
            key_set(issuers[version], version, uid),
            Layout.of("https://tap.example/t", mirror),
            mirror,
            older_sets(issuers, version, uid),
        )
        self.chip = Ntag424Chip(uid)
        _write(self.chip, wanted)
        self.mirror = mirror

    def tap(self) -> dict[str, str]:
        self.chip.advance()
        file = self.chip.file_at(self.chip.counter)
        query = file[7 : 6 + file[4]].decode().partition("?")[2]
        shown = dict(each.split("=") for each in query.split("&"))
        if self.mirror is Mirror.PLAIN:
            return {
                "profile": "sun_plain",
                "uid": shown["uid"],
                "readCounter": shown["ctr"],
                "mac": shown["mac"],
            }
        return {"profile": "sun", "piccData": shown["picc"], "mac": shown["mac"]}


def _write(chip: Ntag424Chip, wanted: Wanted) -> None:
    conversation = personalize(wanted, secrets.token_bytes)
    command: bytes | None = next(conversation)
    while command is not None:
        try:
            command = conversation.send(chip.apdu(command)[1])
        except StopIteration:
            command = None


@pytest.mark.parametrize("mirror", list(Mirror))
async def test_a_written_card_pays_and_each_tap_only_once(
    gateway: TestGateway, mirror: Mirror
) -> None:
    written = WrittenCard(gateway, mirror)
    skimmed = written.tap()
    first, second = written.tap(), written.tap()
    assert verdict(await gateway.post(gateway.request(first)), gateway) is None
    assert verdict(await gateway.post(gateway.request(first)), gateway) == "card_replayed"
    assert verdict(await gateway.post(gateway.request(skimmed)), gateway) == "card_replayed"
    forged = {**second, "mac": first["mac"]}
    assert verdict(await gateway.post(gateway.request(forged)), gateway) == "card_proof_invalid"
    assert verdict(await gateway.post(gateway.request(second)), gateway) is None


@on_both_engines
async def test_a_card_is_good_until_its_last_instant(gateway: TestGateway) -> None:
    card = gateway.card()
    end_ms = gateway.now_ms() + DAY_MS
    gateway.ledger.write_now(
        lambda c: card_life.set_end(c, card.issued.card_uuid, end_ms, by(gateway))
    )
    assert verdict(await gateway.pay(card), gateway) is None
    gateway.clock.ahead_ms = DAY_MS
    assert verdict(await gateway.pay(card), gateway) == "card_expired"
    gateway.ledger.write_now(
        lambda c: card_life.set_end(c, card.issued.card_uuid, None, by(gateway))
    )
    assert verdict(await gateway.pay(card), gateway) is None


@on_both_engines
async def test_the_old_card_is_refused_from_its_replacement_on_and_the_new_one_has_its_money(
    gateway: TestGateway,
) -> None:
    old = gateway.card(balance_units=10 * UNIT)
    assert verdict(await gateway.pay(old, amount=4 * UNIT), gateway) is None
    new = _replaced(gateway, old)
    assert verdict(await gateway.pay(old, amount=UNIT), gateway) == "card_expired"
    # What the old one has under way is held on the account, so the new one has the rest.
    refused = await gateway.pay(new, amount=6 * UNIT + 1)
    assert verdict(refused, gateway) == "insufficient_balance"
    assert verdict(await gateway.pay(new, amount=6 * UNIT), gateway) is None
    assert gateway.ledger.read_now(queries.check_invariants) == []


def _replaced(gateway: TestGateway, old: TestCard, text: str = NEXT_UID) -> TestCard:
    spare = gateway.card(text)  # for its chip: the row makes room for the replacement's
    uid = bytes.fromhex(text)

    def replace(connection: Connection) -> registry.IssuedCard:
        cards = schema.cards
        connection.execute(cards.delete().where(cards.c.uuid == spare.issued.card_uuid))
        return card_life.replace_card(
            connection, gateway.custody, old.issued.card_uuid, Successor(uid), by(gateway)
        )

    return TestCard(gateway.ledger.write_now(replace), spare.chip)


def _fail(gateway: TestGateway, payment_id: str) -> None:
    gateway.ledger.write_now(
        lambda c: transitions.apply(c, PaymentEvent.REJECT, [payment_id], gateway.now_ms())
    )


@on_both_engines
async def test_a_replacement_goes_on_with_the_day_of_the_card_before(gateway: TestGateway) -> None:
    cards = [gateway.card(daily_limit_units=10 * UNIT)]
    paid = await gateway.pay(cards[0], amount=6 * UNIT)
    cards.append(_replaced(gateway, cards[0]))
    refused = await gateway.pay(cards[1], amount=4 * UNIT + 1)
    assert verdict(refused, gateway) == "daily_limit"
    assert refused.json["leftUnits"] == 4 * UNIT
    assert verdict(await gateway.pay(cards[1], amount=3 * UNIT), gateway) is None
    cards.append(_replaced(gateway, cards[1], "04AABBCCDDEE03"))
    assert _told(gateway, cards[2])["spent_today_units"] == 9 * UNIT
    # What the first one had paid fails: the one that is in use now gets it back.
    _fail(gateway, paid.json["transactionId"])
    assert _told(gateway, cards[2])["spent_today_units"] == 3 * UNIT
    assert verdict(await gateway.pay(cards[2], amount=7 * UNIT), gateway) is None
    assert verdict(await gateway.pay(cards[2], amount=1), gateway) == "daily_limit"
    assert gateway.ledger.read_now(queries.check_invariants) == []
    gateway.clock.ahead_ms = DAY_MS
    assert verdict(await gateway.pay(cards[2], amount=10 * UNIT), gateway) is None


def _told(gateway: TestGateway, card: TestCard) -> dict[str, Any]:
    return gateway.ledger.read_now(
        lambda c: card_life.describe(c, card.issued.card_uuid, gateway.now_ms())
    )


async def test_what_was_usual_is_handed_on_and_what_was_declined_is_not(
    gateway: TestGateway,
) -> None:
    old = gateway.card()
    for amount in (2 * UNIT, 2 * UNIT, 51 * UNIT):
        await gateway.pay(old, amount=amount)
    new = _replaced(gateway, old)
    before, after = (
        gateway.ledger.read_now(partial(activities.of_card, card_uuid=card.issued.card_uuid))
        for card in (old, new)
    )
    assert before is not None
    assert after is not None
    now_ms = gateway.now_ms()
    assert (before.taps_in_an_hour(now_ms), before.declines_in_an_hour(now_ms)) == (3, 1)
    assert (after.taps_in_an_hour(now_ms), after.declines_in_an_hour(now_ms)) == (2, 0)
    assert after[-3:] == before[-3:]
    assert after.minute == 0  # the new chip was never tapped, and may still be laid out


@on_both_engines
async def test_a_card_that_pays_while_it_is_replaced_overshoots_no_day(
    tmp_path: Path, gateway: TestGateway, ledger_url: str
) -> None:
    async with AsyncExitStack() as stack:
        gateways = [gateway]
        if "postgresql" in ledger_url:
            gateways.append(await stack.enter_async_context(gateway_beside(gateway, ledger_url)))
        for number in range(3):
            limit = {"daily_limit_units": 10 * UNIT}
            old = gateway.card(f"04AABBCCDD{number:02X}01", **limit)

            async def replaced(old: TestCard = old, number: int = number) -> list[Reply]:
                uid = f"04AABBCCDD{number:02X}02"
                new = await asyncio.to_thread(_replaced, gateways[-1], old, uid)
                return await _taps(gateways, new)

            of_old, of_new = await asyncio.gather(_taps(gateways, old), replaced())
            replies = [*of_old, *of_new]
            approved = [reply for reply in replies if reply.status == 200]
            assert len(approved) <= 10
            codes = {verdict(reply, gateway) for reply in replies}
            assert codes <= {None, "daily_limit", "card_expired", "card_replayed"}
            assert _told(gateway, old)["spent_today_units"] == len(approved) * UNIT
    assert gateway.ledger.read_now(queries.check_invariants) == []


async def _taps(gateways: list[TestGateway], card: TestCard) -> list[Reply]:
    """Twelve payments, as many at once as there are gateways."""
    replies: list[Reply] = []
    for _ in range(12 // len(gateways)):
        replies += await asyncio.gather(*(each.pay(card, amount=UNIT) for each in gateways))
    return replies


@on_both_engines
async def test_a_replacement_that_fails_changes_nothing(gateway: TestGateway) -> None:
    card = gateway.card()
    gateway.card(NEXT_UID)
    taken = Successor(bytes.fromhex(NEXT_UID))
    attempts: list[Callable[[Connection], object]] = [
        lambda c: card_life.replace_card(
            c, gateway.custody, card.issued.card_uuid, taken, by(gateway)
        ),
        lambda c: registry.issue_card(
            c, gateway.custody, CardOrder("alice", bytes.fromhex(UID)), gateway.now_ms()
        ),
    ]
    for attempt in attempts:
        with pytest.raises(Exception, match="issued before"):
            gateway.ledger.write_now(attempt)
    statuses = gateway.ledger.read_now(lambda c: c.scalars(select(schema.cards.c.status)).all())
    assert set(statuses) == {"active"}
    assert verdict(await gateway.pay(card), gateway) is None

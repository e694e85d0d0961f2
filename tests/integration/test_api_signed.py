"""Cards that sign, from the terms that a terminal is given to the stored verdict, by real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from taprail_common.api.gateway import Hello
from taprail_common.eip3009 import TransferAuthorization
from taprail_common.ids import payment_id
from taprail_common.signing import Domain, verify
from taprail_common.wire import (
    CLOCK_SKEW_MS,
    SIGNATURE_HEADER,
    SIGNED_LEAST_S,
    SIGNED_VALIDITY_S,
    parse,
)
from taprail_gateway import registry
from taprail_gateway.ledger import card_signatures, queries, schema, transitions
from taprail_gateway.registry import CardOrder, IssuedCard
from taprail_hwsim.cards import KeycardCash
from taprail_terminal.card_session import converse
from taprail_terminal.charge import ChargeMaker
from taprail_terminal.gateway_link import HELLO_PATH, Greeting
from tests.support.gateway_fixtures import (
    TERMINAL,
    TOKEN_DOMAIN,
    UNIT,
    Reply,
    TestGateway,
    running_gateway,
)

UID = bytes.fromhex("04112233445566")
BALANCE_UNITS = 100 * UNIT


class SigningCounter:
    """A terminal's part, with a Keycard in its hand."""

    def __init__(self, gateway: TestGateway, card: KeycardCash) -> None:
        self.gateway = gateway
        self.card = card
        self.issued = self._issue(card)

    def _issue(self, card: KeycardCash) -> IssuedCard:
        order = CardOrder(
            "alice",
            profile="signed",
            address=card.address,
            single_limit_units=50 * UNIT,
            daily_limit_units=60 * UNIT,
        )

        def issue(connection: Any) -> IssuedCard:
            custody, now_ms = self.gateway.custody, self.gateway.now_ms()
            issued = registry.issue_card(connection, custody, order, now_ms)
            transitions.refresh_balances(connection, {issued.account: BALANCE_UNITS}, 1)
            return issued

        return self.gateway.ledger.write_now(issue)

    async def hello(self) -> Hello:
        """The gateway's terms, believed as a terminal believes them."""
        headers = self.gateway.query_headers(HELLO_PATH)
        async with self.gateway.http.get(HELLO_PATH, headers=headers) as response:
            body = await response.read()
            signature = response.headers[SIGNATURE_HEADER]
        signed = f"GET {HELLO_PATH}\n{TERMINAL}\n{headers['TapRail-Timestamp']}".encode()
        verify(self.gateway.public_key, Domain.ANSWER, body, signature, about=signed)
        return parse(Hello, body)

    async def tap(self, request_id: str, units: int, hello: Hello | None = None) -> dict[str, Any]:
        """The request of a tap, as the terminal makes it."""
        clock = self.gateway.clock
        greeting = Greeting(hello or await self.hello(), 0, 0, clock.monotonic_s())
        charge = ChargeMaker(TERMINAL, lambda: greeting, clock).make(request_id, units)
        conversation = converse(charge)
        command = next(conversation)
        while True:
            try:
                command = conversation.send((self.card.apdu(command) or ("", b""))[1])
            except StopIteration as done:
                proof = done.value.proof.model_dump(by_alias=True)
                return self.gateway.request(proof, requestId=request_id, amount=units)

    async def pay(self, request_id: str, units: int = 3 * UNIT) -> Reply:
        return await self.gateway.post(await self.tap(request_id, units))

    def held_units(self) -> int:
        return self.gateway.ledger.read_now(queries.held_by_account)[self.issued.account]


@pytest.fixture
async def counter(tmp_path: Path) -> AsyncIterator[SigningCounter]:
    async with running_gateway(tmp_path) as gateway:
        yield SigningCounter(gateway, KeycardCash(UID, bytes(range(1, 33))))


def outcome(reply: Reply) -> tuple[str, str | None]:
    return reply.json["verdict"], reply.json.get("reasonCode")


async def test_a_card_signs_under_the_terms_of_the_gateway_and_is_accepted(
    counter: SigningCounter,
) -> None:
    reply = await counter.pay("req-1")
    reply.verify(counter.gateway.public_key)
    assert outcome(reply) == ("approved", None)
    identity = payment_id(TERMINAL, "req-1")
    ledger = counter.gateway.ledger
    payment = ledger.read_now(lambda connection: queries.payment(connection, identity))
    stored = ledger.read_now(lambda c: card_signatures.of_payments(c, [identity]))[identity]
    assert payment is not None
    assert payment.signed_until_s == stored.valid_before_s
    left_s = stored.valid_before_s - counter.gateway.now_ms() // 1000
    assert SIGNED_VALIDITY_S - 30 <= left_s <= SIGNED_VALIDITY_S
    transfer = TransferAuthorization(
        counter.card.address,
        "0x" + "c0ffee" * 6 + "0001",
        3 * UNIT,
        0,
        stored.valid_before_s,
        bytes.fromhex(identity[2:]),
    )
    assert counter.card.digests == [transfer.digest(TOKEN_DOMAIN.separator)]
    assert counter.held_units() == 3 * UNIT


async def test_the_same_request_gets_the_same_answer_and_another_one_needs_its_own_signature(
    counter: SigningCounter,
) -> None:
    request = await counter.tap("req-1", UNIT)
    first = await counter.gateway.post(request)
    assert (await counter.gateway.post(request)).body == first.body
    other = await counter.gateway.post({**request, "requestId": "req-2"})
    assert outcome(other) == ("declined", "card_proof_invalid")
    assert counter.gateway.rows(schema.payments) == 1
    assert counter.held_units() == UNIT


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"amount": UNIT + 1}, "card_proof_invalid"),
        ({"requestId": "req-9"}, "card_proof_invalid"),
        ({"counter": 1}, "card_proof_invalid"),
        ({"cardUuid": "card-of-others"}, "card_proof_invalid"),
        ({"merchantId": "others"}, "invalid_merchant"),
        ({"currency": "EURC"}, "currency_unsupported"),
        ({"proof.payee": "0x" + "11" * 20}, "card_proof_invalid"),
        ({"proof.payer": "0x" + "11" * 20}, "card_unknown"),
        ({"proof.validBefore": 2**39}, "card_proof_invalid"),
        ({"proof.signature": "1" * 128}, "card_proof_invalid"),
    ],
)
async def test_one_change_by_a_lying_terminal_is_one_too_many(
    counter: SigningCounter, change: dict[str, Any], code: str
) -> None:
    request = await counter.tap("req-1", UNIT)
    for name, value in change.items():
        outer, _, inner = name.rpartition(".")
        (request[outer] if outer else request)[inner] = value
    reply = await counter.gateway.post(request)
    reply.verify(counter.gateway.public_key)
    assert outcome(reply) == ("declined", code)
    assert counter.gateway.rows(schema.payments) == 0
    assert counter.gateway.rows(schema.card_authorizations) == 0
    assert counter.held_units() == 0


@pytest.mark.parametrize(
    ("left_s", "expected"),
    [
        (SIGNED_LEAST_S - 1, ("declined", "clock_skew")),
        (SIGNED_LEAST_S + 5, ("approved", None)),
        (SIGNED_VALIDITY_S + CLOCK_SKEW_MS // 1000 - 5, ("approved", None)),
        (SIGNED_VALIDITY_S + CLOCK_SKEW_MS // 1000 + 5, ("declined", "clock_skew")),
    ],
)
async def test_what_is_signed_for_too_short_or_too_long_is_declined(
    counter: SigningCounter, left_s: int, expected: tuple[str, str | None]
) -> None:
    clock = counter.gateway.clock
    clock.ahead_ms = (left_s - SIGNED_VALIDITY_S) * 1000
    hello = await counter.hello()
    clock.ahead_ms = 0
    request = await counter.tap("req-1", UNIT, hello)
    assert outcome(await counter.gateway.post(request)) == expected


async def test_a_merchant_who_has_moved_is_not_paid_at_the_old_account(
    counter: SigningCounter,
) -> None:
    request = await counter.tap("req-1", UNIT)
    moved = update(schema.merchants).values(account="0x" + "22" * 20)
    await counter.gateway.ledger.write(lambda connection: connection.execute(moved))
    assert outcome(await counter.gateway.post(request)) == ("declined", "card_proof_invalid")
    assert outcome(await counter.pay("req-2", UNIT)) == ("approved", None)


async def test_limits_and_balance_hold_for_a_card_that_signs(counter: SigningCounter) -> None:
    assert outcome(await counter.pay("req-1", 51 * UNIT)) == ("declined", "single_limit")
    assert outcome(await counter.pay("req-2", 50 * UNIT)) == ("approved", None)
    assert outcome(await counter.pay("req-3", 11 * UNIT)) == ("declined", "daily_limit")
    spent = update(schema.accounts).values(balance_units=55 * UNIT)
    await counter.gateway.ledger.write(lambda connection: connection.execute(spent))
    assert outcome(await counter.pay("req-4", 6 * UNIT)) == ("declined", "insufficient_balance")
    frozen = counter.issued.card_uuid
    await counter.gateway.ledger.write(lambda c: registry.set_card_status(c, frozen, "frozen"))
    assert outcome(await counter.pay("req-5", UNIT)) == ("declined", "card_frozen")
    assert counter.held_units() == 50 * UNIT


async def test_a_card_that_nobody_issued_is_unknown(counter: SigningCounter) -> None:
    counter.card = KeycardCash(UID, b"\7" * 32)
    assert outcome(await counter.pay("req-1")) == ("declined", "card_unknown")


async def test_no_app_pays_with_a_card_that_signs(counter: SigningCounter) -> None:
    gateway = counter.gateway
    body = {
        "cardUuid": counter.issued.card_uuid,
        "amount": UNIT,
        "merchantId": "kiosk",
        "terminalId": TERMINAL,
        "requestId": "req-1",
    }
    reply = await gateway.post(body, headers=gateway.bearer("alice"))
    assert outcome(reply) == ("declined", "card_proof_invalid")
    assert "its own signature" in reply.json["reason"]
    assert counter.held_units() == 0


async def test_another_kind_of_card_cannot_stand_in_for_one_that_signs(
    counter: SigningCounter,
) -> None:
    """A card's own key decides whose it is, so no other proof ever names its row."""
    sun = counter.gateway.card()
    reply = await counter.gateway.pay(sun, cardUuid=counter.issued.card_uuid)
    assert outcome(reply) == ("declined", "card_proof_invalid")
    profiles = select(schema.payments.c.profile)
    assert counter.gateway.ledger.read_now(lambda c: list(c.scalars(profiles))) == []

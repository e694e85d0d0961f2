"""Taps at the same instant, at one gateway and at two on one server: what is decided only once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import Connection, select

from taprail_common.payment_state import PaymentEvent
from taprail_gateway import registry
from taprail_gateway.audit_check import check_audit
from taprail_gateway.ledger import schema, transitions
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.invariants import check_invariants
from taprail_gateway.ledger.schema import payments
from tests.support.gateway_fixtures import (
    UNIT,
    Reply,
    TestGateway,
    gateway_beside,
    running_gateway,
)
from tests.support.ledger_fixtures import on_both_engines, on_postgres


@pytest_asyncio.fixture
async def gateways(
    tmp_path: Path, ledger_url: str, ledger_engine: str
) -> AsyncIterator[list[TestGateway]]:
    """Two on a server, one on a file."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running_gateway(tmp_path, ledger_url=ledger_url))
        both = [first]
        if ledger_engine == "postgresql":
            both.append(await stack.enter_async_context(gateway_beside(first, ledger_url)))
        yield both


def codes(replies: list[Reply]) -> list[str]:
    return sorted(reply.json.get("reasonCode", "approved") for reply in replies)


@on_both_engines
async def test_of_one_tap_in_many_requests_exactly_one_is_accepted(
    gateways: list[TestGateway],
) -> None:
    first = gateways[0]
    cards = [first.card(f"04AABBCCDDEE{n:02X}") for n in range(4)]
    for _ in range(5):
        proofs = [card.tap() for card in cards]
        posts = [
            gateways[n % len(gateways)].post(first.request(proof, amount=UNIT))
            for n in range(6)
            for proof in proofs
        ]
        replies = list(await asyncio.gather(*posts))
        assert codes(replies) == ["approved"] * 4 + ["card_replayed"] * 20
    assert first.rows(payments) == 20
    assert first.ledger.read_now(check_invariants) == []


@on_both_engines
async def test_a_frozen_card_is_refused_at_the_very_next_tap(gateways: list[TestGateway]) -> None:
    first = gateways[0]
    card = first.card()
    for gateway in gateways * 4:
        assert (await gateway.pay(card, amount=UNIT)).status == 200
        # By another process in truth: `taprail admin card freeze` has a connection of its own.
        for status, code in (("frozen", "card_frozen"), ("active", "approved")):
            first.ledger.write_now(
                partial(registry.set_card_status, card_uuid=card.issued.card_uuid, status=status)
            )
            assert codes([await other.pay(card, amount=UNIT) for other in gateways]) == [
                code
            ] * len(gateways)


async def test_regulars_are_known_although_cards_are_frozen_among_them(tmp_path: Path) -> None:
    """What is remembered never changes, so a freeze costs no regular its place."""
    async with running_gateway(tmp_path) as gateway:
        cards = [gateway.card(f"04AABBCCDDEE{n:02X}") for n in range(4)]
        for tap in range(25):
            status = "frozen" if tap % 2 else "active"
            gateway.ledger.write_now(
                partial(
                    registry.set_card_status, card_uuid=cards[0].issued.card_uuid, status=status
                )
            )
            for card in cards:
                reply = await gateway.pay(card, amount=1)
                assert (reply.status == 200) == (card is not cards[0] or status == "active")
        rates = {name: use.hit_rate for name, use in gateway.services.caches.items()}
    assert rates["users"] is None
    assert all(rate is None or rate > 0.95 for rate in rates.values()), rates


@on_both_engines
@pytest.mark.parametrize("seed", [1, 2])
async def test_limits_hold_while_payments_fail_and_balances_move(
    gateways: list[TestGateway], seed: int
) -> None:
    """Taps, cancellations and top-ups of few cards, all at once; in the end everything adds up."""
    chance = random.Random(seed)
    first = gateways[0]
    limits = {"daily_limit_units": 12, "single_limit_units": 5, "balance_units": 10}
    cards = [first.card(f"04AABBCCDDEE{n:02X}", **limits) for n in range(3)]
    accounts = [card.issued.account for card in cards]

    async def taps(gateway: TestGateway) -> list[str]:
        replies = []
        for _ in range(6):
            amounts = [chance.randint(1, 5) for _ in cards]
            replies += await asyncio.gather(
                *(gateway.pay(card, amount=n) for card, n in zip(cards, amounts, strict=True))
            )
        return codes(replies)

    async def troubles(gateway: TestGateway) -> None:
        for block in range(2, 8):
            await gateway.ledger.write(cancel_some)
            balances = dict.fromkeys(accounts, 10 + block)
            await gateway.ledger.write(
                partial(transitions.refresh_balances, balances=balances, block_number=block)
            )

    def cancel_some(connection: Connection) -> None:
        pending = select(payments.c.id).where(payments.c.state == "pending").limit(2)
        ids = list(connection.scalars(pending.order_by(payments.c.id)))
        try:
            with connection.begin_nested():
                transitions.apply(connection, PaymentEvent.REJECT, ids, 1)
        except GuardError:
            pass  # the other gateway has cancelled them meanwhile

    found = await asyncio.gather(
        *(taps(gateway) for gateway in gateways), *(troubles(gateway) for gateway in gateways)
    )
    seen = {code for each in found if each for code in each}
    assert seen <= {"approved", "daily_limit", "insufficient_balance", "card_replayed"}
    assert "approved" in seen
    first.ledger.read_now(nothing_is_overdrawn)
    report = first.ledger.read_now(lambda c: check_audit(c, first.public_key))
    assert report.problems == []
    assert report.decisions == first.rows(schema.verdicts)


def nothing_is_overdrawn(connection: Connection) -> None:
    assert check_invariants(connection) == []
    a, s = schema.accounts.c, schema.card_spend.c
    assert connection.execute(select(a.address).where(a.held_units > a.balance_units)).all() == []
    assert connection.execute(select(s.day).where(s.spent_units > 12)).all() == []


@on_postgres
async def test_what_two_gateways_count_of_a_card_is_counted_once_each(
    gateways: list[TestGateway],
) -> None:
    """Activities are written whole: without the lock on the card, one would undo the other's."""
    first, second = gateways
    cards = [first.card(f"04AABBCCDDEE{n:02X}") for n in range(3)]
    for _ in range(5):
        await asyncio.gather(
            *(gateway.pay(card, amount=UNIT) for card in cards for gateway in (first, second))
        )
    told = first.rows(schema.verdicts)
    use = schema.activity.c
    statement = select(use.kind, use.hour_taps + use.hour_taps_before)
    counted = first.ledger.read_now(lambda c: c.execute(statement).all())
    replays = told - first.rows(payments)
    assert sum(taps for kind, taps in counted if kind == "terminal") == told == 30
    assert sum(taps for kind, taps in counted if kind == "card") == 30 - replays

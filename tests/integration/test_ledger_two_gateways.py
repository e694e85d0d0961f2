"""Two gateways on one PostgreSQL, each with its own writer: nothing is taken twice or overdrawn."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import Connection, select
from structlog.testing import capture_logs

from taprail_common.clock import SystemClock
from taprail_gateway.ledger import claims, funds, queries, reservations, schema, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.funds import Charge
from taprail_gateway.ledger.reservations import Spend
from tests.support.gateway_fixtures import UNIT, Reply, gateway_beside, running_gateway
from tests.support.ledger_fixtures import (
    DAY,
    NOW_MS,
    Registry,
    SeededCard,
    on_postgres,
    seed_registry,
)

pytestmark = on_postgres

CARDS = 8
BALANCE = 1_000


@pytest.fixture
def registry(ledger: Ledger) -> Registry:
    return seed_registry(ledger, cards=CARDS, balance_units=BALANCE)


@pytest_asyncio.fixture
async def both(ledger: Ledger, ledger_url: str, registry: Registry) -> AsyncIterator[list[Ledger]]:
    """Two started ledgers on the same rows."""
    second = Ledger.open(ledger_url, clock=SystemClock())
    await second.start()
    yield [ledger, second]
    await second.close()


async def at_both(
    ledgers: Sequence[Ledger], works: Sequence[Callable[[Connection], bool]]
) -> list[bool]:
    """Each work at one of the gateways, in turn, all at once."""
    calls = [ledgers[i % 2].write(work) for i, work in enumerate(works)]
    return list(await asyncio.gather(*calls))


# --- what may be taken once -------------------------------------------------------------------


async def test_holds_never_exceed_the_balance(both: list[Ledger], registry: Registry) -> None:
    account = registry.cards[0].account
    amounts = [random.Random(i).randint(1, 90) for i in range(60)]
    works = [partial(transitions.hold, account=account, amount_units=units) for units in amounts]
    taken = await at_both(both, works)
    held = sum(units for units, ok in zip(amounts, taken, strict=True) if ok)
    assert held <= BALANCE
    assert (await both[1].read(queries.held_by_account))[account] == held
    assert all(ok or held + units > BALANCE for units, ok in zip(amounts, taken, strict=True))


async def test_spend_never_exceeds_the_day(both: list[Ledger], registry: Registry) -> None:
    card = registry.cards[0].uuid
    amounts = [random.Random(i).randint(1, 90) for i in range(60)]
    works = [
        lambda c, units=units: transitions.reserve_spend(c, card, DAY, units, 500)
        for units in amounts
    ]
    taken = await at_both(both, works)
    spent = sum(units for units, ok in zip(amounts, taken, strict=True) if ok)
    assert spent <= 500
    assert await both[0].read(lambda c: c.execute(schema.card_spend.select()).all()) == [
        (card, DAY, spent)
    ]


async def test_each_counter_is_taken_by_one_tap_only(
    both: list[Ledger], registry: Registry
) -> None:
    card = registry.cards[0].uuid
    counters = [i // 4 + 1 for i in range(40)]
    works = [
        partial(transitions.advance_counter, card_uuid=card, counter=each) for each in counters
    ]
    taken = await at_both(both, works)
    winners = [counter for counter, ok in zip(counters, taken, strict=True) if ok]
    assert len(winners) == len(set(winners))
    assert max(winners) == max(counters)


# --- groups -----------------------------------------------------------------------------------


class Takes:
    """A batcher like the acceptance's: the holds and spends of all its items together."""

    def run(self, connection: Connection, items: Sequence[SeededCard], /) -> list[None]:
        reservations.hold_all(connection, {card.account: 1 for card in items})
        reservations.reserve_all(connection, [Spend(card.uuid, DAY, 1, BALANCE) for card in items])
        return [None] * len(items)


async def test_groups_of_the_same_rows_in_any_order_do_not_deadlock(
    both: list[Ledger], registry: Registry
) -> None:
    """Whatever the order of the items, rows are changed in the order of their keys."""
    rounds = 40

    async def taps(ledger: Ledger, shuffled: random.Random) -> None:
        takes = Takes()
        for _ in range(rounds):
            cards = shuffled.sample(registry.cards, CARDS)
            await asyncio.gather(*(ledger.write_batched(takes, card) for card in cards))

    with capture_logs() as logs:
        await asyncio.gather(taps(both[0], random.Random(1)), taps(both[1], random.Random(2)))
    assert logs == []
    expected = 2 * rounds * CARDS
    assert await both[0].read(_held_and_spent) == (expected, expected)


def _held_and_spent(connection: Connection) -> tuple[int, int]:
    spent = connection.scalars(select(schema.card_spend.c.spent_units))
    return sum(queries.held_by_account(connection).values()), sum(spent)


async def test_what_is_taken_and_given_back_crosswise_does_not_deadlock(
    both: list[Ledger], registry: Registry
) -> None:
    charges = [Charge(card.account, card.uuid, DAY, 1) for card in registry.cards]
    holds = {charge.payer: 1 for charge in charges}

    def take(connection: Connection) -> None:
        reservations.hold_all(connection, holds)

    def give_back(connection: Connection, ordered: list[Charge]) -> None:
        balances = {charge.payer: BALANCE for charge in ordered}
        funds.refresh_balances(connection, balances, 1)
        funds.release(connection, ordered, snapshot_from=0)

    with capture_logs() as logs:
        for _ in range(40):
            await asyncio.gather(both[0].write(take), both[1].write(take))
            await asyncio.gather(
                both[0].write(partial(give_back, ordered=charges)),
                both[1].write(partial(give_back, ordered=charges[::-1])),
            )
    assert logs == []
    assert set((await both[0].read(queries.held_by_account)).values()) == {0}


# --- claims -----------------------------------------------------------------------------------


async def test_no_payment_is_claimed_by_two_lanes(both: list[Ledger], registry: Registry) -> None:
    rows = [registry.payment(f"r{i}") for i in range(60)]
    await both[0].write(lambda c: transitions.accept(c, rows, NOW_MS))
    lanes = ["0x" + f"{i:02x}" * 20 for i in (1, 2)]
    await both[0].write(
        lambda c: c.execute(
            schema.lanes.insert(),
            [{"address": lane, "wrapped_key": b"\1", "created_at_ms": NOW_MS} for lane in lanes],
        ).close()
    )

    def claim_beside(connection: Connection) -> tuple[set[str], set[str]]:
        """The second claims while the first's claim is not committed: it does not wait."""
        first = claims.claim(connection, lanes[0], 25, NOW_MS)
        second = both[1].write_now(lambda c: claims.claim(c, lanes[1], 25, NOW_MS))
        return {each.id for each in first}, {each.id for each in second}

    first, second = await both[0].write(claim_beside)
    assert (len(first), len(second)) == (25, 25)
    assert first.isdisjoint(second)
    left = await both[1].write(lambda c: claims.claim(c, lanes[1], 60, NOW_MS))
    assert {each.id for each in left} == {row["id"] for row in rows} - first


# --- acceptance -------------------------------------------------------------------------------


async def test_a_request_is_answered_the_same_by_both(tmp_path: Path, ledger_url: str) -> None:
    async with (
        running_gateway(tmp_path, ledger_url=ledger_url) as first,
        gateway_beside(first, ledger_url) as second,
    ):
        card = first.card()
        for _ in range(12):
            request = first.request(card.tap(), amount=UNIT)
            replies = await asyncio.gather(
                *(gateway.post(request) for gateway in (first, second, first, second))
            )
            assert {reply.status for reply in replies} == {200}
            assert len({(reply.body, reply.signature) for reply in replies}) == 1
        assert first.rows(schema.payments) == 12
        assert second.ledger.read_now(queries.check_invariants) == []


async def test_one_tap_is_charged_once_whoever_is_asked(tmp_path: Path, ledger_url: str) -> None:
    async with (
        running_gateway(tmp_path, ledger_url=ledger_url) as first,
        gateway_beside(first, ledger_url) as second,
    ):
        card = first.card()
        for _ in range(12):
            proof = card.tap()
            replies: list[Reply] = await asyncio.gather(
                *(
                    gateway.post(first.request(proof, amount=UNIT))
                    for gateway in (first, second, first, second)
                )
            )
            assert sorted(reply.status for reply in replies) == [200, 400, 400, 400]
        assert first.rows(schema.payments) == 12
        assert first.ledger.read_now(queries.check_invariants) == []


async def test_the_balance_is_shared_to_the_last_unit(tmp_path: Path, ledger_url: str) -> None:
    async with (
        running_gateway(tmp_path, ledger_url=ledger_url) as first,
        gateway_beside(first, ledger_url) as second,
    ):
        card = first.card(balance_units=10 * UNIT)
        replies: list[Reply] = []
        for _ in range(6):
            requests = [first.request(card.tap(), amount=UNIT) for _ in range(2)]
            replies += await asyncio.gather(first.post(requests[0]), second.post(requests[1]))
        # Of two taps of one card, the earlier that comes later is refused: take what is left.
        replies += [await second.pay(card, amount=UNIT) for _ in range(11)]
        assert {reply.status for reply in replies} == {200, 400}
        assert [reply.status for reply in replies].count(200) == 10
        assert first.ledger.read_now(queries.check_invariants) == []

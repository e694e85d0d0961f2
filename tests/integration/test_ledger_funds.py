"""Holds, spend and counters under concurrency: never beyond by a unit, never refused in vain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, update

from taprail_gateway.ledger import queries, reservations, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.reservations import Spend
from taprail_gateway.ledger.schema import accounts, card_spend, cards
from tests.support.ledger_fixtures import DAY, Registry, on_both_engines, seed_registry

pytestmark = on_both_engines

# The file is the same for all examples; each begins with its own clean rows.
on_one_file = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
amounts = st.lists(st.integers(1, 60), min_size=1, max_size=24)


@pytest.fixture
def registry(ledger: Ledger) -> Registry:
    return seed_registry(ledger)


def all_at_once(ledger: Ledger, works: Sequence[Callable[[Connection], bool]]) -> list[bool]:
    """Each in a transaction of its own, from four threads with connections of their own."""
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(ledger.write_now, works))


@on_one_file
@given(amounts=amounts, balance=st.integers(0, 300))
def test_holds_never_exceed_the_balance(
    ledger: Ledger, registry: Registry, amounts: list[int], balance: int
) -> None:
    account = registry.cards[0].account
    ledger.write_now(
        lambda c: c.execute(update(accounts).values(balance_units=balance, held_units=0)).close()
    )
    taken = all_at_once(
        ledger,
        [partial(transitions.hold, account=account, amount_units=amount) for amount in amounts],
    )
    held = sum(amount for amount, ok in zip(amounts, taken, strict=True) if ok)
    assert held <= balance
    assert ledger.read_now(queries.held_by_account)[account] == held
    # Holds only grew, so whoever was refused would not fit into what is left now either.
    assert all(ok or held + amount > balance for amount, ok in zip(amounts, taken, strict=True))


@on_one_file
@given(amounts=amounts, limit=st.integers(0, 300))
def test_spend_never_exceeds_the_day(
    ledger: Ledger, registry: Registry, amounts: list[int], limit: int
) -> None:
    card = registry.cards[0].uuid
    ledger.write_now(lambda c: c.execute(card_spend.delete()).close())
    taken = all_at_once(
        ledger,
        [
            partial(
                transitions.reserve_spend,
                card_uuid=card,
                day=DAY,
                amount_units=amount,
                daily_limit_units=limit,
            )
            for amount in amounts
        ],
    )
    spent = sum(amount for amount, ok in zip(amounts, taken, strict=True) if ok)
    assert spent <= limit
    assert ledger.read_now(lambda c: c.execute(card_spend.select()).all()) == (
        [(card, DAY, spent)] if spent else []
    )
    assert all(ok or spent + amount > limit for amount, ok in zip(amounts, taken, strict=True))


@on_one_file
@given(counters=st.lists(st.integers(0, 8), min_size=1, max_size=24))
def test_each_counter_is_taken_by_one_tap_only(
    ledger: Ledger, registry: Registry, counters: list[int]
) -> None:
    card = registry.cards[0].uuid
    ledger.write_now(lambda c: c.execute(update(cards).values(sun_counter=0)).close())
    taken = all_at_once(
        ledger,
        [
            partial(transitions.advance_counter, card_uuid=card, counter=counter)
            for counter in counters
        ],
    )
    winners = [counter for counter, ok in zip(counters, taken, strict=True) if ok]
    assert len(winners) == len(set(winners))
    assert winners.count(max(counters)) == (1 if max(counters) > 0 else 0)
    assert 0 not in winners


async def test_exactly_one_of_many_equal_counters(ledger: Ledger, registry: Registry) -> None:
    card = registry.cards[0].uuid
    taken = all_at_once(
        ledger, [lambda c: transitions.advance_counter(c, card, 5) for _ in range(16)]
    )
    assert sum(taken) == 1


async def test_a_card_that_is_not_there_has_no_counter(ledger: Ledger, registry: Registry) -> None:
    assert not ledger.write_now(lambda c: transitions.advance_counter(c, "no such card", 5))


async def test_a_group_takes_all_of_it_or_nothing(ledger: Ledger, registry: Registry) -> None:
    card, account = registry.cards[0].uuid, registry.cards[0].account

    def take(connection: Connection, counter: int, units: int, spend: int) -> None:
        reservations.advance_counters(connection, {card: counter})
        reservations.hold_all(connection, {account: units})
        reservations.reserve_all(connection, [Spend(card, DAY, spend, 100)])

    ledger.write_now(lambda c: take(c, 5, 10, 60))
    for counter, units, spend in ((5, 10, 10), (6, 2_000_000_000, 10), (6, 10, 41), (6, 10, 101)):
        with pytest.raises(GuardError):
            ledger.write_now(partial(take, counter=counter, units=units, spend=spend))
    assert ledger.read_now(queries.held_by_account) == {account: 10}
    assert ledger.read_now(lambda c: c.execute(card_spend.select()).all()) == [(card, DAY, 60)]
    ledger.write_now(lambda c: take(c, 6, 10, 40))


async def test_the_limit_is_exact(ledger: Ledger, registry: Registry) -> None:
    card = registry.cards[0].uuid

    def spend(units: int, limit: int, day: str = DAY) -> bool:
        return ledger.write_now(lambda c: transitions.reserve_spend(c, card, day, units, limit))

    assert not spend(101, 100)
    assert spend(60, 100)
    assert not spend(41, 100)
    assert spend(40, 100)
    assert not spend(1, 100)
    assert spend(100, 100, day="2024-06-01")


async def test_no_more_is_given_back_than_was_spent(ledger: Ledger, registry: Registry) -> None:
    card = registry.cards[0].uuid
    ledger.write_now(lambda c: transitions.reserve_spend(c, card, DAY, 10, 100))
    ledger.write_now(lambda c: transitions.return_spend(c, card, DAY, 4))
    with pytest.raises(GuardError):
        ledger.write_now(lambda c: transitions.return_spend(c, card, DAY, 7))
    ledger.write_now(lambda c: transitions.return_spend(c, card, DAY, 6))

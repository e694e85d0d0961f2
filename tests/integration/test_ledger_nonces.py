"""A lane's nonces: given once, skipped only forwards, filled only where they were skipped, and by
nobody who has lost the lane."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from taprail_gateway.ledger import nonces
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.leases import Lease, LeaseLostError
from taprail_gateway.ledger.nonces import Attempt
from taprail_gateway.ledger.schema import chain_transactions, lanes
from tests.support.ledger_fixtures import LANE, NOW_MS, lease_of, on_both_engines, seed_registry

pytestmark = on_both_engines

_hashes = itertools.count(1)
Work = Callable[[Connection, Lease], Any]


@pytest.fixture(autouse=True)
def _seeded(ledger: Ledger) -> None:
    seed_registry(ledger, cards=1)


def attempt() -> Attempt:
    return Attempt(f"0x{next(_hashes):064x}", b"signed", 21_000, 2 * 10**9, 10**9, kind="noop")


def noops(*wanted: int) -> dict[int, Attempt]:
    return {nonce: attempt() for nonce in wanted}


def begin(ledger: Ledger, *steps: Work) -> None:
    """Take steps as the lane's owner, each in a commit of its own."""
    for step in steps:
        ledger.write_now(partial(_as_owner, step))


def _as_owner(step: Work, connection: Connection) -> None:
    step(connection, lease_of(connection))


def store(nonce: int) -> Work:
    return lambda c, lease: nonces.store_transaction(c, lease, nonce, attempt(), NOW_MS)


def skip(nonce: int) -> Work:
    return partial(nonces.skip_nonces, next_nonce=nonce)


def fill(*wanted: int) -> Work:
    return lambda c, lease: nonces.fill_gap(c, lease, noops(*wanted), NOW_MS)


def state(ledger: Ledger) -> tuple[int | None, str | None, list[tuple[int, str]]]:
    """The lane's next nonce, why it is paused, and its transactions."""

    def query(connection: Connection) -> tuple[int | None, str | None, list[tuple[int, str]]]:
        t = chain_transactions.c
        lane = connection.execute(select(lanes.c.next_nonce, lanes.c.paused_because)).one()
        rows = connection.execute(select(t.nonce, t.status).order_by(t.nonce))
        return lane[0], lane[1], [(row[0], row[1]) for row in rows]

    return ledger.read_now(query)


async def test_nonces_are_skipped_forwards_and_never_back(ledger: Ledger) -> None:
    begin(ledger, store(0), skip(4))
    assert state(ledger) == (4, None, [(0, "signed")])
    begin(ledger, skip(4))
    with pytest.raises(GuardError, match="further"):
        begin(ledger, skip(3))
    assert state(ledger)[0] == 4


async def test_a_gap_is_all_that_was_skipped_up_to_the_next_transaction(ledger: Ledger) -> None:
    begin(ledger, store(0), skip(4), store(4), skip(7))

    def gap(nonce: int, limit: int = 50) -> Sequence[int]:
        return ledger.read_now(lambda c: nonces.gap_at(c, LANE, nonce, limit))

    assert list(gap(0)) == []
    assert list(gap(1)) == [1, 2, 3]
    assert list(gap(1, limit=2)) == [1, 2]
    assert list(gap(4)) == []
    assert list(gap(5)) == [5, 6]
    assert list(gap(7)) == []
    begin(ledger, fill(1, 2, 3), fill(5, 6))
    assert state(ledger) == (7, None, [(each, "signed") for each in range(7)])


@pytest.mark.parametrize("wanted", [(0,), (0, 1), (2, 3, 4), (3, 2), (5,), (1, 3)])
async def test_only_what_was_skipped_is_filled_and_in_its_order(
    ledger: Ledger, wanted: tuple[int, ...]
) -> None:
    begin(ledger, store(0), skip(4), store(4))
    before = state(ledger)
    with pytest.raises(GuardError, match="skipped"):
        begin(ledger, fill(*wanted))
    assert state(ledger) == before


LANE_WORKS: dict[str, Work] = {
    "store": store(0),
    "skip": skip(9),
    "fill": fill(0),
    "pause": lambda c, lease: nonces.change_pause(c, lease, None, "funds: none"),
    "start": lambda c, lease: nonces.start_lane(c, lease, 3),
}


@pytest.mark.parametrize("name", LANE_WORKS)
async def test_who_has_lost_the_lane_changes_nothing_of_it(ledger: Ledger, name: str) -> None:
    fresh = {"fill": 2, "start": None}.get(name, 0)
    ledger.write_now(lambda c: c.execute(update(lanes).values(next_nonce=fresh)).close())
    lost = ledger.write_now(lease_of)
    ledger.write_now(lease_of)  # another gateway's, with the next fence
    before = state(ledger)
    with pytest.raises(LeaseLostError):
        ledger.write_now(lambda c: LANE_WORKS[name](c, lost))
    assert state(ledger) == before
    begin(ledger, LANE_WORKS[name])
    assert state(ledger) != before


async def test_a_pause_that_is_no_longer_the_same_stays(ledger: Ledger) -> None:
    begin(ledger, lambda c, _: nonces.pause_lane(c, LANE, "operator: I look"))

    def change(was: str | None) -> bool:
        return ledger.write_now(lambda c: nonces.change_pause(c, lease_of(c), was, None))

    assert not change(None)
    assert not change("funds: none")
    assert state(ledger)[1] == "operator: I look"
    assert change("operator: I look")
    assert state(ledger)[1] is None

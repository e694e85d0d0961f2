"""Gateways on one PostgreSQL share the lanes alike, as they come and go; on a file there is one."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import insert, select, update

from taprail_common.clock import SystemClock
from taprail_gateway.ledger import presence, schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.lane_keeper import LaneKeeper
from tests.support.ledger_fixtures import NOW_MS, on_both_engines, on_postgres

LANES = [f"0x{number:040x}" for number in range(1, 6)]


@pytest.fixture
def lanes(ledger: Ledger) -> list[str]:
    rows = [{"address": it, "wrapped_key": b"\1", "created_at_ms": NOW_MS} for it in LANES]
    ledger.write_now(lambda c: c.execute(insert(schema.lanes), rows).close())
    return LANES


def gateway(ledger: Ledger, name: str) -> LaneKeeper:
    return LaneKeeper(ledger, SystemClock(), name, lambda _lane: True)


async def settled(*keepers: LaneKeeper) -> list[int]:
    """How many lanes each has, when all have looked twice."""
    for keeper in [*keepers, *keepers]:
        await keeper.look()
    return [len(keeper.leases) for keeper in keepers]


@on_postgres
async def test_who_comes_gets_a_share_and_who_goes_leaves_it(
    ledger: Ledger, lanes: list[str]
) -> None:
    first, second, third = (gateway(ledger, name) for name in ("a", "b", "c"))
    assert await settled(first) == [5]
    assert await settled(first, second) == [3, 2]
    assert sorted([*first.leases, *second.leases]) == lanes
    assert sorted(await settled(first, second, third)) == [1, 2, 2]
    await second.give_back()
    assert sum(await settled(first, third)) == 5
    await first.give_back()
    assert await settled(third) == [5]


@on_postgres
async def test_who_has_died_is_forgotten(ledger: Ledger, lanes: list[str]) -> None:
    first, dead = gateway(ledger, "a"), gateway(ledger, "b")
    assert await settled(first, dead) == [3, 2]
    over = update(schema.leases).where(schema.leases.c.owner == "b").values(until_ms=0)
    await ledger.write(lambda c: c.execute(over).close())
    assert await settled(first) == [5]
    names = select(schema.leases.c.name).where(schema.leases.c.name.startswith("gateway:"))
    assert ledger.read_now(lambda c: c.scalars(names).all()) == ["gateway:a"]


@on_both_engines
async def test_gateways_are_counted(ledger: Ledger) -> None:
    for name, count in (("a", 1), ("b", 2), ("a", 2)):
        assert await ledger.write(partial(presence.attend, owner=name, now_ms=NOW_MS)) == count
    await ledger.write(partial(presence.leave, owner="a"))
    assert await ledger.write(partial(presence.attend, owner="b", now_ms=NOW_MS)) == 1


async def test_on_a_file_whoever_else_was_there_is_dead(ledger: Ledger, lanes: list[str]) -> None:
    await ledger.write(partial(presence.attend, owner="dead", now_ms=SystemClock().now_ms()))
    assert await settled(gateway(ledger, "a")) == [5]

"""What the ledger answers, and that its loops read only what is open."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, event

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import claims, nonces, queries, standings, transitions, under_way
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.standings import Standing
from taprail_gateway.settle import accounts
from tests.support.ledger_fixtures import (
    LANE,
    NOW_MS,
    Registry,
    on_both_engines,
    seed_registry,
)

pytestmark = on_both_engines

Query = Callable[[Connection], Any]
STANDING = Standing(7, "0x" + "cc" * 32)


@pytest.fixture
def registry(ledger: Ledger) -> Registry:
    return seed_registry(ledger)


def plan_of(ledger: Ledger, query: Query) -> str:
    """How the database would find the rows of the query's last statement."""
    with ledger.read_engine.begin() as connection:
        return plans_in(connection, lambda: query(connection))[-1]


def plans_in(connection: Connection, work: Callable[[], object]) -> list[str]:
    """How the database would find the rows of each statement."""
    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, given: Any, *_rest: Any) -> None:
        seen.append((statement, given))

    event.listen(connection, "before_cursor_execute", note)
    work()
    event.remove(connection, "before_cursor_execute", note)
    return ["\n".join(EXPLAIN[connection.dialect.name](connection, *each)) for each in seen]


def explain_sqlite(connection: Connection, statement: str, given: Any) -> list[str]:
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)
    return [row[3] for row in rows]


def explain_postgresql(connection: Connection, statement: str, given: Any) -> list[str]:
    """Of tables that are empty, and would be scanned if that were not called expensive."""
    for name in ("seqscan", "bitmapscan", "sort"):
        connection.exec_driver_sql(f"SET LOCAL enable_{name} = off")
    rows = connection.exec_driver_sql(f"EXPLAIN {statement}", given)
    return [row[0].replace("Seq Scan", "SCAN").replace("Sort", "TEMP B-TREE") for row in rows]


EXPLAIN = {"sqlite": explain_sqlite, "postgresql": explain_postgresql}

# The index of each engine, where they are not called the same.
LOOP_QUERIES: list[tuple[Query, str, str]] = [
    (lambda c: claims.waiting(c, LANE, 50, NOW_MS), "ix_payments_open", ""),
    (lambda c: claims.under_way(c, LANE, 50), "ix_payments_open", ""),
    (lambda c: nonces.lowest_open(c, LANE), "ix_chain_transactions_open", ""),
    (
        lambda c: nonces.open_from(c, LANE, 3, 50, status="signed"),
        "ix_chain_transactions_open",
        "",
    ),
    (queries.open_counts, "ix_payments_open", ""),
    (lambda c: under_way.unsettled(c, [1, 2]), "ix_payments_chain_transaction_id", ""),
    (lambda c: under_way.versions(c, [1, 2]), "ix_attempts_chain_transaction_id", ""),
    (lambda c: under_way.is_any_open(c, [LANE]), "ix_chain_transactions_open", ""),
    (
        lambda c: under_way.open_transactions_between(c, LANE, 3, 9, 50),
        "ix_chain_transactions_open",
        "",
    ),
    (
        lambda c: under_way.given_up(c, LANE, signed_until_s=1, offset=0, limit=50),
        "ix_payments_open",
        "",
    ),
    (lambda c: under_way.refused(c, LANE, offset=0, limit=50), "ix_payments_refused", ""),
    (
        lambda c: under_way.times_left_out(c, ["0x1"]),
        "sqlite_autoindex_bindings_1",
        "pk_bindings",
    ),
    (lambda c: standings.paid_below(c, LANE, 9, 50), "ix_payments_completed", ""),
    (lambda c: standings.finished_below(c, LANE, 9, 50), "ix_chain_transactions_final", ""),
    (lambda c: standings.paid_in(c, LANE, STANDING), "ix_payments_completed", ""),
    (accounts.unread_addresses, "ix_accounts_unread", ""),
    (
        lambda c: accounts.addresses_after(c, address="0x1", limit=50),
        "sqlite_autoindex_accounts_1",
        "pk_accounts",
    ),
    (lambda c: queries.open_transactions(c, LANE), "ix_chain_transactions_open", ""),
    (lambda c: queries.raw_attempts(c, [1, 2]), "ix_attempts_chain_transaction_id", ""),
    (lambda c: queries.events_after(c, 0, 50), "INTEGER PRIMARY KEY", "pk_payment_events"),
    (
        lambda c: queries.payment_of_request(c, "t", "r"),
        "sqlite_autoindex_payments_2",
        "uq_payments_requester_request_id",
    ),
]


@pytest.mark.parametrize(("query", "index", "on_server"), LOOP_QUERIES)
async def test_a_loop_reads_through_an_index(
    ledger: Ledger, ledger_engine: str, query: Query, index: str, on_server: str
) -> None:
    plan = plan_of(ledger, query)
    wanted = on_server if on_server and ledger_engine == "postgresql" else index
    assert wanted in plan
    for line in plan.splitlines():
        # What SQLite calls anon_1 is the few rows that an inner query has found.
        assert "SCAN" not in line or wanted in line or "anon_1" in line, plan


async def test_what_is_claimed_or_put_off_is_found_without_looking_at_all_that_waits(
    ledger: Ledger, ledger_engine: str, registry: Registry
) -> None:
    some = accept(ledger, registry, "r", NOW_MS)
    taken, put_off = ledger.write_now(
        lambda c: (
            plans_in(c, lambda: claims.claim(c, LANE, 1, NOW_MS))[1],
            plans_in(c, lambda: claims.put_off(c, [some], NOW_MS, "why"))[0],
        )
    )
    assert "ix_payments_open" in taken
    assert "TEMP B-TREE" not in taken
    # PostgreSQL goes by how many there are; SQLite is not told that these are few.
    assert ledger_engine != "sqlite" or "sqlite_autoindex_payments_1 (id=?)" in put_off


async def test_what_is_pending_comes_sorted_from_its_index(ledger: Ledger) -> None:
    assert "TEMP B-TREE" not in plan_of(ledger, lambda c: queries.open_transactions(c, LANE))
    between = under_way.open_transactions_between
    assert "TEMP B-TREE" not in plan_of(ledger, lambda c: between(c, LANE, 0, 9, 5))
    refused = partial(under_way.refused, lane=LANE, offset=0, limit=5)
    assert "TEMP B-TREE" not in plan_of(ledger, refused)


def accept(ledger: Ledger, registry: Registry, request: str, at_ms: int, priority: int = 0) -> str:
    row = {**registry.payment(request), "priority": priority}
    ledger.write_now(lambda c: transitions.accept(c, [row], at_ms))
    return str(row["id"])


async def test_the_urgent_come_first_then_the_oldest(ledger: Ledger, registry: Registry) -> None:
    late = accept(ledger, registry, "late", NOW_MS + 2)
    early = accept(ledger, registry, "early", NOW_MS + 1)
    urgent = accept(ledger, registry, "urgent", NOW_MS + 3, priority=5)
    found = await ledger.write(lambda c: claims.claim(c, LANE, 10, NOW_MS))
    assert [each.id for each in found] == [urgent, early, late]
    assert len(await ledger.write(lambda c: claims.claim(c, LANE, 2, NOW_MS))) == 2


async def test_events_come_in_their_order_and_in_portions(
    ledger: Ledger, registry: Registry
) -> None:
    ids = [accept(ledger, registry, f"r{i}", NOW_MS) for i in range(5)]
    first = await ledger.read(lambda c: queries.events_after(c, 0, 3))
    rest = await ledger.read(lambda c: queries.events_after(c, first[-1].seq, 3))
    assert [each.payment_id for each in first + rest] == ids
    assert await ledger.read(queries.last_event_seq) == rest[-1].seq
    assert {each.event for each in first} == {transitions.ACCEPTED}
    assert {each.state for each in first} == {PaymentState.PENDING}


async def test_counts_and_totals(ledger: Ledger, registry: Registry) -> None:
    assert await ledger.read(queries.totals_by_merchant) == {registry.merchant_id: 0}
    assert await ledger.read(queries.last_event_seq) == 0
    accept(ledger, registry, "r1", NOW_MS)
    counts = await ledger.read(queries.open_counts)
    assert counts[PaymentState.PENDING] == 1
    assert counts[PaymentState.SENT] == 0
    found = await ledger.read(lambda c: queries.payment_of_request(c, registry.terminal_id, "r1"))
    assert found is not None
    assert await ledger.read(lambda c: queries.payment(c, found.id)) == found
    assert await ledger.read(lambda c: queries.payment(c, "0x0")) is None

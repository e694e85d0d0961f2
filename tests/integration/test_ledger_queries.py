"""What the ledger answers, and that its loops read only what is open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import URL, Connection, event
from sqlalchemy.sql import ClauseElement

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import claims, queries, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.schema import meta
from taprail_gateway.ledger.upserts import Upsert
from tests.support.ledger_fixtures import LANE, NOW_MS, Registry, lease_of, seed_registry

Query = Callable[[Connection], Any]


@pytest.fixture
def registry(ledger: Ledger) -> Registry:
    return seed_registry(ledger)


def plan_of(ledger: Ledger, query: Query) -> str:
    """How SQLite would find the rows of the query's statement."""
    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, given: Any, *_rest: Any) -> None:
        seen.append((statement, given))

    with ledger.read_engine.begin() as connection:
        event.listen(connection, "before_cursor_execute", note)
        query(connection)
        event.remove(connection, "before_cursor_execute", note)
        statement, given = seen[-1]
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)
        return "\n".join(row[3] for row in rows)


LOOP_QUERIES: list[tuple[Query, str]] = [
    (lambda c: queries.pending_of(c, LANE, 50, NOW_MS), "ix_payments_open"),
    (queries.open_counts, "ix_payments_open"),
    (lambda c: queries.bound_payments(c, PaymentState.SENT, 50), "ix_payments_open"),
    (lambda c: queries.payments_of(c, [1, 2]), "ix_payments_chain_transaction_id"),
    (lambda c: queries.open_transactions(c, LANE), "ix_chain_transactions_open"),
    (lambda c: queries.raw_attempts(c, [1, 2]), "ix_attempts_chain_transaction_id"),
    (lambda c: queries.valid_before_s(c, ["0x1"]), "sqlite_autoindex_bindings_1"),
    (lambda c: queries.events_after(c, 0, 50), "INTEGER PRIMARY KEY"),
    (lambda c: queries.payment_of_request(c, "t", "r"), "sqlite_autoindex_payments_2"),
]


@pytest.mark.parametrize(("query", "index"), LOOP_QUERIES)
async def test_a_loop_reads_through_an_index(ledger: Ledger, query: Query, index: str) -> None:
    plan = plan_of(ledger, query)
    assert index in plan
    for line in plan.splitlines():
        assert not line.startswith("SCAN") or index in line, plan


async def test_what_is_pending_comes_sorted_from_its_index(ledger: Ledger) -> None:
    assert "TEMP B-TREE" not in plan_of(ledger, lambda c: queries.pending_of(c, LANE, 50, NOW_MS))
    assert "TEMP B-TREE" not in plan_of(ledger, lambda c: queries.open_transactions(c, LANE))


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
    assert len(await ledger.read(lambda c: queries.pending_of(c, LANE, 2, NOW_MS))) == 2


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


def bind(ledger: Ledger, payment: str, at_ms: int) -> int:
    attempt = transitions.Attempt("0x" + "1" * 64, b"raw", 1, 1, 1)
    return ledger.write_now(
        lambda c: transitions.bind(
            c,
            lease_of(c),
            nonce=0,
            payment_ids=[payment],
            attempt=attempt,
            valid_before_s=1,
            at_ms=at_ms,
        )
    )


async def test_overdue_payments_can_be_asked_for(ledger: Ledger, registry: Registry) -> None:
    payment = accept(ledger, registry, "r1", NOW_MS)
    bind(ledger, payment, NOW_MS + 10)

    def overdue(before_ms: int) -> list[queries.BoundPayment]:
        return ledger.read_now(
            lambda c: queries.bound_payments(c, PaymentState.PROCESSING, 10, before_ms=before_ms)
        )

    assert overdue(NOW_MS + 10) == []
    assert [each.id for each in overdue(NOW_MS + 11)] == [payment]


async def test_every_statement_can_be_spelt_for_postgresql(
    ledger: Ledger, registry: Registry
) -> None:
    """Compiled, not run: that no statement of the ledger is SQLite's alone."""
    seen: list[ClauseElement] = []

    def note(_connection: Any, statement: ClauseElement, *_rest: Any) -> None:
        seen.append(statement)

    for engine in (ledger.write_engine, ledger.read_engine):
        event.listen(engine, "before_execute", note)
    card = registry.cards[0]
    ledger.write_now(lambda c: transitions.advance_counter(c, card.uuid, 1))
    ledger.write_now(lambda c: transitions.hold(c, card.account, 1))
    payment = accept(ledger, registry, "r1", NOW_MS)
    transaction = bind(ledger, payment, NOW_MS)
    ledger.write_now(lambda c: transitions.mark_broadcast(c, [transaction], NOW_MS))
    place = transitions.Confirmed(payment, "0x1", 1, "0x2")
    ledger.write_now(lambda c: transitions.complete(c, [place], {card.account: 1}, 1, NOW_MS))
    ledger.write_now(lambda c: transitions.finish_transaction(c, transaction, 1, "0x2"))
    ledger.read_now(queries.check_invariants)
    ledger.read_now(lambda c: queries.history(c, payment))
    for query, _ in LOOP_QUERIES:
        ledger.read_now(query)
    assert len(seen) > 30
    dialect = URL.create("postgresql").get_dialect()()
    for statement in seen:
        assert str(statement.compile(dialect=dialect))


def test_an_upsert_is_spelt_for_each_engine() -> None:
    upsert = Upsert(
        meta,
        lambda into: into.on_conflict_do_update(
            index_elements=["key"], set_={"value": into.excluded.value}
        ),
    )
    for name in ("sqlite", "postgresql"):
        dialect = URL.create(name).get_dialect()()
        spelt = str(upsert.for_engine(name).compile(dialect=dialect)).replace('"', "")
        assert "ON CONFLICT (key) DO UPDATE SET value = excluded.value" in spelt

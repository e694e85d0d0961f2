"""The queue of mints on both engines: one for each payment, steps guarded, payments untouched."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from taprail_common.payment_state import TRANSITIONS, PaymentEvent, PaymentState, next_state
from taprail_gateway.ledger import (
    actions,
    alerts,
    leases,
    mints,
    outbox,
    queries,
    schema,
    transitions,
)
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.leases import LeaseLostError
from taprail_gateway.ledger.side_queues import SideQueue, report
from taprail_gateway.ledger.transitions import Attempt
from tests.support.ledger_fixtures import (
    NOW_MS,
    Registry,
    lease_of,
    on_both_engines,
    on_postgres,
    seed_registry,
)
from tests.support.ledger_payments import accepted, completed, confirm

on_both = on_both_engines

LANE = "0x" + "bd" * 20
OTHER = "0x" + "be" * 20
RATE = Fraction(1, 10)
AMOUNT = 1_234

_hashes = itertools.count(10_000)


@pytest.fixture
def registry(ledger: Ledger) -> Registry:
    registry = seed_registry(ledger)
    made = {"wrapped_key": b"\1", "next_nonce": 0, "created_at_ms": NOW_MS, "purpose": "rewards"}
    lanes = [{"address": each, **made} for each in (LANE, OTHER)]
    ledger.write_now(lambda c: c.execute(insert(schema.lanes), lanes))
    return registry


def queued(ledger: Ledger, registry: Registry, count: int = 1) -> list[str]:
    ids = completed(ledger, registry, count, amount=AMOUNT)

    def work(connection: Connection) -> None:
        for at_ms, each in enumerate(ids):
            mints.enqueue(connection, each, RATE, NOW_MS + at_ms)

    ledger.write_now(work)
    return ids


def claim(ledger: Ledger, lane: str = LANE, limit: int = 50, now_ms: int = NOW_MS) -> list[str]:
    found = ledger.write_now(lambda c: mints.claim(c, lane, limit, now_ms))
    return [each.payment_id for each in found]


def bind(connection: Connection, ids: Sequence[str]) -> int:
    statement = select(schema.lanes.c.next_nonce).where(schema.lanes.c.address == LANE)
    return mints.bind(
        connection,
        lease_of(connection, LANE),
        nonce=connection.execute(statement).scalar_one(),
        payment_ids=ids,
        attempt=Attempt(f"0x{next(_hashes):064x}", b"signed", 100_000, 2 * 10**9, 10**9),
        at_ms=NOW_MS,
    )


def row(ledger: Ledger, payment: str) -> dict[str, Any]:
    statement = select(schema.mints).where(schema.mints.c.payment_id == payment)
    return dict(ledger.read_now(lambda c: c.execute(statement).one())._mapping)


def reorg(ledger: Ledger, payment: str) -> None:
    ledger.write_now(lambda c: transitions.apply(c, PaymentEvent.REORG, [payment], NOW_MS))


# --- the queue ----------------------------------------------------------------------------------


@on_both
def test_a_reward_is_the_amount_by_the_rate_for_who_paid(
    ledger: Ledger, registry: Registry
) -> None:
    [payment] = queued(ledger, registry)
    found = row(ledger, payment)
    assert (found["amount_units"], found["state"]) == (AMOUNT // 10, "pending")
    assert found["recipient"] == registry.cards[0].account


@on_both
def test_a_payment_is_rewarded_once(ledger: Ledger, registry: Registry) -> None:
    [payment] = queued(ledger, registry)
    ledger.write_now(lambda c: mints.enqueue(c, payment, Fraction(5), NOW_MS))
    assert row(ledger, payment)["amount_units"] == AMOUNT // 10


@on_both
def test_less_than_a_unit_is_nothing(ledger: Ledger, registry: Registry) -> None:
    [payment] = completed(ledger, registry, amount=999)
    ledger.write_now(lambda c: mints.enqueue(c, payment, Fraction(1, 1_000), NOW_MS))
    assert ledger.read_now(mints.counts) == {}


@on_both
def test_the_oldest_go_first_and_stay_with_their_lane(ledger: Ledger, registry: Registry) -> None:
    ids = queued(ledger, registry, 5)
    assert claim(ledger, limit=2) == ids[:2]
    assert claim(ledger, OTHER) == ids[2:]
    assert claim(ledger) == ids[:2]
    assert ledger.read_now(lambda c: mints.waiting(c, LANE, 50, NOW_MS)) == (2, NOW_MS)
    assert ledger.write_now(lambda c: mints.give_back(c, LANE)) == 2
    assert claim(ledger, OTHER) == ids


@on_both
def test_what_is_put_off_waits(ledger: Ledger, registry: Registry) -> None:
    ids = queued(ledger, registry, 2)
    ledger.write_now(lambda c: bind(c, ids[:1]))
    back = partial(mints.apply, event=PaymentEvent.UNBIND, payment_ids=ids[:1], at_ms=NOW_MS)
    ledger.write_now(lambda c: back(c, due_at_ms=NOW_MS + 10, failure_reason="reverted"))
    assert claim(ledger) == ids[1:]
    assert claim(ledger, now_ms=NOW_MS + 10) == ids
    found = row(ledger, ids[0])
    assert (found["bindings"], found["failure_reason"]) == (1, "reverted")


@on_both
def test_a_payment_that_a_reorg_took_back_is_not_rewarded_until_it_completes(
    ledger: Ledger, registry: Registry
) -> None:
    [payment] = queued(ledger, registry)
    reorg(ledger, payment)
    assert claim(ledger) == []
    assert ledger.read_now(lambda c: mints.waiting(c, LANE, 50, NOW_MS)) == (0, None)
    ledger.write_now(partial(confirm, registry=registry, payment_ids=[payment]))
    assert claim(ledger) == [payment]


# --- steps --------------------------------------------------------------------------------------


@on_both
def test_binding_takes_the_nonce_and_needs_the_lease(ledger: Ledger, registry: Registry) -> None:
    ids = queued(ledger, registry, 2)
    lease = ledger.write_now(lambda c: lease_of(c, LANE))
    transaction = ledger.write_now(lambda c: bind(c, ids))
    travelling = ledger.read_now(lambda c: mints.mints_of(c, [transaction, 99]))
    assert [each.payment_id for each in travelling[transaction]] == ids
    assert travelling[99] == []
    with pytest.raises(LeaseLostError):
        ledger.write_now(lambda c: leases.guard(c, lease))
    with pytest.raises(GuardError, match="cannot bind"):
        ledger.write_now(lambda c: bind(c, ids))
    ledger.write_now(lambda c: mints.mark_broadcast(c, [transaction], NOW_MS))
    assert ledger.read_now(mints.counts) == {PaymentState.SENT: 2}
    assert ledger.read_now(queries.check_invariants) == []


def path_to(state: PaymentState) -> list[PaymentEvent]:
    """The shortest way from `pending`, found in the table itself."""
    paths: dict[PaymentState, list[PaymentEvent]] = {PaymentState.PENDING: []}
    waiting = [PaymentState.PENDING]
    for source in waiting:
        for (left, event), target in TRANSITIONS.items():
            if left is source and target not in paths:
                paths[target] = [*paths[source], event]
                waiting.append(target)
    return paths[state]


def step(ledger: Ledger, event: PaymentEvent, payment: str) -> None:
    if event is PaymentEvent.BIND:
        ledger.write_now(lambda c: bind(c, [payment]))
    else:
        ledger.write_now(lambda c: mints.apply(c, event, [payment], NOW_MS))


@on_both
@pytest.mark.parametrize("state", list(PaymentState))
def test_the_whole_table_is_guarded(
    ledger: Ledger, registry: Registry, state: PaymentState
) -> None:
    for event, payment in zip(
        PaymentEvent, queued(ledger, registry, len(PaymentEvent)), strict=True
    ):
        for before in path_to(state):
            step(ledger, before, payment)
        if (state, event) in TRANSITIONS:
            step(ledger, event, payment)
            assert row(ledger, payment)["state"] == next_state(state, event)
        else:
            with pytest.raises(GuardError):
                step(ledger, event, payment)
            assert row(ledger, payment)["state"] == state


@on_both
def test_a_mint_that_is_given_up_tells_somebody_and_leaves_its_payment(
    ledger: Ledger, registry: Registry
) -> None:
    [payment] = queued(ledger, registry)
    before = ledger.read_now(lambda c: queries.payment(c, payment))
    ledger.write_now(lambda c: mints.fail(c, [payment], NOW_MS, "reverted five times"))
    [alert] = ledger.read_now(alerts.open_alerts)
    assert (alert.kind, alert.subject, alert.needs_review) == ("mint_failed", payment, True)
    assert "reverted five times" in alert.text
    assert ledger.read_now(lambda c: queries.payment(c, payment)) == before
    assert claim(ledger) == []


@on_postgres
def test_two_lanes_at_once_claim_each_mint_once(ledger: Ledger, registry: Registry) -> None:
    ids = queued(ledger, registry, 10)
    with ledger.write_engine.begin() as first, ledger.write_engine.begin() as second:
        taken = [
            [each.payment_id for each in mints.claim(connection, lane, 5, NOW_MS)]
            for connection, lane in ((first, LANE), (second, OTHER))
        ]
    assert sorted(taken[0] + taken[1]) == sorted(ids)


def test_a_pending_payment_has_no_reward_yet(ledger: Ledger, registry: Registry) -> None:
    [payment] = accepted(ledger, registry)
    ledger.write_now(lambda c: mints.enqueue(c, payment, Fraction(1), NOW_MS))
    assert claim(ledger) == []


@on_both
def test_what_was_given_up_is_queued_anew_by_hand_and_nothing_else(
    ledger: Ledger, registry: Registry
) -> None:
    ids = queued(ledger, registry, 4)
    ledger.write_now(partial(mints.fail, payment_ids=ids[:3], at_ms=NOW_MS, reason="it reverts"))
    retry = partial(mints.retry_failed, by=By("olga", NOW_MS, "granted"), limit=2)
    assert [ledger.write_now(retry) for _ in range(3)] == [2, 1, 0]
    assert [(row(ledger, each)["state"], row(ledger, each)["bindings"]) for each in ids] == [
        ("pending", 0)
    ] * 4
    assert ledger.read_now(alerts.open_alerts) == []
    assert sorted(claim(ledger)) == sorted(ids)
    noted = ledger.read_now(partial(actions.history, limit=9))
    assert [(each.action, each.after, each.reason) for each in noted] == [
        ("retry-rewards", 1, "granted"),
        ("retry-rewards", 2, "granted"),
    ]
    assert ledger.read_now(queries.check_invariants) == []


@on_both
def test_the_report_counts_what_waits_is_under_way_and_is_over(
    ledger: Ledger, registry: Registry
) -> None:
    ids = queued(ledger, registry, 7)
    for payment, state in zip(ids, PaymentState, strict=False):
        for event in path_to(state):
            step(ledger, event, payment)
    reorg(ledger, ids[-1])  # its reward waits for it
    found = {each.name: each for each in ledger.read_now(partial(report, now_ms=NOW_MS))}
    assert found["mints"] == SideQueue("mints", 1, 1, 3, 1, 1, oldest_ms=NOW_MS)
    later = ledger.read_now(partial(report, now_ms=NOW_MS + 1))
    assert later == list(found.values())


@on_both
def test_callbacks_are_counted_too(ledger: Ledger, registry: Registry) -> None:
    ledger.write_now(partial(outbox.enable, wanted={"reward": [PaymentState.COMPLETED]}))
    completed(ledger, registry, 4)
    done, dead, put_off, _ = ledger.read_now(
        partial(outbox.due, kind="reward", now_ms=NOW_MS, limit=9)
    )

    def work(connection: Connection) -> None:
        outbox.finish(connection, [done.id], NOW_MS)
        outbox.bury(connection, dead, NOW_MS, "no answer")
        outbox.put_off(connection, put_off, NOW_MS + 1, "no answer")

    ledger.write_now(work)
    _mints, callbacks = ledger.read_now(partial(report, now_ms=NOW_MS))
    assert callbacks == SideQueue("callbacks", 1, 1, 0, 1, 1, oldest_ms=NOW_MS)

"""Every step of a payment in SQL, against the one table of states and events."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Select, Table, select, update

from taprail_common.payment_state import (
    HOLDING,
    TRANSITIONS,
    PaymentEvent,
    PaymentState,
    next_state,
)
from taprail_gateway.ledger import queries, standings, transitions, under_way
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.schema import (
    accounts,
    card_spend,
    chain_transactions,
    lanes,
    metadata,
)
from taprail_gateway.ledger.transitions import Attempt, Changes, Confirmed
from tests.support.ledger_fixtures import (
    DAY,
    LANE,
    NOW_MS,
    Registry,
    lease_of,
    on_both_engines,
    seed_registry,
)

pytestmark = on_both_engines

BALANCE = 1_000
AMOUNT = 30
BLOCK_HASH = "0x" + "cc" * 32

_hashes = itertools.count(1)


@pytest.fixture
def registry(ledger: Ledger) -> Registry:
    return seed_registry(ledger, cards=2, balance_units=BALANCE)


def accept(ledger: Ledger, registry: Registry, *requests: str, card: int = 0) -> list[str]:
    """Accepted payments with their holds and their spend, as an authorization leaves them."""
    rows = [registry.payment(each, card=card, amount_units=AMOUNT) for each in requests]
    of = registry.cards[card]

    def work(connection: Connection) -> None:
        for _ in rows:
            assert transitions.reserve_spend(connection, of.uuid, DAY, AMOUNT, BALANCE)
            assert transitions.hold(connection, of.account, AMOUNT)
        transitions.accept(connection, rows, NOW_MS)

    ledger.write_now(work)
    return [row["id"] for row in rows]


def attempt() -> Attempt:
    return Attempt(f"0x{next(_hashes):064x}", b"signed", 100_000, 2 * 10**9, 10**9)


def bind(ledger: Ledger, ids: Sequence[str], *, valid_before_s: int = 600) -> int:
    def work(connection: Connection) -> int:
        nonce = connection.execute(select(lanes.c.next_nonce)).scalar_one()
        return transitions.bind(
            connection,
            lease_of(connection),
            nonce=nonce,
            payment_ids=ids,
            attempt=attempt(),
            valid_before_s=valid_before_s,
            at_ms=NOW_MS + 1,
        )

    return ledger.write_now(work)


PLACE = Changes(tx_hash="0x" + "11" * 32, block_number=0, block_hash=BLOCK_HASH)


def step(ledger: Ledger, event: PaymentEvent, ids: Sequence[str]) -> None:
    if event is PaymentEvent.BIND:
        bind(ledger, ids)
        return
    changes = PLACE if event is PaymentEvent.CONFIRM else Changes()
    ledger.write_now(lambda c: transitions.apply(c, event, ids, NOW_MS + 2, **changes))


BY_A_STRANGER = (PaymentState.PENDING, PaymentEvent.CONFIRM)


def path_to(state: PaymentState) -> list[PaymentEvent]:
    """The shortest way from `pending` to a state by ourselves, found in the table itself."""
    paths: dict[PaymentState, list[PaymentEvent]] = {PaymentState.PENDING: []}
    waiting = [PaymentState.PENDING]
    for source in waiting:
        for (left, event), target in TRANSITIONS.items():
            if left is source and target not in paths and (left, event) != BY_A_STRANGER:
                paths[target] = [*paths[source], event]
                waiting.append(target)
    return paths[state]


def in_state(
    ledger: Ledger, registry: Registry, state: PaymentState, before: PaymentEvent | None = None
) -> str:
    (payment,) = accept(ledger, registry, f"req-{state}")
    carried_out = before is PaymentEvent.REORG_UNBOUND and state is PaymentState.COMPLETED
    for event in [PaymentEvent.CONFIRM] if carried_out else path_to(state):
        step(ledger, event, [payment])
    return payment


def in_order(table: Table) -> Select[Any]:
    return select(table).order_by(*table.primary_key)


def dump(connection: Connection) -> dict[str, list[Any]]:
    return {
        table.name: [tuple(row) for row in connection.execute(in_order(table))]
        for table in metadata.sorted_tables
    }


def state_of(ledger: Ledger, payment: str) -> PaymentState:
    found = ledger.read_now(lambda connection: queries.payment(connection, payment))
    assert found is not None
    return found.state


def money(ledger: Ledger, registry: Registry, card: int = 0) -> tuple[int, int]:
    """What is held of the card's account, and what the card's day counts."""
    of = registry.cards[card]

    def query(connection: Connection) -> tuple[int, int]:
        spent = connection.execute(
            select(card_spend.c.spent_units).where(card_spend.c.card_uuid == of.uuid)
        ).scalar()
        return queries.held_by_account(connection)[of.account], spent or 0

    return ledger.read_now(query)


EVERY_PAIR = list(itertools.product(PaymentState, PaymentEvent))


@pytest.mark.parametrize(("state", "event"), [p for p in EVERY_PAIR if p in TRANSITIONS])
async def test_every_step_of_the_table(
    ledger: Ledger, registry: Registry, state: PaymentState, event: PaymentEvent
) -> None:
    payment = in_state(ledger, registry, state, before=event)
    step(ledger, event, [payment])
    after = next_state(state, event)
    assert state_of(ledger, payment) is after
    last = ledger.read_now(lambda c: queries.history(c, payment))[-1]
    assert (last.event, last.state) == (event, after)
    held, spent = money(ledger, registry)
    assert held == (AMOUNT if after in HOLDING else 0)
    assert spent == (0 if after is PaymentState.FAILED else AMOUNT)
    assert ledger.read_now(queries.check_invariants) == []


@pytest.mark.parametrize(("state", "event"), [p for p in EVERY_PAIR if p not in TRANSITIONS])
async def test_every_step_that_is_not_in_the_table_changes_nothing(
    ledger: Ledger, registry: Registry, state: PaymentState, event: PaymentEvent
) -> None:
    payment = in_state(ledger, registry, state)

    def work(connection: Connection) -> None:
        before = dump(connection)
        with pytest.raises(GuardError, match=payment):
            transitions.apply(connection, event, [payment], NOW_MS, **PLACE)
        assert dump(connection) == before  # by the SQL itself, without any roll-back

    ledger.write_now(work)


async def test_all_take_the_step_or_none(ledger: Ledger, registry: Registry) -> None:
    first, second, third = accept(ledger, registry, "r1", "r2", "r3")
    step(ledger, PaymentEvent.REJECT, [second])
    before = ledger.read_now(dump)
    with pytest.raises(GuardError) as caught:
        step(ledger, PaymentEvent.BIND, [first, second, third, "0xunknown"])
    assert caught.value.subjects == (second, "0xunknown")
    assert ledger.read_now(dump) == before


async def test_more_payments_than_one_statement_takes(ledger: Ledger, registry: Registry) -> None:
    rows = [registry.payment(f"r{i}") for i in range(2_500)]
    total = len(rows)

    def work(connection: Connection) -> None:
        assert transitions.reserve_spend(connection, rows[0]["card_uuid"], DAY, total, total)
        connection.execute(update(accounts).values(balance_units=total))
        assert transitions.hold(connection, rows[0]["payer"], total)
        transitions.accept(connection, rows, NOW_MS)
        ids = [row["id"] for row in rows]
        transitions.apply(connection, PaymentEvent.REJECT, ids + ids[:10], NOW_MS)

    ledger.write_now(work)
    assert money(ledger, registry) == (0, 0)
    assert ledger.read_now(queries.check_invariants) == []
    assert ledger.read_now(queries.last_event_seq) == 2 * total


@pytest.mark.parametrize("event", [PaymentEvent.REJECT, PaymentEvent.DISPROVE])
async def test_a_failed_payment_gives_hold_and_spend_back(
    ledger: Ledger, registry: Registry, event: PaymentEvent
) -> None:
    ids = accept(ledger, registry, "r1", "r2") + accept(ledger, registry, "r3", card=1)
    if event is PaymentEvent.DISPROVE:
        step(ledger, PaymentEvent.BIND, ids)
        step(ledger, PaymentEvent.GIVE_UP, ids)
    assert money(ledger, registry) == (2 * AMOUNT, 2 * AMOUNT)
    step(ledger, event, [ids[0], ids[2]])
    assert money(ledger, registry) == (AMOUNT, AMOUNT)
    assert money(ledger, registry, card=1) == (0, 0)
    assert ledger.read_now(queries.check_invariants) == []


# --- binding ----------------------------------------------------------------------------------


async def test_a_binding_is_one_write(ledger: Ledger, registry: Registry) -> None:
    ids = accept(ledger, registry, "r1", "r2")
    transaction = bind(ledger, ids, valid_before_s=777)
    with ledger.read_engine.begin() as connection:
        (lane,) = queries.all_lanes(connection)
        (open_one,) = queries.open_transactions(connection, LANE)
        (version,) = queries.raw_attempts(connection, [transaction])[transaction]
        travelling = under_way.unsettled(connection, [transaction])[transaction]
    assert lane.next_nonce == 1
    assert (open_one.id, open_one.nonce, open_one.status) == (transaction, 0, "signed")
    assert (version.raw, version.gas_limit) == (b"signed", 100_000)
    assert {each.id for each in travelling} == set(ids)
    assert {each.bindings for each in travelling} == {1}
    assert {each.signed_until_s for each in travelling} == {777}
    assert ledger.read_now(queries.check_invariants) == []


@pytest.mark.parametrize("nonce", [0, 2])
async def test_a_nonce_that_is_not_the_next_binds_nothing(
    ledger: Ledger, registry: Registry, nonce: int
) -> None:
    first, second = accept(ledger, registry, "r1", "r2")
    bind(ledger, [first])
    before = ledger.read_now(dump)
    with pytest.raises(GuardError, match=f"nonce {nonce}"):
        ledger.write_now(
            lambda c: transitions.bind(
                c,
                lease_of(c),
                nonce=nonce,
                payment_ids=[second],
                attempt=attempt(),
                valid_before_s=1,
                at_ms=NOW_MS,
            )
        )
    assert ledger.read_now(dump) == before


async def test_a_broadcast_may_be_told_twice(ledger: Ledger, registry: Registry) -> None:
    first, second = accept(ledger, registry, "r1", "r2")
    transaction = bind(ledger, [first, second])
    step(ledger, PaymentEvent.CONFIRM, [first])  # the receipt was faster than the answer
    for at_ms in (NOW_MS + 5, NOW_MS + 9):
        told = partial(transitions.mark_broadcast, chain_transaction_ids=[transaction], at_ms=at_ms)
        ledger.write_now(told)
    assert state_of(ledger, first) is PaymentState.COMPLETED
    found = ledger.read_now(lambda c: queries.payment(c, second))
    assert found is not None
    assert (found.state, found.sent_at_ms) == (PaymentState.SENT, NOW_MS + 5)
    (travels,) = ledger.read_now(lambda c: queries.open_transactions(c, LANE))
    assert (travels.status, travels.broadcast_at_ms) == ("broadcast", NOW_MS + 5)


async def test_an_unbound_payment_forgets_its_transaction_and_keeps_its_authorizations(
    ledger: Ledger, registry: Registry
) -> None:
    (payment,) = accept(ledger, registry, "r1")
    first = bind(ledger, [payment], valid_before_s=900)
    step(ledger, PaymentEvent.UNBIND, [payment])
    assert ledger.read_now(lambda c: under_way.unsettled(c, [first])) == {first: []}
    bind(ledger, [payment], valid_before_s=800)
    # The proof rule needs the latest of all ever signed, not that of the last one signed.
    found = ledger.read_now(lambda c: queries.payment(c, payment))
    assert found is not None
    assert found.signed_until_s == 900
    assert ledger.read_now(queries.check_invariants) == []


async def test_nothing_is_rejected_before_all_that_was_signed_has_ended(
    ledger: Ledger, registry: Registry
) -> None:
    (payment,) = accept(ledger, registry, "r1")
    bind(ledger, [payment], valid_before_s=900)
    step(ledger, PaymentEvent.UNBIND, [payment])

    def reject(final_time_s: int) -> None:
        ledger.write_now(
            lambda c: transitions.apply(
                c, PaymentEvent.REJECT, [payment], NOW_MS, final_time_s=final_time_s
            )
        )

    with pytest.raises(GuardError, match="reject"):
        reject(899)
    assert state_of(ledger, payment) is PaymentState.PENDING
    reject(900)
    assert state_of(ledger, payment) is PaymentState.FAILED


async def test_a_transaction_is_final_once(ledger: Ledger, registry: Registry) -> None:
    transaction = bind(ledger, accept(ledger, registry, "r1"))

    def finish(connection: Connection) -> None:
        transitions.finish_transactions(connection, [transaction], 7, BLOCK_HASH)

    ledger.write_now(finish)
    assert ledger.read_now(lambda c: queries.open_transactions(c, LANE)) == []
    with pytest.raises(GuardError, match="final"):
        ledger.write_now(finish)
    ledger.write_now(lambda c: standings.reopen_from(c, LANE, 0))
    (again,) = ledger.read_now(lambda c: queries.open_transactions(c, LANE))
    assert again.status == "broadcast"


async def test_a_lane_begins_once_and_can_be_paused(ledger: Ledger, registry: Registry) -> None:
    ledger.write_now(lambda c: c.execute(update(lanes).values(next_nonce=None)).close())
    ledger.write_now(lambda c: transitions.start_lane(c, lease_of(c), 41))
    with pytest.raises(GuardError, match="has begun"):
        ledger.write_now(lambda c: transitions.start_lane(c, lease_of(c), 5))
    ledger.write_now(lambda c: transitions.pause_lane(c, LANE, "no funds"))
    (lane,) = ledger.read_now(queries.all_lanes)
    assert (lane.next_nonce, lane.paused_because) == (41, "no funds")


# --- the snapshot rule ------------------------------------------------------------------------


def snapshot(ledger: Ledger, account: str) -> tuple[int, int, int]:
    """An account's balance, the block that it is of, and what is held of it."""
    columns = select(accounts.c.balance_units, accounts.c.balance_block, accounts.c.held_units)
    row = ledger.read_now(lambda c: c.execute(columns.where(accounts.c.address == account)).one())
    return row[0], row[1], row[2]


def confirmed(payment: str, block: int) -> Confirmed:
    return Confirmed(payment, "0x" + "11" * 32, block, BLOCK_HASH)


async def test_completion_moves_balance_and_hold_in_one_commit(
    ledger: Ledger, registry: Registry
) -> None:
    first, second = accept(ledger, registry, "r1", "r2")
    bind(ledger, [first])
    bind(ledger, [second])
    account = registry.cards[0].account
    ledger.write_now(
        lambda c: transitions.complete(
            c,
            [confirmed(first, 7), confirmed(second, 8)],
            {account: BALANCE - 2 * AMOUNT},
            8,
            NOW_MS + 9,
        )
    )
    assert snapshot(ledger, account) == (940, 8, 0)
    assert money(ledger, registry) == (0, 2 * AMOUNT)  # the day's spend stays counted
    assert ledger.read_now(queries.totals_by_merchant) == {registry.merchant_id: 2 * AMOUNT}
    found = ledger.read_now(lambda c: queries.payment(c, first))
    assert found is not None
    assert (found.block_number, found.completed_at_ms) == (7, NOW_MS + 9)
    assert ledger.read_now(queries.check_invariants) == []


@pytest.mark.parametrize("with_balance", [True, False])
async def test_no_hold_is_released_before_the_snapshot_holds_the_receipt(
    ledger: Ledger, registry: Registry, with_balance: bool
) -> None:
    (payment,) = accept(ledger, registry, "r1")
    bind(ledger, [payment])
    balances = {registry.cards[0].account: BALANCE} if with_balance else {}
    before = ledger.read_now(dump)
    with pytest.raises(GuardError, match="balance older"):
        ledger.write_now(
            lambda c: transitions.complete(c, [confirmed(payment, 8)], balances, 7, NOW_MS)
        )
    assert ledger.read_now(dump) == before


async def test_a_snapshot_never_goes_back(ledger: Ledger, registry: Registry) -> None:
    (payment,) = accept(ledger, registry, "r1")
    bind(ledger, [payment])
    account = registry.cards[0].account
    ledger.write_now(lambda c: transitions.refresh_balances(c, {account: 500}, 20))
    ledger.write_now(
        lambda c: transitions.complete(c, [confirmed(payment, 9)], {account: 999}, 10, NOW_MS)
    )
    assert snapshot(ledger, account) == (500, 20, 0)


async def test_a_reorg_holds_the_money_again_even_beyond_the_balance(
    ledger: Ledger, registry: Registry
) -> None:
    payment = in_state(ledger, registry, PaymentState.COMPLETED)
    account = registry.cards[0].account
    ledger.write_now(lambda c: transitions.refresh_balances(c, {account: 0}, 3))
    step(ledger, PaymentEvent.REORG, [payment])
    assert money(ledger, registry) == (AMOUNT, AMOUNT)
    found = ledger.read_now(lambda c: queries.payment(c, payment))
    assert found is not None
    assert (found.tx_hash, found.block_number, found.completed_at_ms) == (None, None, None)
    assert ledger.read_now(queries.check_invariants) == []


async def test_which_way_a_reorg_goes_depends_on_whether_we_have_a_transaction(
    ledger: Ledger, registry: Registry
) -> None:
    ours = in_state(ledger, registry, PaymentState.COMPLETED)
    (theirs,) = accept(ledger, registry, "carried-out", card=1)
    step(ledger, PaymentEvent.CONFIRM, [theirs])
    before = ledger.read_now(dump)
    for event, payment in ((PaymentEvent.REORG, theirs), (PaymentEvent.REORG_UNBOUND, ours)):
        with pytest.raises(GuardError):
            step(ledger, event, [payment])
    assert ledger.read_now(dump) == before


# --- the invariants can fail ------------------------------------------------------------------

SPOILT = [
    ("UPDATE accounts SET held_units = held_units + 1", "holds 31 units"),
    ("UPDATE card_spend SET spent_units = spent_units + 1", "has spent 31 units"),
    ("DELETE FROM card_spend", "no spend on"),
    ("UPDATE lanes SET next_nonce = 7", "would use nonce 7 after 0"),
    ("DELETE FROM attempts", "no signed bytes for nonce 0"),
    ("DELETE FROM bindings", "without a transaction"),
    ("UPDATE payments SET bindings = 2", "counts 2 bindings, 1 are stored"),
    ("UPDATE payment_events SET state = 'failed'", "last event led to failed"),
]


@pytest.mark.parametrize(("sql", "complaint"), SPOILT)
async def test_a_spoilt_ledger_is_noticed(
    ledger: Ledger, registry: Registry, sql: str, complaint: str
) -> None:
    bind(ledger, accept(ledger, registry, "r1"))
    assert ledger.read_now(queries.check_invariants) == []
    ledger.write_now(lambda c: c.exec_driver_sql(sql).close())
    assert any(complaint in each for each in ledger.read_now(queries.check_invariants))


async def test_a_gap_in_a_lane_is_noticed(ledger: Ledger, registry: Registry) -> None:
    for request in ("r1", "r2", "r3"):
        bind(ledger, accept(ledger, registry, request))
    ledger.write_now(
        lambda c: c.execute(
            update(chain_transactions).where(chain_transactions.c.nonce == 1).values(nonce=-5)
        ).close()
    )
    problems = ledger.read_now(queries.check_invariants)
    assert any("3 transactions for the nonces -5 to 2" in each for each in problems)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE payments SET state = 'sent'",
        "UPDATE payments SET state = 'completed'",
        "UPDATE payments SET amount_units = 0",
        "UPDATE accounts SET held_units = -1",
        "UPDATE card_spend SET spent_units = -1",
    ],
)
async def test_the_schema_itself_refuses_the_impossible(
    ledger: Ledger, registry: Registry, sql: str
) -> None:
    accept(ledger, registry, "r1")
    with pytest.raises(Exception, match=r"(?i)check constraint"):
        ledger.write_now(lambda c: c.exec_driver_sql(sql).close())

"""Rewards to payers: the queue of mints, and every step between their states, guarded in SQL.

One mint for each payment at most, ever. It takes the steps of a payment's state table, bound to the
lanes of purpose `rewards`; but the contract itself skips what it has minted before, so a mint may
go round again without any proof, and there are no funds to hold. It waits while its payment is
anything but completed: a reorg may have taken that back.

A mint that fails is tried again later, some times, and is then `failed`, with an alert. Nothing
here touches a payment. Every function works inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Final, TypedDict, Unpack

from sqlalchemy import ColumnElement, Connection, bindparam, func, or_, select, update

from taprail_common.payment_state import SETTLED, PaymentEvent, PaymentState, sources_of, target_of
from taprail_gateway.ledger.actions import By, note
from taprail_gateway.ledger.alerts import clear_alerts, raise_alerts
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.funds import NO_DAY
from taprail_gateway.ledger.leases import Lease
from taprail_gateway.ledger.nonces import Attempt, store_transaction
from taprail_gateway.ledger.prepared import Prepared, prepared
from taprail_gateway.ledger.schema import (
    chain_transactions,
    mint_is_open,
    mints,
    payments,
    transaction_is_open,
)
from taprail_gateway.ledger.schema_base import literal
from taprail_gateway.ledger.upserts import Insert, Upsert

FAILED_ALERT: Final = "mint_failed"

_m = mints.c
_STAMPS: Final = {
    PaymentEvent.BIND: "processing_at_ms",
    PaymentEvent.BROADCAST: "sent_at_ms",
    PaymentEvent.CONFIRM: "completed_at_ms",
}
_NO_BLOCK: Final = {"tx_hash": None, "block_number": None, "block_hash": None}
_FORGETS: Final[dict[PaymentEvent, dict[str, object]]] = {
    PaymentEvent.BIND: {"due_at_ms": None},
    PaymentEvent.UNBIND: {"chain_transaction_id": None, "lane": None},
    PaymentEvent.CONFIRM: {"failure_reason": None},
    PaymentEvent.REORG: {"completed_at_ms": None, **_NO_BLOCK},
}


class Changes(TypedDict, total=False):
    """What a step may set beside the state."""

    chain_transaction_id: int
    lane: str
    tx_hash: str
    block_number: int
    block_hash: str
    due_at_ms: int
    failure_reason: str


@dataclass(frozen=True, slots=True)
class Mint:
    """A mint, as its lane and its confirmation need it."""

    payment_id: str
    recipient: str
    amount_units: int
    state: PaymentState
    bindings: int
    created_at_ms: int
    chain_transaction_id: int | None


def enqueue(connection: Connection, payment_id: str, rate: Fraction, at_ms: int) -> None:
    """Queue the reward of a payment: its amount by the rate, rounded down, to who paid.

    Nothing happens when it is queued already, when it comes to less than a unit, or for a refund.
    """
    ((payer, paid_units, spend_day),) = _PAID.rows(connection, {"which": payment_id})
    if spend_day == NO_DAY:
        return
    units = paid_units * rate.numerator // rate.denominator
    if units > 0:
        row = {"payment": payment_id, "to": payer, "units": units, "at_ms": at_ms}
        _ENQUEUE.run(connection, row)


def _enqueue(insert: Insert) -> Insert:
    return insert.values(
        payment_id=bindparam("payment"),
        recipient=bindparam("to"),
        amount_units=bindparam("units"),
        state=literal(PaymentState.PENDING.value),
        created_at_ms=bindparam("at_ms"),
    ).on_conflict_do_nothing(index_elements=["payment_id"])


_PAID: Final = prepared(
    select(payments.c.payer, payments.c.amount_units, payments.c.spend_day).where(
        payments.c.id == bindparam("which")
    )
)
_ENQUEUE: Final = Prepared(Upsert(mints, _enqueue).statement)


# --- what a lane takes on -----------------------------------------------------------------------


def claim(connection: Connection, lane: str, limit: int, now_ms: int) -> list[Mint]:
    """What this lane should mint next, at most so many, the oldest first; it keeps them."""
    free = (
        select(_m.payment_id)
        .where(is_ready(now_ms), or_(_m.lane.is_(None), _m.lane == lane))
        .order_by(_m.created_at_ms)
        .limit(limit)
        .with_for_update(skip_locked=True, of=mints)
    )
    ids = list(connection.execute(free).scalars())
    connection.execute(update(mints).where(_m.payment_id.in_(ids)).values(lane=lane))
    return _all(connection, _m.payment_id.in_(ids))


def give_back(connection: Connection, lane: str) -> int:
    """Let other lanes have what this one has claimed and not bound; how many there were."""
    statement = update(mints).where(_is_pending(), _m.lane == lane).values(lane=None)
    return connection.execute(statement).rowcount


def waiting(connection: Connection, lane: str, limit: int, now_ms: int) -> tuple[int, int | None]:
    """How many mints a lane could take on now, counted up to a limit, and since when (ms)."""
    mine = or_(_m.lane.is_(None), _m.lane == lane)
    first = select(_m.created_at_ms).where(is_ready(now_ms), mine).limit(limit).subquery()
    oldest_ms = func.min(first.c.created_at_ms)
    count, since_ms = connection.execute(select(func.count(), oldest_ms).select_from(first)).one()
    return count, since_ms


def _is_pending() -> ColumnElement[bool]:
    return mint_is_open & (_m.state == PaymentState.PENDING.value)


def is_ready(now_ms: int) -> ColumnElement[bool]:
    """Pending, due, and of a payment that is completed."""
    is_paid = (
        select(payments.c.id)
        .where(payments.c.id == _m.payment_id, payments.c.state == PaymentState.COMPLETED.value)
        .exists()
    )
    return _is_pending() & or_(_m.due_at_ms.is_(None), _m.due_at_ms <= now_ms) & is_paid


# --- steps --------------------------------------------------------------------------------------


def bind(
    connection: Connection,
    lease: Lease,
    *,
    nonce: int,
    payment_ids: Sequence[str],
    attempt: Attempt,
    at_ms: int,
) -> int:
    """Give a lane's pending mints a transaction of that lane; its row's id. All of it or none."""
    transaction = store_transaction(connection, lease, nonce, attempt, at_ms)
    apply(
        connection,
        PaymentEvent.BIND,
        payment_ids,
        at_ms,
        chain_transaction_id=transaction,
        lane=lease.lane,
    )
    return transaction


def mark_broadcast(
    connection: Connection, chain_transaction_ids: Sequence[int], at_ms: int
) -> None:
    """Note that a node took these transactions; what has gone further stays as it is."""
    _move(connection, PaymentEvent.BROADCAST, _in_transactions(chain_transaction_ids), at_ms, {})


def apply(
    connection: Connection,
    event: PaymentEvent,
    payment_ids: Sequence[str],
    at_ms: int,
    **changes: Unpack[Changes],
) -> None:
    """Take one step with all of these mints, or raise GuardError naming those that cannot."""
    moved = _move(connection, event, _m.payment_id.in_(payment_ids), at_ms, changes)
    missing = [each for each in payment_ids if each not in moved]
    if missing:
        raise GuardError(f"these mints cannot {event}", missing)


def fail(connection: Connection, payment_ids: Sequence[str], at_ms: int, reason: str) -> None:
    """Give mints up that are pending, with an alert each."""
    apply(connection, PaymentEvent.REJECT, payment_ids, at_ms, failure_reason=reason)
    texts = [(each, f"the reward was not minted: {reason}") for each in payment_ids]
    raise_alerts(connection, FAILED_ALERT, texts, "error", at_ms, needs_review=True)


def retry_failed(connection: Connection, by: By, limit: int) -> int:
    """Queue mints anew that were given up, at most so many; how many there were.

    The one step that the state table does not have: payments never leave `failed`, because their
    funds were given back. Nothing was given back here, and the contract mints once in any case.
    """
    failed = select(_m.payment_id).where(_m.state == PaymentState.FAILED.value)
    ids = list(connection.scalars(failed.limit(limit).with_for_update()))
    if ids:
        anew = {"state": PaymentState.PENDING.value, "bindings": 0, "due_at_ms": None}
        connection.execute(update(mints).where(_m.payment_id.in_(ids)).values(anew))
        clear_alerts(connection, FAILED_ALERT, ids, by.at_ms)
        note(connection, "retry-rewards", "rewards", by, after=len(ids))
    return len(ids)


def _move(
    connection: Connection,
    event: PaymentEvent,
    which: ColumnElement[bool],
    at_ms: int,
    changes: Changes,
) -> set[str]:
    values: dict[str, object] = {"state": target_of(event).value, **_FORGETS.get(event, {})}
    if event in _STAMPS:
        values[_STAMPS[event]] = at_ms
    if event is PaymentEvent.BIND:
        values["bindings"] = _m.bindings + 1
    sources = [state.value for state in sorted(sources_of(event))]
    statement = (
        update(mints)
        .where(which, _m.state.in_(sources))
        .values({**values, **changes})
        .returning(_m.payment_id)
    )
    return set(connection.execute(statement).scalars())


# --- what is under way --------------------------------------------------------------------------


def mints_of(connection: Connection, chain_transaction_ids: Sequence[int]) -> dict[int, list[Mint]]:
    """The mints that travel in each of these transactions now; an entry for each of them."""
    travelling: dict[int, list[Mint]] = {each: [] for each in chain_transaction_ids}
    for each in _all(connection, _in_transactions(chain_transaction_ids)):
        if each.chain_transaction_id is not None:
            travelling[each.chain_transaction_id].append(each)
    return travelling


def unsettled(
    connection: Connection, chain_transaction_ids: Sequence[int]
) -> dict[int, list[Mint]]:
    """The mints in these transactions that are not made yet; an entry for each of them."""
    travelling = mints_of(connection, chain_transaction_ids)
    return {
        transaction: [mint for mint in found if mint.state not in SETTLED]
        for transaction, found in travelling.items()
    }


def under_way(connection: Connection, lane: str, limit: int) -> int:
    """How many mints are bound to this lane and not settled, counted up to a limit."""
    travelling = [PaymentState.PROCESSING.value, PaymentState.SENT.value]
    first = (
        select(_m.payment_id)
        .where(mint_is_open, _m.state.in_(travelling), _m.lane == lane)
        .limit(limit)
        .subquery()
    )
    return int(connection.scalar(select(func.count()).select_from(first)) or 0)


def completed_in_open(connection: Connection, lane: str) -> list[str]:
    """What stands as minted in a transaction of this lane that a reorg has opened again."""
    t = chain_transactions.c
    statement = (
        select(_m.payment_id)
        .join(chain_transactions, _m.chain_transaction_id == t.id)
        .where(t.lane == lane, transaction_is_open, _m.state == PaymentState.COMPLETED.value)
    )
    return list(connection.execute(statement).scalars())


def counts(connection: Connection) -> dict[PaymentState, int]:
    """How many mints are in each open state; states without any are left out."""
    statement = select(_m.state, func.count()).where(mint_is_open).group_by(_m.state)
    return {PaymentState(state): count for state, count in connection.execute(statement)}


def _in_transactions(chain_transaction_ids: Sequence[int]) -> ColumnElement[bool]:
    return _m.chain_transaction_id.in_(chain_transaction_ids)


def _all(connection: Connection, which: ColumnElement[bool]) -> list[Mint]:
    statement = (
        select(*(_m[field.name] for field in fields(Mint)))
        .where(which)
        .order_by(_m.created_at_ms, _m.payment_id)
    )
    rows = connection.execute(statement).mappings()
    return [Mint(**{**row, "state": PaymentState(row["state"])}) for row in rows]

"""Every change of a payment's state, guarded in SQL.

A step names the states that it may leave; when the row is not in one of them, nothing is changed
and GuardError is raised. So two who race for one payment cannot both win, whoever they are. Every
function works inside the caller's transaction, and its errors are meant to undo that transaction.

Funds are held in the states of HOLDING. The step that leaves them gives the hold back: on `confirm`
only once the account's balance snapshot has moved past the block of the receipt (else the same
money would be there twice), on `reject` and `disprove` at once, together with the day's spend.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypedDict, Unpack

from sqlalchemy import ColumnElement, Connection, insert, true, update

from taprail_common.payment_state import PaymentEvent, PaymentState, sources_of, target_of
from taprail_gateway.ledger import outbox, payment_alerts, refund_shares
from taprail_gateway.ledger.claims import rank_ms, will_sign
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.funds import (
    Charge,
    hold_again,
    refresh_balances,
    release,
    return_spend,
    return_spends,
)
from taprail_gateway.ledger.leases import Lease
from taprail_gateway.ledger.nonces import (
    Attempt,
    add_attempt,
    finish_transactions,
    pause_lane,
    start_lane,
    store_transaction,
)
from taprail_gateway.ledger.prepared import prepared
from taprail_gateway.ledger.reservations import advance_counter, hold, reserve_spend
from taprail_gateway.ledger.schema import bindings, chain_transactions, payment_events, payments

__all__ = [
    "ACCEPTED",
    "Attempt",
    "Changes",
    "Confirmed",
    "accept",
    "add_attempt",
    "advance_counter",
    "apply",
    "bind",
    "complete",
    "finish_transactions",
    "hold",
    "mark_broadcast",
    "pause_lane",
    "refresh_balances",
    "reserve_spend",
    "return_spend",
    "start_lane",
    "store_transaction",
]

ACCEPTED: Final = "accept"
"""The event of a payment's first row; the state table begins after it."""

# SQLite takes 32,766 parameters a statement (https://sqlite.org/limits.html), PostgreSQL 65,535.
_IDS_PER_STATEMENT: Final = 1_000

_STAMPS: Final = {
    PaymentEvent.BIND: "processing_at_ms",
    PaymentEvent.BROADCAST: "sent_at_ms",
    PaymentEvent.CONFIRM: "completed_at_ms",
}
_NO_BLOCK: Final = {"tx_hash": None, "block_number": None, "block_hash": None}
# What is no longer true after a step, so that nobody reads it as if it were.
_FORGETS: Final[dict[PaymentEvent, Mapping[str, object]]] = {
    PaymentEvent.BIND: {"due_at_ms": None, "preflights": 0, "failure_reason": None},
    # Its lane may be the one that is in trouble.
    PaymentEvent.UNBIND: {"chain_transaction_id": None, "lane": None},
    PaymentEvent.RETRY: {"chain_transaction_id": None, "failure_reason": None, "lane": None},
    PaymentEvent.CONFIRM: {"failure_reason": None},
    PaymentEvent.REORG: {"completed_at_ms": None, **_NO_BLOCK},
    PaymentEvent.REORG_UNBOUND: {"completed_at_ms": None, **_NO_BLOCK},
}
# Whoever is `sent` must have a transaction: a payment that was carried out without one of ours has
# no such step, and only that has the other one.
_ONLY: Final[dict[PaymentEvent, ColumnElement[bool]]] = {
    PaymentEvent.REORG: payments.c.chain_transaction_id.is_not(None),
    PaymentEvent.REORG_UNBOUND: payments.c.chain_transaction_id.is_(None),
}
_REORGS: Final = frozenset(_ONLY)


class Changes(TypedDict, total=False):
    """What a step may set beside the state; `confirm` needs the three that say where."""

    chain_transaction_id: int
    tx_hash: str
    block_number: int
    block_hash: str
    failure_reason: str
    lane: str


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A payment whose transfer is final, and where: the transaction that moved the money."""

    payment_id: str
    tx_hash: str
    block_number: int
    block_hash: str


_GIVEN: Final = (
    *("id", "requester", "request_id", "terminal_id", "merchant_id", "card_uuid", "user_id"),
    *("payer", "payee", "amount_units", "currency", "profile", "priority", "auth_code"),
    *("spend_day", "tapped_at_ms", "signed_until_s"),
)
_INSERT_PAYMENT: Final = prepared(insert(payments), [*_GIVEN, "state", "created_at_ms", "rank_ms"])
_INSERT_EVENT: Final = prepared(
    insert(payment_events), ["payment_id", "event", "state", "at_ms", "detail"]
)


def accept(connection: Connection, new: Sequence[Mapping[str, object]], at_ms: int) -> None:
    """Store new payments as `pending`, with their first event.

    Each row holds the columns of `payments` up to `tapped_at_ms`; state and times are set here. One
    that came signed says until when (`signed_until_s`), so that nobody takes it for unsigned. Its
    hold and its spend are the caller's, in the same transaction.
    """
    if not new:
        return
    _INSERT_PAYMENT.run_each(connection, [_started(row, at_ms) for row in new])
    ids = [str(row["id"]) for row in new]
    _write_events(connection, ids, ACCEPTED, PaymentState.PENDING, at_ms, None)


def _started(row: Mapping[str, object], at_ms: int) -> dict[str, object]:
    rank = rank_ms(at_ms, int(str(row["priority"])))
    started = {"state": PaymentState.PENDING.value, "created_at_ms": at_ms, "rank_ms": rank}
    return {"signed_until_s": 0, **row, **started}


def apply(
    connection: Connection,
    event: PaymentEvent,
    payment_ids: Sequence[str],
    at_ms: int,
    *,
    detail: str | None = None,
    final_time_s: int = 0,
    **changes: Unpack[Changes],
) -> None:
    """Take one step with all of these payments, or raise GuardError naming those that cannot.

    `reject` wants proof: nothing was ever signed, or all of it had ended by `final_time_s`, the
    time of a final block up to which no transfer was found. `confirm` also fails when a payer's
    balance snapshot is older than the receipt's block: see `complete`, which brings both.
    """
    ids = list(dict.fromkeys(payment_ids))
    moved: dict[str, Charge] = {}
    for some in _chunks(ids):
        which: ColumnElement[bool] = payments.c.id.in_(some)
        if event is PaymentEvent.REJECT:
            which &= payments.c.signed_until_s <= final_time_s
        which &= _ONLY.get(event, true())
        moved |= _move(connection, event, which, at_ms, changes)
    missing = [each for each in ids if each not in moved]
    if missing:
        raise GuardError(f"cannot {event}", missing)
    _write_events(connection, ids, event, target_of(event), at_ms, detail)
    if given_back := [each for each, charge in moved.items() if charge.is_refund]:
        refund_shares.follow(connection, event, given_back)
    _move_funds(connection, event, list(moved.values()), changes)
    outbox.follow(connection, event, ids, at_ms)
    payment_alerts.follow(connection, event, ids, at_ms)


def _move(
    connection: Connection,
    event: PaymentEvent,
    which: ColumnElement[bool],
    at_ms: int,
    changes: Changes,
) -> dict[str, Charge]:
    """Change the states of those rows that the event is allowed for; these, by their ids."""
    values: dict[str, object] = {"state": target_of(event).value, **_FORGETS.get(event, {})}
    if event in _STAMPS:
        values[_STAMPS[event]] = at_ms
    if event is PaymentEvent.BIND:
        values["bindings"] = payments.c.bindings + 1
    sources = [state.value for state in sorted(sources_of(event))]
    statement = (
        update(payments)
        .where(which, payments.c.state.in_(sources))
        .values({**values, **changes})
        .returning(
            payments.c.id,
            payments.c.payer,
            payments.c.card_uuid,
            payments.c.spend_day,
            payments.c.amount_units,
        )
    )
    return {row[0]: Charge(*row[1:]) for row in connection.execute(statement)}


def _write_events(
    connection: Connection,
    payment_ids: Sequence[str],
    event: str,
    state: PaymentState,
    at_ms: int,
    detail: str | None,
) -> None:
    if not payment_ids:
        return
    same = {"event": str(event), "state": state.value, "at_ms": at_ms, "detail": detail}
    _INSERT_EVENT.run_each(connection, [{"payment_id": each, **same} for each in payment_ids])


def _chunks(payment_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(payment_ids), _IDS_PER_STATEMENT):
        yield payment_ids[start : start + _IDS_PER_STATEMENT]


def complete(
    connection: Connection,
    confirmed: Sequence[Confirmed],
    balances: Mapping[str, int],
    block_number: int,
    at_ms: int,
) -> None:
    """Confirm payments together with the balances at a block that holds their receipts.

    Every payer's snapshot must then be at or past its receipt's block (in `balances`, or by an
    earlier call), or GuardError: only so may its hold be given back in this commit.
    """
    refresh_balances(connection, balances, block_number)
    by_place: defaultdict[tuple[str, int, str], list[str]] = defaultdict(list)
    for each in confirmed:
        place = (each.tx_hash, each.block_number, each.block_hash)
        by_place[place].append(each.payment_id)
    for (tx_hash, block, block_hash), ids in by_place.items():
        apply(
            connection,
            PaymentEvent.CONFIRM,
            ids,
            at_ms,
            tx_hash=tx_hash,
            block_number=block,
            block_hash=block_hash,
        )


def _move_funds(
    connection: Connection, event: PaymentEvent, charges: Sequence[Charge], changes: Changes
) -> None:
    """Give back or take again what the step does to holds and spend: see the module."""
    if event is PaymentEvent.CONFIRM:
        release(connection, charges, snapshot_from=changes["block_number"])
    elif event in {PaymentEvent.REJECT, PaymentEvent.DISPROVE}:
        release(connection, charges, snapshot_from=0)
        return_spends(connection, charges)
    elif event in _REORGS:
        hold_again(connection, charges)


def bind(
    connection: Connection,
    lease: Lease,
    *,
    nonce: int,
    payment_ids: Sequence[str],
    attempt: Attempt,
    valid_before_s: int,
    at_ms: int,
    own_ends_s: Mapping[str, int] = MappingProxyType({}),
) -> int:
    """Give a lane's pending payments a transaction of that lane; its row's id.

    What is signed for them ends at `valid_before_s`, or, for those that came signed, at a time of
    their own. All of it happens or none: see `store_transaction`.
    """
    transaction = store_transaction(connection, lease, nonce, attempt, at_ms)
    apply(
        connection,
        PaymentEvent.BIND,
        payment_ids,
        at_ms,
        chain_transaction_id=transaction,
        lane=lease.lane,
    )
    ours = [each for each in payment_ids if each not in own_ends_s]
    will_sign(connection, ours, valid_before_s)
    ends_s = {**dict.fromkeys(ours, valid_before_s), **own_ends_s}
    rows = [
        {"payment_id": each, "chain_transaction_id": transaction, "valid_before_s": end_s}
        for each, end_s in ends_s.items()
    ]
    connection.execute(insert(bindings), rows)
    return transaction


def mark_broadcast(
    connection: Connection, chain_transaction_ids: Sequence[int], at_ms: int
) -> None:
    """Note that a node took these transactions: their payments that are `processing` are `sent`.

    What has gone further meanwhile stays as it is, so a repeated broadcast may say so again.
    """
    connection.execute(
        update(chain_transactions)
        .where(
            chain_transactions.c.id.in_(chain_transaction_ids),
            chain_transactions.c.status == "signed",
        )
        .values(status="broadcast", broadcast_at_ms=at_ms)
    )
    theirs = payments.c.chain_transaction_id.in_(chain_transaction_ids)
    moved = _move(connection, PaymentEvent.BROADCAST, theirs, at_ms, {})
    _write_events(
        connection,
        list(moved),
        PaymentEvent.BROADCAST,
        PaymentState.SENT,
        at_ms,
        None,
    )

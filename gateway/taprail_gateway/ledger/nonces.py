"""Transactions of the lanes: nonces, signed bytes, and where each has become final.

A nonce belongs to one transaction for life, and it is given in the commit that stores the signed
bytes: so every nonce below a lane's next has bytes that can be sent again. Each function works
inside the caller's transaction; its GuardError is meant to undo that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import Connection, Executable, func, insert, select, update

from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.leases import Lease, guard
from taprail_gateway.ledger.queries import OpenTransaction
from taprail_gateway.ledger.schema import (
    attempts,
    chain_transactions,
    lanes,
    transaction_is_open,
)

# SQLite takes 32,766 parameters a statement (https://sqlite.org/limits.html), PostgreSQL 65,535.
_IDS_PER_STATEMENT: Final = 1_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """One signed version of a transaction; `raw` is what goes to a node, byte for byte."""

    tx_hash: str
    raw: bytes
    gas_limit: int
    max_fee_wei: int
    priority_fee_wei: int
    kind: str = "payload"
    """`payload`, or `noop`: one that only uses up the nonce."""


def start_lane(connection: Connection, lease: Lease, first_nonce: int) -> None:
    """Give a new lane the nonce that the chain expects next; raises GuardError for one begun."""
    guard(connection, lease)
    statement = update(lanes).where(lanes.c.address == lease.lane, lanes.c.next_nonce.is_(None))
    _change_one(
        connection, statement.values(next_nonce=first_nonce), "the lane has begun", lease.lane
    )


def skip_nonces(connection: Connection, lease: Lease, next_nonce: int) -> None:
    """Go on behind nonces that somebody else has used; GuardError when that would go back."""
    guard(connection, lease)
    statement = update(lanes).where(lanes.c.address == lease.lane, lanes.c.next_nonce <= next_nonce)
    _change_one(
        connection, statement.values(next_nonce=next_nonce), "the lane is further", lease.lane
    )


def pause_lane(connection: Connection, lane: str, because: str | None) -> None:
    """Keep a lane from sending and say why, or let it send again: by hand, whatever was before."""
    statement = update(lanes).where(lanes.c.address == lane).values(paused_because=because)
    _change_one(connection, statement, "no such lane", lane)


def change_pause(
    connection: Connection, lease: Lease, was: str | None, because: str | None
) -> bool:
    """Pause a lane or let it send again, if it still is as it `was`; False, and nothing changed,
    when somebody was faster: a pause by hand is never lifted or explained away by a loop."""
    guard(connection, lease)
    unchanged = update(lanes).where(
        lanes.c.address == lease.lane, lanes.c.paused_because.is_not_distinct_from(was)
    )
    return connection.execute(unchanged.values(paused_because=because)).rowcount == 1


def store_transaction(
    connection: Connection, lease: Lease, nonce: int, attempt: Attempt, at_ms: int
) -> int:
    """Store a transaction that is signed for a lane's next nonce, and move the nonce; its row's id.

    The nonce was read before it was signed: unless it still is the next and the lane still ours,
    GuardError. The bytes may leave only after the commit.
    """
    guard(connection, lease)
    lane = lease.lane
    guarded = update(lanes).where(lanes.c.address == lane, lanes.c.next_nonce == nonce)
    _change_one(connection, guarded.values(next_nonce=nonce + 1), f"nonce {nonce} is taken", lane)
    return _insert(connection, lane, nonce, attempt, at_ms)


def gap_at(connection: Connection, lane: str, nonce: int, limit: int) -> range:
    """The nonces from this one on that a lane has skipped: those below its next one that have no
    transaction of ours, up to the first that has one, at most so many."""
    t = chain_transactions.c
    next_nonce = connection.scalar(select(lanes.c.next_nonce).where(lanes.c.address == lane))
    taken = select(func.min(t.nonce)).where(t.lane == lane, t.nonce >= nonce)
    ends = [each for each in (next_nonce, connection.scalar(taken)) if each is not None]
    return range(nonce, min([*ends, nonce + limit]) if ends else nonce)


def fill_gap(
    connection: Connection, lease: Lease, noops: Mapping[int, Attempt], at_ms: int
) -> list[int]:
    """Store a transaction for each of these nonces; their rows' ids. GuardError unless all of them,
    one after the other, were skipped."""
    guard(connection, lease)
    wanted = list(noops)
    if wanted != list(gap_at(connection, lease.lane, wanted[0], len(wanted))):
        raise GuardError(f"not all of the nonces from {wanted[0]} on were skipped", [lease.lane])
    return [
        _insert(connection, lease.lane, nonce, attempt, at_ms) for nonce, attempt in noops.items()
    ]


def _insert(connection: Connection, lane: str, nonce: int, attempt: Attempt, at_ms: int) -> int:
    row = {"lane": lane, "nonce": nonce, "status": "signed", "created_at_ms": at_ms}
    (transaction,) = connection.execute(
        insert(chain_transactions).values(row).returning(chain_transactions.c.id)
    ).one()
    add_attempt(connection, transaction, attempt, at_ms)
    return int(transaction)


def add_attempt(
    connection: Connection, chain_transaction_id: int, attempt: Attempt, at_ms: int
) -> None:
    """Store one more signed version of a transaction (a higher fee, a no-op) before it is sent."""
    connection.execute(
        insert(attempts).values(
            chain_transaction_id=chain_transaction_id,
            tx_hash=attempt.tx_hash,
            raw=attempt.raw,
            gas_limit=attempt.gas_limit,
            max_fee_wei=attempt.max_fee_wei,
            priority_fee_wei=attempt.priority_fee_wei,
            kind=attempt.kind,
            created_at_ms=at_ms,
        )
    )


def finish_transactions(
    connection: Connection, ids: Sequence[int], block_number: int, block_hash: str
) -> None:
    """Note that transactions are final in a block; GuardError when one already is."""
    for start in range(0, len(ids), _IDS_PER_STATEMENT):
        some = ids[start : start + _IDS_PER_STATEMENT]
        statement = (
            update(chain_transactions)
            .where(chain_transactions.c.id.in_(some), chain_transactions.c.status != "final")
            .values(status="final", block_number=block_number, block_hash=block_hash)
        )
        if connection.execute(statement).rowcount != len(some):
            raise GuardError("a transaction is final already", some)


def open_from(
    connection: Connection,
    lane: str,
    first_nonce: int,
    limit: int,
    *,
    status: str | None = None,
    rescue_asked: bool = False,
) -> list[OpenTransaction]:
    """A lane's transactions that are not final, from a nonce on, in their order; if wanted, only
    those in a status, or those that an operator wants to be sent anew."""
    t = chain_transactions.c
    statement = select(*(t[field.name] for field in fields(OpenTransaction))).where(
        t.lane == lane, transaction_is_open, t.nonce >= first_nonce
    )
    if status is not None:
        statement = statement.where(t.status == status)
    if rescue_asked:
        statement = statement.where(t.rescue_asked_at_ms.is_not(None))
    return [
        OpenTransaction(*row)
        for row in connection.execute(statement.order_by(t.nonce).limit(limit))
    ]


def lowest_open(connection: Connection, lane: str) -> int | None:
    """The lowest nonce of a lane that is not final; None when nothing is under way."""
    t = chain_transactions.c
    statement = select(t.nonce).where(t.lane == lane, transaction_is_open).order_by(t.nonce)
    return connection.execute(statement.limit(1)).scalar()


def _change_one(
    connection: Connection, statement: Executable, otherwise: str, subject: object
) -> None:
    if connection.execute(statement).rowcount != 1:
        raise GuardError(otherwise, [subject])

"""Leases: what only one gateway may do at a time, and the proof that it still may.

A lease has a name (a lane, the outbox …), one owner for some seconds, and a fence: a number that
grows with each new owner. An owner may be stopped for longer than its lease lasts and then go on
in the middle of a sentence; so holding a lease proves nothing by itself. `guard` inside the write
does: it finds out whether the fence is still the same, and keeps it so until the commit.

One process on an SQLite file is proven by its lock, so there a new process need not wait for the
end of a lease whose owner must be dead (`takeover`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    bindparam,
    cast,
    func,
    literal,
    or_,
    select,
    update,
)

from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.prepared import Prepared
from taprail_gateway.ledger.schema import leases
from taprail_gateway.ledger.upserts import Insert, Upsert

TTL_MS: Final = 10_000
"""Long enough for a slow renewal or two, short enough that a dead gateway's work is soon taken."""

LANE_PREFIX: Final = "lane:"


class LeaseLostError(GuardError):
    """Another gateway has the lease: whatever was to be written is no longer ours to write."""

    code = "lease_lost"


@dataclass(frozen=True, slots=True)
class Lease:
    """A right as it was given; `guard` tells whether it still holds."""

    name: str
    owner: str
    fence: int

    @property
    def lane(self) -> str:
        """The lane's address, of a lane's lease."""
        return self.name.removeprefix(LANE_PREFIX)


def lane_lease(address: str) -> str:
    """The name of a lane's lease."""
    return LANE_PREFIX + address


def acquire(
    connection: Connection, name: str, owner: str, now_ms: int, *, takeover: bool = False
) -> Lease | None:
    """Take a lease that is free, has run out, or (`takeover`) whose owner must be dead."""
    _CREATE.run(connection, {"name": name, "zero": 0})
    now = clock_ms(connection, now_ms)
    free = [leases.c.owner.is_(None), leases.c.until_ms < now]
    if takeover:
        free.append(leases.c.owner != owner)
    statement = (
        update(leases)
        .where(leases.c.name == name, or_(*free))
        .values(owner=owner, fence=leases.c.fence + 1, until_ms=now + TTL_MS)
        .returning(leases.c.fence)
    )
    fence = connection.execute(statement).scalar()
    return None if fence is None else Lease(name, owner, fence)


def renew(connection: Connection, lease: Lease, now_ms: int) -> None:
    """Make a lease last again; LeaseLostError when it is another's."""
    until = clock_ms(connection, now_ms) + TTL_MS
    _change(connection, lease, {"until_ms": until})


def hold(connection: Connection, name: str, owner: str, now_ms: int) -> None:
    """Take or renew a lease that nobody else ever wants."""
    _CREATE.run(connection, {"name": name, "zero": 0})
    until = clock_ms(connection, now_ms) + TTL_MS
    connection.execute(
        update(leases).where(leases.c.name == name).values(owner=owner, until_ms=until)
    )


def release(connection: Connection, lease: Lease) -> None:
    """Give a lease back before its end; LeaseLostError when it is another's."""
    _change(connection, lease, {"owner": None})


def guard(connection: Connection, lease: Lease) -> None:
    """Raise LeaseLostError unless the lease is still this one, and keep it so until the commit."""
    statement = (
        select(leases.c.fence)
        .where(leases.c.name == lease.name, leases.c.owner == lease.owner)
        .with_for_update(read=True)
    )
    if connection.execute(statement).scalar() != lease.fence:
        raise _lost(lease)


def _change(connection: Connection, lease: Lease, values: dict[str, object]) -> None:
    statement = update(leases).where(
        leases.c.name == lease.name,
        leases.c.owner == lease.owner,
        leases.c.fence == lease.fence,
    )
    if connection.execute(statement.values(values)).rowcount != 1:
        raise _lost(lease)


def _lost(lease: Lease) -> LeaseLostError:
    return LeaseLostError("the lease is another gateway's", [lease.name])


def clock_ms(connection: Connection, now_ms: int) -> ColumnElement[int]:
    """One clock for all who compare: the server's, where there is one."""
    if connection.dialect.name == "sqlite":
        return literal(now_ms, BigInteger)
    return cast(func.extract("epoch", func.clock_timestamp()) * 1000, BigInteger)


def _create(insert: Insert) -> Insert:
    return insert.values(
        name=bindparam("name"), fence=bindparam("zero"), until_ms=bindparam("zero")
    ).on_conflict_do_nothing(index_elements=["name"])


_CREATE: Final = Prepared(Upsert(leases, _create).statement)

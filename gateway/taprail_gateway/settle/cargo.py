"""What a lane carries: the seam between sending transactions and what they are for.

The machinery of a lane (lease, nonces, stored bytes, broadcast, rescue) is the same whatever its
transactions do. A cargo says what waits, takes it on, makes the contract calls, and writes which of
its items travels in which transaction. Payments are one cargo, rewards another.

Every method is bounded by the limit it is given. Those with a connection work inside the caller's
transaction; their GuardErrors are meant to undo it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from sqlalchemy import Connection

from taprail_gateway.ledger.leases import Lease
from taprail_gateway.ledger.transitions import Attempt
from taprail_gateway.settle.replies import Block


class Waiting(NamedTuple):
    """What a lane could take on now, counted up to a limit."""

    items: int
    oldest_ms: int | None
    """Since when the oldest of them waits."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """The call of one transaction; the lane adds nonce, fees and its signature."""

    ids: tuple[str, ...]
    """Of the payments that travel in it."""
    to: str
    data: bytes
    gas: int
    valid_before_s: int
    """Until when what was signed for it here can have an effect; 0 for a call that does not end."""
    own_ends_s: Mapping[str, int] = field(default_factory=dict)
    """Of payments that came signed, by id: until when that can have an effect."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a lane has taken on. `claimed` counts what was looked at, left out or not."""

    claimed: int
    parcels: Sequence[Parcel] = ()


class Cargo(Protocol):
    """One purpose of lanes."""

    @property
    def purpose(self) -> str:
        """Of the lanes that carry it: `lanes.purpose`."""
        ...

    def waiting(self, connection: Connection, lane: str, limit: int, now_ms: int) -> Waiting:
        """What this lane has claimed and not bound, and what nobody has claimed."""
        ...

    def under_way(self, connection: Connection, lane: str, limit: int) -> int:
        """Items bound to this lane that are not settled, counted up to a limit."""
        ...

    def gas_each(self) -> int:
        """About what one item uses in a full transaction."""
        ...

    async def prepare(self, lease: Lease, limit: int, head: Block) -> Load:
        """Claim so many durably, leave out what would fail, and make the calls for the rest.

        Nothing has a transaction after it: whatever it took is taken again next time. Raises
        ChainError when a node could not say what would fail.
        """
        ...

    def store(
        self,
        connection: Connection,
        lease: Lease,
        nonce: int,
        parcel: Parcel,
        attempt: Attempt,
        at_ms: int,
    ) -> int:
        """Store the signed transaction and bind what travels in it, in one commit; its row's id."""
        ...

    def mark_broadcast(
        self, connection: Connection, transaction_ids: Sequence[int], at_ms: int
    ) -> None:
        """Note that a node took these transactions."""
        ...

    def give_back(self, connection: Connection, lane: str) -> int:
        """Let other lanes have what this one has claimed and not bound; how many there were."""
        ...

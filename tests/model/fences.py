"""Sees whether a gateway writes to a lane that is not its own: looks at every commit from inside.

A second owner does no harm in most orders of events, because nonces and states are guarded too. So
what a lease is for is judged here for itself: whatever belongs to a lane changes only by the hands
of the gateway that has its lease at that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy import Connection

from taprail_gateway.ledger.leases import LANE_PREFIX
from taprail_gateway.settle.lane_keeper import LaneKeeper

T = TypeVar("T")

_ROWS: Final = (
    "SELECT lane, 'transaction', nonce, status, block_hash, rescue_asked_at_ms"
    " FROM chain_transactions"
    " UNION ALL SELECT t.lane, 'version', a.tx_hash, NULL, NULL, NULL"
    " FROM attempts AS a JOIN chain_transactions AS t ON t.id = a.chain_transaction_id"
    " UNION ALL SELECT lane, 'payment', id, state, preflights, block_hash"
    " FROM payments WHERE lane IS NOT NULL"
    " UNION ALL SELECT address, 'lane', next_nonce, NULL, NULL, NULL FROM lanes"
)
_OWNERS: Final = "SELECT name, owner, fence FROM leases"


class Fences:
    """Of one gateway; `broken` says what it wrote without the right to."""

    def __init__(self, keeper: LaneKeeper) -> None:
        self._keeper = keeper
        self.broken: list[str] = []
        self._completed: list[tuple[str, str]] = []

    def watching(self, work: Callable[[Connection], T]) -> Callable[[Connection], T]:
        """The same work, looked at from both sides."""

        def watched(connection: Connection) -> T:
            before = _rows(connection)
            result = work(connection)
            after = _rows(connection)
            changed = {str(row[0]) for row in before ^ after}
            if changed:
                self._judge(connection, changed)
            self._completed += [
                (str(row[2]), str(row[5])) for row in after - before if row[3] == "completed"
            ]
            return result

        return watched

    def taken_completed(self) -> list[tuple[str, str]]:
        """Payment and block of what it has completed since the last time."""
        found, self._completed = self._completed, []
        return found

    def _judge(self, connection: Connection, lanes: set[str]) -> None:
        owners = {row[0]: tuple(row[1:]) for row in connection.exec_driver_sql(_OWNERS)}
        for lane in sorted(lanes):
            lease = self._keeper.leases.get(lane)
            ours = lease and (lease.owner, lease.fence)
            if ours is None or owners.get(LANE_PREFIX + lane) != ours:
                self.broken.append(f"lane {lane} was changed by a gateway that has not its lease")


def _rows(connection: Connection) -> set[tuple[object, ...]]:
    return {tuple(row) for row in connection.exec_driver_sql(_ROWS)}

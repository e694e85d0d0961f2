"""How the queues stand that follow from payments: rewards to be minted, and callbacks.

For people who look: it counts all that there has ever been.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, ColumnElement, Connection, case, func, select

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger.mints import is_ready
from taprail_gateway.ledger.schema import callbacks, mint_is_open, mints


@dataclass(frozen=True, slots=True)
class SideQueue:
    """`delayed` waits for a time or for its payment, `active` is under way, `failed` was given up.

    `oldest_ms`: since when the oldest has been there that is neither completed nor failed.
    """

    name: str
    waiting: int
    delayed: int
    active: int
    completed: int
    failed: int
    oldest_ms: int | None


_KINDS: Final = ("waiting", "delayed", "active", "completed", "failed")
_IS_DONE_WITH: Final = frozenset({"completed", "failed"})


def report(connection: Connection, now_ms: int) -> list[SideQueue]:
    """How they stand now."""
    m, c = mints.c, callbacks.c
    mint = case(
        (is_ready(now_ms), "waiting"),
        (mint_is_open & (m.state == PaymentState.PENDING.value), "delayed"),
        (mint_is_open, "active"),
        (m.state == PaymentState.COMPLETED.value, "completed"),
        else_="failed",
    )
    callback = case(
        ((c.status == "waiting") & (c.due_at_ms <= now_ms), "waiting"),
        (c.status == "waiting", "delayed"),
        (c.status == "done", "completed"),
        else_="failed",
    )
    return [
        _counted(connection, "mints", mint, m.created_at_ms),
        _counted(connection, "callbacks", callback, c.created_at_ms),
    ]


def _counted(
    connection: Connection, name: str, kind: ColumnElement[str], created_at_ms: Column[int]
) -> SideQueue:
    named = kind.label("kind")
    statement = select(named, func.count(), func.min(created_at_ms)).group_by(named)
    found = {kind: (count, oldest_ms) for kind, count, oldest_ms in connection.execute(statement)}
    counts = {kind: found[kind][0] if kind in found else 0 for kind in _KINDS}
    since_ms = [oldest_ms for kind, (_, oldest_ms) in found.items() if kind not in _IS_DONE_WITH]
    return SideQueue(name, **counts, oldest_ms=min(since_ms, default=None))

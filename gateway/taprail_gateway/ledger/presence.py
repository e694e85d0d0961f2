"""Which gateways are there: each says so, again and again, so that they can share the lanes.

It is a courtesy, no guard: who counts wrong takes too much or too little for some seconds. That two
never do the same is the business of `leases`, in whose table this is kept.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, delete, func, select

from taprail_gateway.ledger import leases
from taprail_gateway.ledger.schema import leases as rows

_PREFIX: Final = "gateway:"


def attend(connection: Connection, owner: str, now_ms: int) -> int:
    """Say that a gateway is there, forget those of which nothing was heard; how many are there."""
    now = leases.clock_ms(connection, now_ms)
    is_gateway = rows.c.name.startswith(_PREFIX)
    connection.execute(delete(rows).where(is_gateway, rows.c.until_ms < now))
    leases.hold(connection, _PREFIX + owner, owner, now_ms)
    return int(connection.scalar(select(func.count()).where(is_gateway)) or 0)


def leave(connection: Connection, owner: str) -> None:
    """Be there no more."""
    connection.execute(delete(rows).where(rows.c.name == _PREFIX + owner))

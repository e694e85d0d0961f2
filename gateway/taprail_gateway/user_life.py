"""What operators do to users after they were added, on record.

Somebody frozen acts no more by any token, and their cards pay nothing from the next tap on. What
was accepted before is settled, and refunds still reach them.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from taprail_gateway.ledger import actions
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.schema import users
from taprail_gateway.registry import require


def set_status(connection: Connection, user_id: str, status: str, by: By) -> None:
    """Freeze (`frozen`) or thaw (`active`) a user; OperatorError for no such one."""
    require(connection, users, "user", user_id)
    row = users.c.id == user_id
    since_ms = connection.scalar(select(users.c.frozen_at_ms).where(row))
    before = "active" if since_ms is None else "frozen"
    if status != before:
        at_ms = by.at_ms if status == "frozen" else None
        connection.execute(update(users).where(row).values(frozen_at_ms=at_ms))
    action = "user-freeze" if status == "frozen" else "user-unfreeze"
    actions.note(connection, action, user_id, by, before=before, after=status)

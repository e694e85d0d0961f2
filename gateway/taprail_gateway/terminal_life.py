"""What is done to terminals after they were added, on record.

One that is frozen is refused from its next tap on, cannot be armed, and its sockets are closed,
until it is thawed; one that is revoked is refused for good. What was accepted before is settled.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select, update

from taprail_common.errors import OperatorError
from taprail_gateway import registry
from taprail_gateway.ledger import actions
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.schema import terminal_status, terminals

_ACTIONS: Final = {
    "active": "unfreeze-terminal",
    "frozen": "freeze-terminal",
    "revoked": "revoke-terminal",
}


def set_status(connection: Connection, terminal_id: str, status: str, by: By) -> None:
    """Freeze (`frozen`), thaw (`active`) or revoke (`revoked`) a terminal.

    OperatorError for no such one, and for one that was revoked and is to be something else.
    """
    registry.require(connection, terminals, "terminal", terminal_id)
    row = terminals.c.id == terminal_id
    before = connection.scalar(select(terminal_status).where(row))
    if before == "revoked" and status != before:
        raise OperatorError(
            f"terminal {terminal_id!r} was revoked for good",
            fix="pair it anew: `taprail admin terminal pair`",
            code="wrong_state",
        )
    if status == "revoked":
        registry.revoke_terminal(connection, terminal_id)
    elif status != before:
        at_ms = by.at_ms if status == "frozen" else None
        connection.execute(update(terminals).where(row).values(frozen_at_ms=at_ms))
    actions.note(connection, _ACTIONS[status], terminal_id, by, before=before, after=status)

"""Keys of terminals in the ledger: the one in use, and the one that comes next.

Both are good from when the next was announced until it is used for the first time; from then on it
is the terminal's, and the one before is nobody's. Functions on a connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nacl.signing import VerifyKey
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from taprail_common.errors import OperatorError
from taprail_common.signing import fingerprint, parse_public_key, public_key_text
from taprail_gateway.ledger import actions, schema
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.schema_pairing import terminal_next_keys

_t, _n = schema.terminals.c, terminal_next_keys.c
_KEYS: Final = (
    select(_t.public_key, _n.public_key)
    .join_from(schema.terminals, terminal_next_keys, _t.id == _n.terminal_id, isouter=True)
    .where(_t.id == bindparam("terminal_id"))
)


@dataclass(frozen=True, slots=True)
class TerminalKeys:
    """What a terminal may sign with."""

    current: VerifyKey
    upcoming: VerifyKey | None = None


def keys_of(connection: Connection, terminal_id: str) -> TerminalKeys | None:
    """A terminal's keys, revoked or not; None for no such terminal."""
    row = connection.execute(_KEYS, {"terminal_id": terminal_id}).one_or_none()
    if row is None:
        return None
    current, upcoming = row
    return TerminalKeys(
        parse_public_key(current), None if upcoming is None else parse_public_key(upcoming)
    )


def announce(connection: Connection, terminal_id: str, public_key: str, by: By) -> None:
    """Take note of the key that comes next; another one that was to come is forgotten."""
    stands = select(schema.terminal_status, _t.public_key).where(_t.id == terminal_id)
    status, known = connection.execute(stands).one()
    if status != "active":
        raise OperatorError(f"the terminal is {status}", code="wrong_state")
    if known == public_key:  # it was used already; only the answer had been lost
        return
    connection.execute(delete(terminal_next_keys).where(_n.terminal_id == terminal_id))
    connection.execute(
        insert(terminal_next_keys).values(
            terminal_id=terminal_id, public_key=public_key, announced_at_ms=by.at_ms
        )
    )
    shown = fingerprint(parse_public_key(public_key))
    actions.note(connection, "announce-terminal-key", terminal_id, by, after=shown)


def promote(connection: Connection, terminal_id: str, key: VerifyKey, now_ms: int) -> None:
    """The next key was used: it is the terminal's now. Does nothing when it is already."""
    text = public_key_text(key)
    before = connection.scalar(select(_t.public_key).where(_t.id == terminal_id))
    gone = connection.execute(
        delete(terminal_next_keys).where(_n.terminal_id == terminal_id, _n.public_key == text)
    )
    if gone.rowcount != 1 or before is None:
        return
    connection.execute(update(schema.terminals).where(_t.id == terminal_id).values(public_key=text))
    shown = [fingerprint(parse_public_key(each)) for each in (before, text)]
    by = By(f"terminal:{terminal_id}", now_ms)
    actions.note(
        connection, "change-terminal-key", terminal_id, by, before=shown[0], after=shown[1]
    )

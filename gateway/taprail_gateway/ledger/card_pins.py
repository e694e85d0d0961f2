"""Cards' PINs in the ledger: what is kept of them, and the tries that they have left.

Answers for each change being guarded. A PIN itself never comes here; whether one is right is
`pin_desk`'s business, and what follows from it that of `pins`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from taprail_common.errors import OperatorError
from taprail_gateway import registry
from taprail_gateway.authorize import Profile
from taprail_gateway.ledger import actions, schema
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.prepared import prepared
from taprail_gateway.ledger.schema_base import literal
from taprail_gateway.pins import MAX_TRIES

_c, _p = schema.cards.c, schema.card_pins.c

COLUMNS: Final = (_p.above_units, _p.tries_left, _p.set_at_ms)
"""What a decision needs, in the order of `pins.CardPin`."""

_TAKE: Final = prepared(
    update(schema.card_pins)
    .where(
        _p.card_uuid == bindparam("card"),
        _p.tries_left == bindparam("before"),
        _p.set_at_ms == bindparam("pin"),
    )
    .values(tries_left=bindparam("left"))
)
_FREEZE: Final = prepared(
    update(schema.cards)
    .where(_c.uuid == bindparam("card"), _c.status == literal("active"))
    .values(status=literal("frozen"))
)


@dataclass(frozen=True, slots=True)
class StoredPin:
    """What a PIN is held against."""

    card_uuid: str
    verifier: str = field(repr=False)
    above_units: int
    set_at_ms: int


@dataclass(frozen=True, slots=True)
class Tries:
    """How many tries a card had, and has from this commit on, of the PIN that was set then."""

    before: int
    left: int
    set_at_ms: int


def of_digest(connection: Connection, uid_digest: str) -> StoredPin | None:
    """The PIN of the card that goes by this digest."""
    statement = (
        select(_p.card_uuid, _p.verifier, _p.above_units, _p.set_at_ms)
        .join_from(schema.card_pins, schema.cards, _p.card_uuid == _c.uuid)
        .where(_c.uid_digest == uid_digest)
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else StoredPin(*row)


def take_tries(connection: Connection, tries: Mapping[str, Tries]) -> None:
    """Write what cards have left, and freeze those that have none; raises GuardError when one is
    not as it was read."""
    rows = [
        {"card": card, "before": each.before, "left": each.left, "pin": each.set_at_ms}
        for card, each in sorted(tries.items())
    ]
    if rows and _TAKE.run_each(connection, rows) != len(rows):
        raise GuardError("a PIN's tries were others", list(tries))
    used_up = [{"card": card} for card, each in sorted(tries.items()) if each.left == 0]
    if used_up and _FREEZE.run_each(connection, used_up) != len(used_up):
        raise GuardError("a card to freeze is not active", [row["card"] for row in used_up])


def count(connection: Connection) -> int:
    """How many cards have a PIN."""
    return int(connection.scalar(select(func.count()).select_from(schema.card_pins)) or 0)


def describe(connection: Connection, card_uuid: str) -> dict[str, int] | None:
    """What may be told of a card's PIN; None without one."""
    statement = select(_p.above_units, _p.tries_left).where(_p.card_uuid == card_uuid)
    row = connection.execute(statement).mappings().one_or_none()
    return None if row is None else dict(row)


def put(connection: Connection, card_uuid: str, verifier: str, above_units: int, by: By) -> None:
    """Give a card a PIN, or another one; on record, without a trace of it."""
    _check_can_have_one(connection, card_uuid)
    connection.execute(delete(schema.card_pins).where(_p.card_uuid == card_uuid))
    connection.execute(
        insert(schema.card_pins).values(
            card_uuid=card_uuid,
            verifier=verifier,
            above_units=above_units,
            tries_left=MAX_TRIES,
            set_at_ms=by.at_ms,
        )
    )
    actions.note(connection, "card-pin-set", card_uuid, by, after={"above": above_units})


def remove(connection: Connection, card_uuid: str, by: By) -> None:
    """Ask for no PIN any more."""
    changed = connection.execute(delete(schema.card_pins).where(_p.card_uuid == card_uuid))
    if not changed.rowcount:
        raise _none(card_uuid)
    actions.note(connection, "card-pin-remove", card_uuid, by)


def unlock(connection: Connection, card_uuid: str, by: By) -> None:
    """Give a card its tries back, and thaw it where the last one has frozen it."""
    before = connection.scalar(select(_p.tries_left).where(_p.card_uuid == card_uuid))
    if before is None:
        raise _none(card_uuid)
    connection.execute(
        update(schema.card_pins).where(_p.card_uuid == card_uuid).values(tries_left=MAX_TRIES)
    )
    if before == 0:
        registry.set_card_status(connection, card_uuid, "active")
    actions.note(connection, "card-pin-unlock", card_uuid, by, before=before, after=MAX_TRIES)


def _check_can_have_one(connection: Connection, card_uuid: str) -> None:
    registry.require(connection, schema.cards, "card", card_uuid)
    profile = connection.scalar(select(_c.profile).where(_c.uuid == card_uuid))
    if profile == Profile.UID:
        # Whoever copied its serial number could try PINs, or freeze it.
        raise OperatorError(
            f"card {card_uuid!r} proves nothing, so a PIN would protect nothing",
            fix="issue a card that proves itself",
        )


def _none(card_uuid: str) -> OperatorError:
    return OperatorError(
        f"card {card_uuid!r} has no PIN", fix="set one: taprail admin card pin set"
    )

"""What a group of accepted payments takes, reserved by guarded statements, one for each kind.

Each statement runs once for all of a group (executemany) and changes exactly one row per entry, or
GuardError is raised and the whole transaction has to be given up. The guards are in the SQL, so
they hold whatever the caller believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Executable, bindparam, update

from taprail_gateway.ledger import schema
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.upserts import Insert, Upsert

_cards, _accounts = schema.cards, schema.accounts

_ADVANCE: Final = (
    update(_cards)
    .where(_cards.c.uuid == bindparam("card"), _cards.c.sun_counter < bindparam("counter"))
    .values(sun_counter=bindparam("counter"))
)
_HOLD: Final = (
    update(_accounts)
    .where(
        _accounts.c.address == bindparam("account"),
        _accounts.c.held_units + bindparam("units") <= _accounts.c.balance_units,
    )
    .values(held_units=_accounts.c.held_units + bindparam("units"))
)


def _reserve(insert: Insert) -> Insert:
    spent = schema.card_spend.c.spent_units + insert.excluded.spent_units
    return insert.values(
        card_uuid=bindparam("card"), day=bindparam("day"), spent_units=bindparam("units")
    ).on_conflict_do_update(
        index_elements=["card_uuid", "day"],
        set_={"spent_units": spent},
        where=spent <= bindparam("limit"),
    )


_RESERVE: Final = Upsert(schema.card_spend, _reserve)


@dataclass(frozen=True, slots=True)
class Spend:
    """What is added to a card's day, and the most that the day may hold."""

    card_uuid: str
    day: str
    units: int
    limit_units: int


def advance_counters(connection: Connection, counters: Mapping[str, int]) -> None:
    """Set cards' tap counters (card uuid → counter); each must rise."""
    rows = [{"card": card, "counter": counter} for card, counter in counters.items()]
    _each_one(connection, _ADVANCE, rows, "a tap counter did not rise", "card")


def hold_all(connection: Connection, holds: Mapping[str, int]) -> None:
    """Hold funds (account → units); each account must have them free."""
    rows = [{"account": account, "units": units} for account, units in holds.items()]
    _each_one(connection, _HOLD, rows, "an account does not have the funds", "account")


def reserve_all(connection: Connection, spends: Sequence[Spend]) -> None:
    """Add to the days' spend; no day may exceed its limit."""
    # A day's first row has nothing to conflict with, so no guard of the update looks at it.
    over = [spend.card_uuid for spend in spends if spend.units > spend.limit_units]
    if over:
        raise GuardError("a payment exceeds the daily limit", over)
    rows = [
        {"card": s.card_uuid, "day": s.day, "units": s.units, "limit": s.limit_units}
        for s in spends
    ]
    statement = _RESERVE.statement(connection)
    _each_one(connection, statement, rows, "a daily limit is exhausted", "card")


def _each_one(
    connection: Connection,
    statement: Executable,
    rows: list[dict[str, Any]],
    message: str,
    subject: str,
) -> None:
    if not rows:
        return
    # Both drivers sum up the rows changed over an executemany.
    if connection.execute(statement, rows).rowcount != len(rows):
        raise GuardError(message, [row[subject] for row in rows])

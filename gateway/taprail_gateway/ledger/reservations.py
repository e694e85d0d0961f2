"""What an accepted payment takes: a tap's counter, funds of an account, a part of a card's day.

Each is one guarded statement, so that nothing can be overdrawn by a unit however many try at once,
whatever the caller believed. For one, the answer is a bool. For all of a group together the
statement runs once (executemany) and must change one row per entry; else GuardError is raised and
the whole transaction has to be given up. Rows are changed in the order of their keys, so that two
gateways that want the same ones wait for each other and never both. Giving back is the business of
`funds`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, update

from taprail_gateway.ledger import schema
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.prepared import Prepared, prepared
from taprail_gateway.ledger.upserts import Insert, Upsert

_cards, _accounts = schema.cards, schema.accounts

_ADVANCE: Final = prepared(
    update(_cards)
    .where(_cards.c.uuid == bindparam("card"), _cards.c.sun_counter < bindparam("counter"))
    .values(sun_counter=bindparam("counter"))
)
_HOLD: Final = prepared(
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


_RESERVE: Final = Prepared(Upsert(schema.card_spend, _reserve).statement)


@dataclass(frozen=True, slots=True)
class Spend:
    """What is added to a card's day, and the most that the day may hold."""

    card_uuid: str
    day: str
    units: int
    limit_units: int


def advance_counter(connection: Connection, card_uuid: str, counter: int) -> bool:
    """Move a card's tap counter up; False, and nothing changed, when it is not above the last."""
    return _did(connection, _ADVANCE, {"card": card_uuid, "counter": counter})


def hold(connection: Connection, account: str, amount_units: int) -> bool:
    """Hold funds of an account; False, and nothing held, when what is free does not cover it."""
    return _did(connection, _HOLD, {"account": account, "units": amount_units})


def reserve_spend(
    connection: Connection, card_uuid: str, day: str, amount_units: int, daily_limit_units: int
) -> bool:
    """Count an amount into a card's day; False, and nothing counted, beyond the limit.

    `day` is the date in the card's time zone, as 2024-05-31.
    """
    spend = Spend(card_uuid, day, amount_units, daily_limit_units)
    return not _over(spend) and _did(connection, _RESERVE, _row(spend))


def advance_counters(connection: Connection, counters: Mapping[str, int]) -> None:
    """Set cards' tap counters (card uuid → counter); each must rise."""
    rows = [{"card": card, "counter": counter} for card, counter in sorted(counters.items())]
    _each_one(connection, _ADVANCE, rows, "a tap counter did not rise", "card")


def hold_all(connection: Connection, holds: Mapping[str, int]) -> None:
    """Hold funds (account → units); each account must have them free."""
    rows = [{"account": account, "units": units} for account, units in sorted(holds.items())]
    _each_one(connection, _HOLD, rows, "an account does not have the funds", "account")


def reserve_all(connection: Connection, spends: Sequence[Spend]) -> None:
    """Add to the days' spend; no day may exceed its limit."""
    over = [spend.card_uuid for spend in spends if _over(spend)]
    if over:
        raise GuardError("a payment exceeds the daily limit", over)
    rows = [_row(spend) for spend in sorted(spends, key=lambda spend: (spend.card_uuid, spend.day))]
    _each_one(connection, _RESERVE, rows, "a daily limit is exhausted", "card")


def _over(spend: Spend) -> bool:
    # A day's first row has nothing to conflict with, so no guard of the update looks at it.
    return spend.units > spend.limit_units


def _row(spend: Spend) -> dict[str, Any]:
    return {
        "card": spend.card_uuid,
        "day": spend.day,
        "units": spend.units,
        "limit": spend.limit_units,
    }


def _did(connection: Connection, statement: Prepared, row: dict[str, Any]) -> bool:
    return statement.run(connection, row) == 1


def _each_one(
    connection: Connection,
    statement: Prepared,
    rows: list[dict[str, Any]],
    message: str,
    subject: str,
) -> None:
    # Both drivers sum up the rows changed over an executemany.
    if rows and statement.run_each(connection, rows) != len(rows):
        raise GuardError(message, [row[subject] for row in rows])

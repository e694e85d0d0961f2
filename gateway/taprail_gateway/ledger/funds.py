"""What is given back of promised money, holds and spend, and the balances that it is measured by.

Answers for the guarded arithmetic; when it is due is up to `transitions`. Taking is the business of
`reservations`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from sqlalchemy import BindParameter, Connection, Executable, bindparam, func, select, update

from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.schema import accounts, card_spend, cards

NO_DAY: Final = ""
"""The day of a payment that counts into none: a refund."""


class Charge(NamedTuple):
    """What a payment has taken: funds of an account, and of a card's day."""

    payer: str
    card_uuid: str
    spend_day: str
    amount_units: int

    @property
    def is_refund(self) -> bool:
        """Whether it gives back a sale: that is nobody's spend."""
        return self.spend_day == NO_DAY


def return_spend(connection: Connection, card_uuid: str, day: str, amount_units: int) -> None:
    """Give back what was counted; raises GuardError when that much was not."""
    _return_spend(connection, {(card_uuid, day): amount_units})


def return_spends(connection: Connection, charges: Iterable[Charge]) -> None:
    """Give back what these counted into their days; raises GuardError when it was not."""
    spent: Counter[tuple[str, str]] = Counter()
    for charge in charges:
        if charge.is_refund:
            continue
        spent[charge.card_uuid, charge.spend_day] += charge.amount_units
    _return_spend(connection, spent)


def refresh_balances(
    connection: Connection, balances: Mapping[str, int], block_number: int
) -> None:
    """Take over the chain's balances (address → units) at a block; older ones are passed over."""
    if balances:
        connection.execute(
            _REFRESH,
            [
                {"account": account, "units": units, "block": block_number}
                for account, units in sorted(balances.items())
            ],
        )


def release(connection: Connection, charges: Iterable[Charge], *, snapshot_from: int) -> None:
    """Give holds back, once the accounts' balances are those of this block or of a later one.

    Raises GuardError when one is older, or holds less.
    """
    rows = [{**row, "block": snapshot_from} for row in _per_account(charges)]
    _execute_each(connection, _RELEASE, rows, "the hold is smaller, or the balance older")


def hold_again(connection: Connection, charges: Iterable[Charge]) -> None:
    """Hold funds whatever the balance says: the money may be taken a second time."""
    _execute_each(connection, _HOLD_AGAIN, _per_account(charges), "no such account")


def _per_account(charges: Iterable[Charge]) -> list[dict[str, object]]:
    units: Counter[str] = Counter()
    for charge in charges:
        units[charge.payer] += charge.amount_units
    return [{"account": account, "amount": amount} for account, amount in sorted(units.items())]


def _return_spend(connection: Connection, spent: Mapping[tuple[str, str], int]) -> None:
    rows = [
        {"card": card, "date": day, "amount": units} for (card, day), units in sorted(spent.items())
    ]
    _execute_each(connection, _RETURN, rows, "that much was never spent")


# Rows are changed in the order of their keys: two who change the same ones cannot lock each other.
def _execute_each(
    connection: Connection, statement: Executable, rows: list[dict[str, object]], otherwise: str
) -> None:
    """Run a guarded update of one row for each; GuardError unless every one found its row."""
    if rows and connection.execute(statement, rows).rowcount != len(rows):
        raise GuardError(otherwise, [next(iter(row.values())) for row in rows])


# --- the statements, built once ---------------------------------------------------


def _amount(name: str) -> BindParameter[int]:
    return bindparam(name, type_=accounts.c.held_units.type)


_HOLD_AGAIN: Final = (
    update(accounts)
    .where(accounts.c.address == bindparam("account"))
    .values(held_units=accounts.c.held_units + _amount("amount"))
)
_RELEASE: Final = (
    update(accounts)
    .where(
        accounts.c.address == bindparam("account"),
        accounts.c.held_units >= _amount("amount"),
        accounts.c.balance_block >= _amount("block"),
    )
    .values(held_units=accounts.c.held_units - _amount("amount"))
)
_REFRESH: Final = (
    update(accounts)
    .where(accounts.c.address == bindparam("account"), accounts.c.balance_block <= _amount("block"))
    .values(balance_units=_amount("units"), balance_block=_amount("block"))
)
# A card that has taken another one's place spends that one's days.
_COUNTED_AS: Final = (
    select(func.coalesce(cards.c.day_of, cards.c.uuid))
    .where(cards.c.uuid == bindparam("card"))
    .scalar_subquery()
)
_RETURN: Final = (
    update(card_spend)
    .where(
        card_spend.c.card_uuid == _COUNTED_AS,
        card_spend.c.day == bindparam("date"),
        card_spend.c.spent_units >= _amount("amount"),
    )
    .values(spent_units=card_spend.c.spent_units - _amount("amount"))
)

"""How much of a sale is promised back: taken by each refund, left again by one that fails.

Each is one guarded statement, so that the refunds of a sale never come to more than was paid,
however many are asked for at once; a check of the table says the same. Works inside the caller's
transaction. Who may refund what, and from which account, is the business of `refunds`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from taprail_common.payment_state import PaymentEvent
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.prepared import Prepared
from taprail_gateway.ledger.schema import payments, refunded_sales, refunds
from taprail_gateway.ledger.upserts import Insert, Upsert

_s = refunded_sales.c
_FAILS: Final = frozenset({PaymentEvent.REJECT, PaymentEvent.DISPROVE})
_SETTLES: Final = _FAILS | {PaymentEvent.CONFIRM}


def reserve(connection: Connection, sale_id: str, paid_units: int, amount_units: int) -> bool:
    """Promise a part of a sale; False, and nothing promised, beyond what was paid."""
    row = {"sale": sale_id, "paid": paid_units, "units": amount_units}
    # A sale's first row has nothing to conflict with, so no guard of the update looks at it.
    return amount_units <= paid_units and _RESERVE.run(connection, row) == 1


def refunded_units(connection: Connection, sale_id: str) -> int:
    """What is given back of a sale or promised to be: all its refunds that have not failed."""
    return connection.scalar(select(_s.refunded_units).where(_s.sale_id == sale_id)) or 0


def follow(connection: Connection, event: PaymentEvent, refund_ids: Sequence[str]) -> None:
    """What a step of these refunds does: one that fails leaves its part of the sale to others, and
    one that is settled waits for nothing. Raises GuardError for what is no refund."""
    if event in _FAILS:
        _give_back(connection, refund_ids)
    if event in _SETTLES:
        settled = update(refunds).where(refunds.c.payment_id.in_(refund_ids))
        connection.execute(settled.values(awaits_float=0))


def _give_back(connection: Connection, refund_ids: Sequence[str]) -> None:
    statement = (
        select(refunds.c.sale_id, payments.c.amount_units)
        .join(payments, payments.c.id == refunds.c.payment_id)
        .where(refunds.c.payment_id.in_(refund_ids))
    )
    rows = connection.execute(statement).all()
    if len(rows) != len(refund_ids):
        raise GuardError("not all of them are refunds", refund_ids)
    units: Counter[str] = Counter()
    for sale_id, amount_units in rows:
        units[sale_id] += amount_units
    given = [{"sale": sale_id, "units": units[sale_id]} for sale_id in sorted(units)]
    if connection.execute(_GIVE_BACK, given).rowcount != len(given):
        raise GuardError("that much was never promised", sorted(units))


def _reserve(insert: Insert) -> Insert:
    promised = _s.refunded_units + insert.excluded.refunded_units
    return insert.values(
        sale_id=bindparam("sale"),
        refundable_units=bindparam("paid"),
        refunded_units=bindparam("units"),
    ).on_conflict_do_update(
        index_elements=["sale_id"],
        set_={"refunded_units": promised},
        where=promised <= _s.refundable_units,
    )


_RESERVE: Final = Prepared(Upsert(refunded_sales, _reserve).statement)
_UNITS: Final = bindparam("units", type_=_s.refunded_units.type)
_GIVE_BACK: Final = (
    update(refunded_sales)
    .where(_s.sale_id == bindparam("sale"), _s.refunded_units >= _UNITS)
    .values(refunded_units=_s.refunded_units - _UNITS)
)

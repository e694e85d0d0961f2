"""Charges in the ledger: each step is one guarded change, so of two who race only one wins.

A cancel, a tap that is accepted, the deadline and the terminal's refusal all meet in the same row,
which may leave an open status once. Whoever comes second changes nothing and is told what is there.
The end of a charge is written together with what webhooks tell of it. All functions work inside the
caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, func, insert, select, update

from taprail_common.api.charges import ChargeStatus
from taprail_common.errors import TapRailError
from taprail_common.ids import new_id
from taprail_common.payment_state import PaymentState
from taprail_gateway.charges import Asked, Charge, ending, event_body, event_of
from taprail_gateway.ledger import outbox, webhooks
from taprail_gateway.ledger.errors import GuardError
from taprail_gateway.ledger.prepared import Lookup, Prepared
from taprail_gateway.ledger.schema import (
    charges,
    merchants,
    terminal_status,
    terminal_texts,
    terminals,
)
from taprail_gateway.ledger.schema_charges import charge_is_open
from taprail_gateway.ledger.upserts import Insert, Upsert

MAX_CHANGES: Final = 500
"""Read at once; a gateway's terminals make a few a second."""

_c = charges.c
_COLUMNS: Final = tuple(_c[each.name] for each in fields(Charge))
_BY_ID: Final = Lookup(select(*_COLUMNS), (_c.id,))


class TerminalBusyError(TapRailError):
    """The terminal has another charge; it takes one at a time."""

    code = "terminal_busy"
    retryable = True


class ReusedError(TapRailError):
    """The same key was used for another charge."""

    code = "idempotency_reused"


class TerminalClosedError(TapRailError):
    """The terminal, or its merchant, takes no payments any more."""

    code = "terminal_revoked"


class TerminalFrozenError(TerminalClosedError):
    """The terminal takes no payments for now."""

    code = "terminal_frozen"


@dataclass(frozen=True, slots=True)
class Place:
    """A terminal and whose it is."""

    terminal_id: str
    merchant_id: str
    user_id: str | None
    status: str
    """The terminal's, if its merchant's is `active`."""


def place(connection: Connection, terminal_id: str) -> Place | None:
    """A terminal; None for no such one."""
    t, m = terminals.c, merchants.c
    found = connection.execute(
        select(t.id, t.merchant_id, m.user_id, terminal_status, m.status)
        .join_from(terminals, merchants, t.merchant_id == m.id)
        .where(t.id == terminal_id)
    ).one_or_none()
    if found is None:
        return None
    name, merchant_id, user_id, status, merchant_status = found
    is_open = merchant_status == "active"
    return Place(name, merchant_id, user_id, status if is_open else merchant_status)


# --- made -----------------------------------------------------------------------------------------


def make(
    connection: Connection, at: Place, asked: Asked, user_id: str, key: str | None, now_ms: int
) -> tuple[Charge, bool]:
    """The charge that a till asks for, and whether it is new.

    The same key gives the same charge for ever. Without a key, what is open or paid under the same
    reference is given instead of another one: an order is charged once, and again only after it
    came to nothing. Raises ReusedError, TerminalBusyError or TerminalClosedError.
    """
    _have_alone(connection, at.terminal_id)
    _expire(connection, _c.terminal_id == at.terminal_id, now_ms)
    before = _made_before(connection, at.terminal_id, asked, key)
    if before is not None:
        return before, False
    if at.status == "frozen":
        raise TerminalFrozenError("the terminal is frozen")
    if at.status != "active":
        raise TerminalClosedError("the terminal takes no payments any more")
    if open_of(connection, at.terminal_id) is not None:
        raise TerminalBusyError("the terminal has another charge; cancel it or wait for its end")
    made = Charge(
        id=new_id("chg"),
        terminal_id=at.terminal_id,
        merchant_id=at.merchant_id,
        user_id=user_id,
        reference=asked.reference,
        idempotency_key=key,
        amount_units=asked.amount_units,
        currency=asked.currency,
        status=ChargeStatus.WAITING,
        reason_code=None,
        payment_id=None,
        created_at_ms=now_ms,
        deadline_ms=now_ms + asked.deadline_s * 1000,
        armed_at_ms=None,
        ended_at_ms=None,
        changed_at_ms=now_ms,
    )
    row = {each.name: getattr(made, each.name) for each in fields(made)}
    connection.execute(insert(charges).values({**row, "status": made.status.value}))
    return made, True


def _made_before(
    connection: Connection, terminal_id: str, asked: Asked, key: str | None
) -> Charge | None:
    here = _c.terminal_id == terminal_id
    if key is not None:
        found = _some(connection, here & (_c.idempotency_key == key))
        if found and not asked.made(found[0]):
            raise ReusedError("this key was used for another charge")
        return found[0] if found else None
    is_paid = _c.status == ChargeStatus.APPROVED.value
    found = _some(connection, here & (_c.reference == asked.reference) & (charge_is_open | is_paid))
    if found and not asked.is_same_sale(found[-1]):
        raise ReusedError("this reference stands for another charge; give an Idempotency-Key")
    return found[-1] if found else None


def _have_alone(connection: Connection, terminal_id: str) -> None:
    """Until the transaction's end; acceptances of the terminal wait for it, as for each other."""
    which = select(terminals.c.id).where(terminals.c.id == terminal_id)
    connection.execute(which.with_for_update(key_share=True))


# --- read -----------------------------------------------------------------------------------------


def find(connection: Connection, terminal_id: str, charge_id: str) -> Charge | None:
    """A terminal's charge; None for no such one."""
    found = _some(connection, (_c.id == charge_id) & (_c.terminal_id == terminal_id))
    return found[0] if found else None


def find_all(connection: Connection, charge_ids: Sequence[str]) -> dict[str, Charge]:
    """Those that there are, by their ids."""
    rows = _BY_ID.rows(connection, [(each,) for each in charge_ids])
    return {row[0]: _charge(row) for row in rows}


def of_payments(connection: Connection, payment_ids: Collection[str]) -> list[Charge]:
    """Those that came to one of these payments."""
    return _some(connection, _c.payment_id.in_(payment_ids), limit=len(payment_ids))


def open_of(connection: Connection, terminal_id: str) -> Charge | None:
    """The one that a terminal is to take now."""
    found = _some(connection, (_c.terminal_id == terminal_id) & charge_is_open)
    return found[0] if found else None


def changed_since(
    connection: Connection, since_ms: int, *, page: int = MAX_CHANGES
) -> list[Charge]:
    """What was made or changed since then, the oldest change first; read page by page."""
    found: list[Charge] = []
    which = _c.changed_at_ms >= since_ms
    while True:
        some = _some(connection, which, limit=page)
        found += some
        if len(some) < page:
            return found
        last = (_c.changed_at_ms == some[-1].changed_at_ms) & (_c.id > some[-1].id)
        which = (_c.changed_at_ms > some[-1].changed_at_ms) | last


def next_deadline_ms(connection: Connection) -> int | None:
    """When the next open charge expires; None when there is none."""
    return connection.execute(select(func.min(_c.deadline_ms)).where(charge_is_open)).scalar()


def _some(
    connection: Connection, which: ColumnElement[bool], *, limit: int = MAX_CHANGES
) -> list[Charge]:
    order = (_c.changed_at_ms, _c.id)
    statement = select(*_COLUMNS).where(which).order_by(*order).limit(limit)
    return [_charge(row) for row in connection.execute(statement)]


def _charge(row: Any) -> Charge:
    values = {each.name: value for each, value in zip(fields(Charge), row, strict=True)}
    return Charge(**{**values, "status": ChargeStatus(values["status"])})


# --- changed --------------------------------------------------------------------------------------


def arm(connection: Connection, terminal_id: str, charge_id: str, at_ms: int) -> bool:
    """Note that the terminal asks for a card; whether that is news."""
    which = (_c.id == charge_id) & (_c.terminal_id == terminal_id)
    which &= _c.status == ChargeStatus.WAITING.value
    values = {"status": ChargeStatus.ARMED.value, "armed_at_ms": at_ms, "changed_at_ms": at_ms}
    return connection.execute(update(charges).where(which).values(values)).rowcount == 1


def end(
    connection: Connection,
    terminal_id: str,
    charge_id: str,
    status: ChargeStatus,
    at_ms: int,
    reason_code: str | None = None,
) -> bool:
    """End an open charge without a payment; False, and nothing is changed, if it is not open."""
    which = (_c.id == charge_id) & (_c.terminal_id == terminal_id)
    return bool(_end(connection, which, at_ms, status=status.value, reason_code=reason_code))


def expire(connection: Connection, now_ms: int) -> list[Charge]:
    """End all whose time is over; those that this call has ended."""
    return _expire(connection, _c.id.is_not(None), now_ms)


@dataclass(frozen=True, slots=True)
class Tapped:
    """What a tap made of an open charge: a payment, or a decline's reason."""

    payment_id: str | None
    reason_code: str | None


def settle(connection: Connection, taps: Mapping[str, Tapped], at_ms: int) -> None:
    """End charges by their taps; GuardError if one is not open any more."""
    for charge_id, tap in sorted(taps.items()):
        values = {
            "status": ending(tap.reason_code).value,
            "reason_code": tap.reason_code,
            "payment_id": tap.payment_id,
        }
        if not _end(connection, _c.id == charge_id, at_ms, **values):
            raise GuardError("this charge is not open any more", [charge_id])


def _expire(connection: Connection, which: ColumnElement[bool], now_ms: int) -> list[Charge]:
    due = which & (_c.deadline_ms < now_ms)
    return _end(connection, due, now_ms, status=ChargeStatus.EXPIRED.value)


def _end(
    connection: Connection, which: ColumnElement[bool], at_ms: int, **values: object
) -> list[Charge]:
    """The one way out of an open status: who changes the row has won it."""
    statement = (
        update(charges)
        .where(which, charge_is_open)
        .values(ended_at_ms=at_ms, changed_at_ms=at_ms, **values)
        .returning(*_COLUMNS)
    )
    ended = [_charge(row) for row in connection.execute(statement)]
    if ended:
        _tell(connection, ended, at_ms)
    return ended


def _tell(connection: Connection, ended: Sequence[Charge], at_ms: int) -> None:
    # As for payments: whoever switched webhooks off is not told of the past when they are on again.
    if "webhook" not in outbox.kinds_of(connection, PaymentState.COMPLETED):
        return
    for charge in ended:
        endpoints = [each.id for each in webhooks.endpoints_of(connection, charge.merchant_id)]
        event, body = event_of(charge.status), event_body(charge)
        webhooks.enqueue(connection, endpoints, charge.id, event, body, at_ms)


# --- texts ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TerminalText:
    """What a terminal shows while there is nothing to pay; empty for its own words."""

    terminal_id: str
    text: str
    set_at_ms: int


def set_text(connection: Connection, text: TerminalText) -> None:
    """Remember what a terminal is to show."""
    values = {"terminal_id": text.terminal_id, "text": text.text, "at_ms": text.set_at_ms}
    _SET_TEXT.run(connection, values)


def text_of(connection: Connection, terminal_id: str) -> TerminalText | None:
    """What a terminal is to show; None if nobody ever said."""
    t = terminal_texts.c
    statement = select(t.terminal_id, t.text, t.set_at_ms).where(t.terminal_id == terminal_id)
    found = connection.execute(statement).one_or_none()
    return None if found is None else TerminalText(*found)


def texts_since(connection: Connection, since_ms: int) -> list[TerminalText]:
    """What was set since then."""
    t = terminal_texts.c
    statement = select(t.terminal_id, t.text, t.set_at_ms).where(t.set_at_ms >= since_ms)
    return [TerminalText(*row) for row in connection.execute(statement.limit(MAX_CHANGES))]


def _text(insert_: Insert) -> Insert:
    values = insert_.values(
        terminal_id=bindparam("terminal_id"), text=bindparam("text"), set_at_ms=bindparam("at_ms")
    )
    return values.on_conflict_do_update(
        index_elements=["terminal_id"],
        set_={"text": insert_.excluded.text, "set_at_ms": insert_.excluded.set_at_ms},
    )


_SET_TEXT: Final = Prepared(Upsert(terminal_texts, _text).statement)

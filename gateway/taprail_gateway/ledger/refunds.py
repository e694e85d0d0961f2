"""Refunds: payments that give back a completed sale, or a part of it, to the account that paid.

A refund has an id, a hold, states and a history of its own and is settled like any payment; what
makes it a refund is that it points at its sale. It is paid from the merchant's float, an account in
custody, or by the merchant's own signature from where the sale was paid to. It counts into no
card's day, and no rule of fraud looks at it.

A refund that the float does not cover waits, unsigned, and never fails for that: it is not claimed
before the account's balance, as the ledger has it, covers it (`fund`). Its funds are held while it
waits, so a float may hold more than it has. Every function works inside the caller's transaction.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, exists, func, insert, or_, select, update

from taprail_common.errors import OperatorError
from taprail_common.ids import payment_id
from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import card_signatures, refund_shares, transitions
from taprail_gateway.ledger.alerts import clear_alerts, raise_alert
from taprail_gateway.ledger.by_hand import UnknownPaymentError
from taprail_gateway.ledger.card_signatures import StoredSignature
from taprail_gateway.ledger.funds import NO_DAY, Charge, hold_again
from taprail_gateway.ledger.schema import (
    accounts,
    alert_is_open,
    alerts,
    merchant_floats,
    payments,
    refunds,
)
from taprail_gateway.ledger.schema_refunds import AWAITS_FLOAT_MS, refund_awaits_float
from taprail_gateway.ledger.upserts import Upsert

REFUND: Final = "refund"
"""The profile of a payment that no card has made."""

FLOAT_ALERT: Final = "float_short"
"""The kind of the alert about a merchant whose refunds wait for money."""

WAITS: Final = "it waits until the merchant's float account covers it"

_PRIORITY: Final = 5
"""That of an everyday payment (public contract)."""

_REQUESTER_CHARACTERS: Final = 80
"""Of the column; a user's id always fits."""

_MOST_FUNDED: Final = 500
"""Refunds looked at in one commit: taps go on being answered between two of them."""

_p, _r, _a, _f = payments.c, refunds.c, accounts.c, merchant_floats.c
_IS_WAITING: Final = refund_awaits_float & (_p.state == PaymentState.PENDING.value)
_OPEN_ALERTS: Final = (alerts.c.kind == FLOAT_ALERT) & alert_is_open


class NotRefundableError(OperatorError):
    """It is no sale, or not one that is paid."""

    code = "not_refundable"


class TooMuchError(OperatorError):
    """More than is left of the sale."""

    code = "refund_too_high"


class NoFloatError(OperatorError):
    """There is no account that this merchant's refunds could be paid from."""

    code = "no_float"


class RequestReusedError(OperatorError):
    """The same request id was used for another refund."""

    code = "request_id_reused"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A refund as it was asked for. `request` is what must be the same when it is asked for again;
    `signature` is of the account that the sale was paid to: then nothing is signed here."""

    sale_id: str
    amount_units: int
    requester: str
    request_id: str
    request: bytes = field(repr=False)
    at_ms: int
    signature: StoredSignature | None = None

    @property
    def payment_id(self) -> str:
        """The refund's id, and the nonce that moves its money."""
        return payment_id(self.requester, self.request_id)


@dataclass(frozen=True, slots=True)
class Sale:
    """What a refund must know of its sale; all but the state never changes."""

    id: str
    state: str
    profile: str
    merchant_id: str
    terminal_id: str
    card_uuid: str
    user_id: str
    payer: str
    payee: str
    amount_units: int
    currency: str


@dataclass(frozen=True, slots=True)
class Refund:
    """A refund of a sale, and where it is; `sale_id` is None for one that is a sale itself."""

    id: str
    sale_id: str
    request_id: str
    amount_units: int
    currency: str
    state: str
    created_at_ms: int
    completed_at_ms: int | None
    tx_hash: str | None
    failure_reason: str | None


# --- asking for one -------------------------------------------------------------------------------


def requester(actor: str) -> str:
    """The name under which somebody asks for refunds: theirs alone, and no payment's."""
    return f"refund:{actor}"[:_REQUESTER_CHARACTERS]


def ask(connection: Connection, wanted: Wanted) -> Refund:
    """Store a refund as `pending`, or give the one that the same request has led to before.

    Raises UnknownPaymentError, NotRefundableError, TooMuchError, NoFloatError or
    RequestReusedError; then nothing was changed.
    """
    before = asked_before(connection, wanted)
    if before is not None:
        return before
    # Nobody moves the sale, or refunds it, before this is decided.
    sale = _refundable(load_sale(connection, wanted.sale_id, lock=True))
    before = asked_before(connection, wanted)  # by somebody who had the sale before us
    if before is not None:
        return before
    if not refund_shares.reserve(connection, sale.id, sale.amount_units, wanted.amount_units):
        raise _too_much(connection, sale)
    _store(connection, wanted, sale)
    if wanted.signature is None:
        await_float(connection, [wanted.payment_id])
        fund(connection, wanted.at_ms)
    return _some(connection, _p.id == wanted.payment_id)[0]


def load_sale(connection: Connection, sale_id: str, *, lock: bool = False) -> Sale:
    """A payment to be refunded; UnknownPaymentError when there is none."""
    statement = select(*(_p[name] for name in Sale.__slots__)).where(_p.id == sale_id)
    # Not FOR UPDATE: what refers to the sale (its events, its refunds) need not wait.
    row = connection.execute(statement.with_for_update(key_share=True) if lock else statement)
    found = row.one_or_none()
    if found is None:
        raise UnknownPaymentError(
            f"there is no payment {sale_id}", fix="see `taprail admin payment list`"
        )
    return Sale(*found)


def asked_before(connection: Connection, wanted: Wanted) -> Refund | None:
    """The refund that this request has led to; RequestReusedError when it was another request."""
    asked = select(_r.request).where(_r.payment_id == wanted.payment_id)
    request = connection.scalar(asked)
    if request is None:
        return None
    if request != wanted.request:
        raise RequestReusedError(
            f"request {wanted.request_id} was used for another refund", fix="choose a new id"
        )
    return _some(connection, _p.id == wanted.payment_id)[0]


def _refundable(sale: Sale) -> Sale:
    if sale.profile == REFUND:
        raise NotRefundableError(
            f"payment {sale.id} is a refund itself", fix="take a new payment instead"
        )
    if sale.state != PaymentState.COMPLETED:
        raise NotRefundableError(
            f"payment {sale.id} is {sale.state}, only what is completed can be refunded",
            fix="wait for what becomes of it",
        )
    return sale


def _too_much(connection: Connection, sale: Sale) -> TooMuchError:
    left = sale.amount_units - refund_shares.refunded_units(connection, sale.id)
    return TooMuchError(
        f"{left} of {sale.amount_units} units of payment {sale.id} are left to be refunded",
        fix="refund no more than that" if left else "nothing to do",
    )


def _store(connection: Connection, wanted: Wanted, sale: Sale) -> None:
    signed = wanted.signature
    payer = _float_of(connection, sale) if signed is None else sale.payee
    if signed is not None:
        _know_account(connection, payer, wanted.at_ms)
    row: dict[str, Any] = {
        "id": wanted.payment_id,
        "requester": wanted.requester,
        "request_id": wanted.request_id,
        "terminal_id": sale.terminal_id,
        "merchant_id": sale.merchant_id,
        "card_uuid": sale.card_uuid,
        "user_id": sale.user_id,
        "payer": payer,
        "payee": sale.payer,
        "amount_units": wanted.amount_units,
        "currency": sale.currency,
        "profile": REFUND,
        "priority": _PRIORITY,
        "auth_code": f"REFUND_{secrets.token_hex(6).upper()}",
        "spend_day": NO_DAY,
        "tapped_at_ms": wanted.at_ms,
        "signed_until_s": 0 if signed is None else signed.valid_before_s,
    }
    charge = Charge(payer, sale.card_uuid, NO_DAY, wanted.amount_units)
    hold_again(connection, [charge])  # whatever the balance says: see the module
    transitions.accept(connection, [row], wanted.at_ms)
    own = {"payment_id": wanted.payment_id, "sale_id": sale.id, "request": wanted.request}
    connection.execute(insert(refunds).values(own))
    if signed is not None:
        card_signatures.store(connection, {wanted.payment_id: signed})


def _float_of(connection: Connection, sale: Sale) -> str:
    found = select(_f.account).where(_f.merchant_id == sale.merchant_id)
    account = connection.scalar(found)
    if account is None:
        raise NoFloatError(
            f"merchant {sale.merchant_id} has no float account to refund from",
            fix=f"taprail admin merchant float {sale.merchant_id}",
        )
    return str(account)


def _know_account(connection: Connection, address: str, at_ms: int) -> None:
    """Have an account of this address, whose key is not here unless it was before."""
    statement = _KNOW.statement(connection)
    connection.execute(statement, {"address": address, "created_at_ms": at_ms})


_KNOW: Final = Upsert(
    accounts, lambda insert: insert.on_conflict_do_nothing(index_elements=["address"])
)


# --- the float ------------------------------------------------------------------------------------


def await_float(connection: Connection, payment_ids: Sequence[str]) -> list[str]:
    """Keep those of these pending payments from being sent that a float pays; which they are.

    A payment whose payer signs for itself is none of them: its signature ends, so it cannot wait.
    """
    from_float = (
        select(_p.id)
        .join(merchant_floats, _f.account == _p.payer)
        .join(refunds, _r.payment_id == _p.id)
        .where(_p.id.in_(payment_ids), _p.state == PaymentState.PENDING.value)
    )
    ids = list(connection.scalars(from_float))
    if ids:
        values = {"due_at_ms": AWAITS_FLOAT_MS, "failure_reason": WAITS}
        connection.execute(update(payments).where(_p.id.in_(ids)).values(values))
        connection.execute(update(refunds).where(_r.payment_id.in_(ids)).values(awaits_float=1))
    return ids


def floats_want_attention(connection: Connection) -> bool:
    """Whether `fund` has anything to do: a question to be asked at every block."""
    statement = select(or_(exists().where(refund_awaits_float), exists().where(_OPEN_ALERTS)))
    return bool(connection.scalar(statement))


def fund(connection: Connection, at_ms: int) -> list[str]:
    """Let go on what its float covers now, the oldest first; which they are. For what still waits
    its merchant has an alert, until nothing does.

    One that is not covered holds up none after it: who tops up by what is missing settles all.
    """
    # Whoever changes a refund has its row first and then its account, and so have we.
    some = list(connection.execute(_WAITING))
    free = _free_units(connection, sorted({row.payer for row in some}))
    covered: list[str] = []
    short: dict[str, str] = {}
    for row in some:
        if row.amount_units <= free[row.payer]:
            free[row.payer] -= row.amount_units
            covered.append(row.id)
        else:
            short[row.merchant_id] = row.payer
    _go_on(connection, covered)
    _tell(connection, short, at_ms)
    return covered


_WAITING: Final = (
    select(_p.id, _p.payer, _p.merchant_id, _p.amount_units)
    .join(refunds, _r.payment_id == _p.id)
    .where(_IS_WAITING)
    .order_by(_p.rank_ms, _p.id)
    .limit(_MOST_FUNDED)
    .with_for_update(of=payments, skip_locked=True)
)


def _free_units(connection: Connection, addresses: Sequence[str]) -> dict[str, int]:
    """What each of these accounts has beyond what is held for others than those who wait."""
    locked = (
        select(_a.address, _a.balance_units - _a.held_units)
        .where(_a.address.in_(addresses))
        .order_by(_a.address)
        .with_for_update(key_share=True)
    )
    free: defaultdict[str, int] = defaultdict(int)
    free.update({address: units for address, units in connection.execute(locked)})  # noqa: C416 - rows are no tuples to mypy
    waiting = (
        select(_p.payer, func.sum(_p.amount_units))
        .join(refunds, _r.payment_id == _p.id)
        .where(_IS_WAITING, _p.payer.in_(addresses))
        .group_by(_p.payer)
    )
    for address, units in connection.execute(waiting):
        free[address] += int(units)
    return free


def _go_on(connection: Connection, payment_ids: Sequence[str]) -> None:
    if payment_ids:
        values = {"due_at_ms": None, "failure_reason": None}
        connection.execute(update(payments).where(_p.id.in_(payment_ids)).values(values))
        own = update(refunds).where(_r.payment_id.in_(payment_ids))
        connection.execute(own.values(awaits_float=0))


def _tell(connection: Connection, short: dict[str, str], at_ms: int) -> None:
    """An alert for each merchant whose float is short, by its id; none for the others."""
    for merchant_id, account in short.items():
        text = (
            f"refunds of merchant {merchant_id} wait: its float account {account} does not cover"
            f" them; top it up, `taprail admin merchant float {merchant_id}` says by how much"
        )
        raise_alert(connection, FLOAT_ALERT, merchant_id, "warning", text, at_ms)
    told = connection.scalars(select(alerts.c.subject).where(_OPEN_ALERTS)).all()
    cured = [merchant_id for merchant_id in told if merchant_id not in short]
    clear_alerts(connection, FLOAT_ALERT, cured, at_ms)


@dataclass(frozen=True, slots=True)
class Float:
    """A merchant's float account, and what refunds want of it; `short_units`: what it lacks."""

    merchant_id: str
    account: str
    balance_units: int
    held_units: int

    @property
    def short_units(self) -> int:
        return max(0, self.held_units - self.balance_units)


def open_float(
    connection: Connection, merchant_id: str, account: str, wrapped_key: bytes, at_ms: int
) -> None:
    """Give a merchant that has none a float account, whose key is new and wrapped."""
    opened = {"address": account, "wrapped_key": wrapped_key, "created_at_ms": at_ms}
    connection.execute(insert(accounts).values(opened))
    own = {"merchant_id": merchant_id, "account": account, "created_at_ms": at_ms}
    connection.execute(insert(merchant_floats).values(own))


def float_of(connection: Connection, merchant_id: str) -> Float | None:
    """A merchant's float; None when it has none."""
    statement = (
        select(_f.merchant_id, _f.account, _a.balance_units, _a.held_units)
        .join(accounts, _a.address == _f.account)
        .where(_f.merchant_id == merchant_id)
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else Float(*row)


# --- beside the sale ------------------------------------------------------------------------------


def of_sale(connection: Connection, sale_id: str) -> list[Refund]:
    """All refunds of a sale, the oldest first."""
    return _some(connection, _r.sale_id == sale_id)


def _some(connection: Connection, which: ColumnElement[bool]) -> list[Refund]:
    columns = [_r.sale_id if name == "sale_id" else _p[name] for name in Refund.__slots__]
    statement = select(*columns).join(refunds, _r.payment_id == _p.id).where(which)
    rows = connection.execute(statement.order_by(_p.created_at_ms, _p.id))
    return [Refund(*row) for row in rows]

"""Refunds: payments that give back a completed sale, or a part of it, to the account that paid.

A refund has an id, a hold, states and a history of its own and is settled like any payment; what
makes it a refund is that it points at its sale. It is paid from the merchant's float, an account in
custody, or by the merchant's own signature from where the sale was paid to. It counts into no
card's day, and no rule of fraud looks at it.

A refund that the float does not cover waits, unsigned, and never fails for that (see `floats`).
Every function works inside the caller's transaction.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, insert, select

from taprail_common.errors import OperatorError
from taprail_common.ids import payment_id
from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import card_signatures, floats, refund_shares, transitions
from taprail_gateway.ledger.by_hand import UnknownPaymentError
from taprail_gateway.ledger.card_signatures import StoredSignature
from taprail_gateway.ledger.funds import NO_DAY, Charge, hold_again
from taprail_gateway.ledger.schema import accounts, merchant_floats, payments, refunds
from taprail_gateway.ledger.upserts import Upsert

REFUND: Final = "refund"
"""The profile of a payment that no card has made."""

_PRIORITY: Final = 5
"""That of an everyday payment (public contract)."""

_REQUESTER_CHARACTERS: Final = 80
"""Of the column; a user's id always fits."""

_p, _r, _f = payments.c, refunds.c, merchant_floats.c


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
    """A refund of a sale, and where it is."""

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
        floats.await_float(connection, [wanted.payment_id])
        floats.fund(connection, wanted.at_ms)
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


# --- beside the sale ------------------------------------------------------------------------------


def of_sale(connection: Connection, sale_id: str) -> list[Refund]:
    """All refunds of a sale, the oldest first."""
    return _some(connection, _r.sale_id == sale_id)


def sale_of(connection: Connection, refund_id: str) -> str | None:
    """The sale that a refund gives back; None for what is no refund."""
    return connection.scalar(select(_r.sale_id).where(_r.payment_id == refund_id))


def _some(connection: Connection, which: ColumnElement[bool]) -> list[Refund]:
    columns = [_r.sale_id if name == "sale_id" else _p[name] for name in Refund.__slots__]
    statement = select(*columns).join(refunds, _r.payment_id == _p.id).where(which)
    rows = connection.execute(statement.order_by(_p.created_at_ms, _p.id))
    return [Refund(*row) for row in rows]

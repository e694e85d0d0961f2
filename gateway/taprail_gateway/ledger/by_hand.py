"""What an operator may do to payments by hand: guarded steps, each on record in its own commit.

Nothing here can make a second payment: a retry keeps the payment's authorization nonce, which the
token takes once; and only what nobody has ever signed for is cancelled. What is refused says why,
and what to do instead. Every function works inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, func, select, update

from taprail_common.clock import rfc3339
from taprail_common.errors import OperatorError
from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_gateway.ledger import actions, transitions
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.schema import chain_transactions, payment_is_open, payments

AT_ONCE: Final = 500
"""Payments changed in one commit: taps go on being answered between two of them."""

MAX_LISTED: Final = 10_000

_p = payments.c
_IS_UNSIGNED: Final = (
    (_p.state == PaymentState.PENDING.value) & payment_is_open & (_p.signed_until_s == 0)
)
_IS_LISTED: Final = (_p.state == PaymentState.CONFIRMATION_FAILED.value) & payment_is_open


class UnknownPaymentError(OperatorError):
    """There is no payment of this id."""

    code = "not_found"


class WrongStateError(OperatorError):
    """The payment is not where this could be done to it; nothing was changed."""

    code = "wrong_state"


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A payment on the list for manual review, which is not known to be paid or not."""

    id: str
    merchant_id: str
    amount_units: int
    created_at_ms: int
    signed_until_s: int
    bindings: int
    failure_reason: str | None


@dataclass(frozen=True, slots=True)
class Stuck:
    """How many payments hang, in how many transactions."""

    payments: int
    transactions: int


# --- one payment ----------------------------------------------------------------------------------

_NO_RETRY: Final = {
    PaymentState.PENDING: ("it waits to be sent anyway", "see `taprail admin queue status`"),
    PaymentState.PROCESSING: ("it is under way", "if it hangs: taprail admin queue reset-stuck"),
    PaymentState.SENT: ("it is under way", "if it hangs: taprail admin queue reset-stuck"),
    PaymentState.COMPLETED: ("it is paid", "nothing to do"),
    PaymentState.FAILED: (
        "it has failed for good, and its funds were given back",
        "take a new payment",
    ),
}
_NO_CANCEL: Final = {
    PaymentState.PROCESSING: ("it may be on chain", "wait for what becomes of it"),
    PaymentState.SENT: ("it may be on chain", "wait for what becomes of it"),
    PaymentState.CONFIRMATION_FAILED: (
        "what was signed for it may have been carried out",
        "wait: it fails by itself as soon as the chain proves that it cannot be paid any more",
    ),
    PaymentState.COMPLETED: ("it is paid", "give it back: taprail admin payment refund"),
    PaymentState.FAILED: ("it has failed already", "nothing to do"),
}


def retry(connection: Connection, payment_id: str, by: By) -> None:
    """Send a payment of the list round again; raises UnknownPaymentError or WrongStateError."""
    state, _ = _locked(connection, payment_id)
    if state is not PaymentState.CONFIRMATION_FAILED:
        raise _refused(payment_id, state, *_NO_RETRY[state])
    _retry(connection, [payment_id], by)


def cancel(connection: Connection, payment_id: str, by: By) -> None:
    """Fail a payment that nobody has signed for, and give its funds back; raises as `retry`."""
    state, signed_until_s = _locked(connection, payment_id)
    if state is not PaymentState.PENDING:
        raise _refused(payment_id, state, *_NO_CANCEL[state])
    if signed_until_s:
        until = rfc3339(signed_until_s * 1000)
        fix = "wait: it is sent again, or fails by itself once that time is past"
        what = f"what was signed for it can be carried out by anyone until {until}"
        raise _refused(payment_id, state, what, fix)
    _cancel(connection, [payment_id], by)
    actions.note(connection, "cancel", payment_id, by, before=state, after=PaymentState.FAILED)


# --- many payments --------------------------------------------------------------------------------


def review_list(connection: Connection, limit: int = MAX_LISTED) -> list[Reviewed]:
    """What is neither confirmed nor disproved, the oldest first."""
    columns = [_p[name] for name in Reviewed.__slots__]
    statement = select(*columns).where(_IS_LISTED).order_by(_p.created_at_ms).limit(limit)
    return [Reviewed(*row) for row in connection.execute(statement)]


def retry_listed(connection: Connection, payment_ids: Sequence[str], by: By) -> list[str]:
    """Send those of these payments round again that are still on the list; which they were."""
    listed = select(_p.id).where(_p.id.in_(payment_ids), _IS_LISTED).with_for_update()
    ids = list(connection.scalars(listed))
    if ids:
        _retry(connection, ids, by)
    return ids


def unsigned_count(connection: Connection) -> int:
    """How many pending payments nobody has ever signed for."""
    return connection.scalar(select(func.count()).where(_IS_UNSIGNED)) or 0


def cancel_unsigned(connection: Connection, by: By, limit: int = AT_ONCE) -> int:
    """Cancel pending payments that nobody has ever signed for, at most so many; how many."""
    unsigned = select(_p.id).where(_IS_UNSIGNED).order_by(_p.rank_ms).limit(limit)
    ids = list(connection.scalars(unsigned.with_for_update()))
    if ids:
        _cancel(connection, ids, by)
        actions.note(connection, "cancel-unsent", "queue", by, after=len(ids))
    return len(ids)


def ask_rescue(connection: Connection, older_than_s: int, by: By) -> Stuck:
    """Ask for help for what was sent so long ago: the same bytes again, then a higher fee."""
    hangs = (
        (_p.state == PaymentState.SENT.value)
        & payment_is_open
        & (_p.sent_at_ms <= by.at_ms - older_than_s * 1000)
    )
    count = connection.scalar(select(func.count()).where(hangs)) or 0
    t = chain_transactions.c
    asked = update(chain_transactions).where(
        t.id.in_(select(_p.chain_transaction_id).where(hangs)), t.status != "final"
    )
    rows = connection.execute(asked.values(rescue_asked_at_ms=by.at_ms)).rowcount
    stuck = Stuck(count, rows)
    if rows:
        actions.note(connection, "reset-stuck", "queue", by, after=rows)
    return stuck


# --- what they share ------------------------------------------------------------------------------


def _locked(connection: Connection, payment_id: str) -> tuple[PaymentState, int]:
    """A payment's state, which nobody changes before the commit, and until when it is signed."""
    which: ColumnElement[bool] = _p.id == payment_id
    statement = select(_p.state, _p.signed_until_s).where(which).with_for_update()
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise UnknownPaymentError(
            f"there is no payment {payment_id}", fix="see `taprail admin payment list`"
        )
    return PaymentState(row.state), row.signed_until_s


def _refused(payment_id: str, state: PaymentState, why: str, fix: str) -> WrongStateError:
    return WrongStateError(f"payment {payment_id} is {state}, {why}", fix=fix)


def _retry(connection: Connection, payment_ids: Sequence[str], by: By) -> None:
    detail = f"by {by.actor}" + (f": {by.reason}" if by.reason else "")
    transitions.apply(connection, PaymentEvent.RETRY, payment_ids, by.at_ms, detail=detail)
    for each in payment_ids:
        actions.note(
            connection,
            "retry",
            each,
            by,
            before=PaymentState.CONFIRMATION_FAILED,
            after=PaymentState.PENDING,
        )


def _cancel(connection: Connection, payment_ids: Sequence[str], by: By) -> None:
    why = f"cancelled by operator: {by.reason}"
    transitions.apply(
        connection,
        PaymentEvent.REJECT,
        payment_ids,
        by.at_ms,
        detail=f"by {by.actor}",
        failure_reason=why,
    )

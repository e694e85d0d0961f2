"""The list for manual review: what is not confirmed, for how long, why, and what happens next."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Connection

from taprail_common.clock import rfc3339
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Session
from taprail_gateway.ledger import by_hand
from taprail_gateway.ledger.by_hand import Reviewed
from taprail_gateway.ledger.under_way import times_left_out
from taprail_gateway.settle.judge import is_at_its_end


def print_review(session: Session, limit: int, *, as_json: bool) -> None:
    """Print the list; nothing in it has to be done by hand, everything may be hastened."""
    now_ms = session.clock.now_ms()
    listed, left_out = session.read(partial(_listed, limit=limit))
    rows = [_row(each, left_out.get(each.id, 0), now_ms) for each in listed]
    if as_json:
        output.print_json(rows)
        return
    for row in rows:
        row["amount"] = session.text(row["amountUnits"])
    columns = {
        "id": "payment",
        "ageS": "age, s",
        "amount": "amount",
        "merchant": "merchant",
        "reason": "why",
        "next": "what happens next",
    }
    output.listing(rows, as_json=False, columns=columns, what="payment", none="Nothing to review.")


def what_next(payment: Reviewed, left_out: int, now_ms: int) -> str:
    """What becomes of a payment when nobody does anything; `left_out`: transactions without it."""
    until_ms = payment.signed_until_s * 1000
    if is_at_its_end(left_out=left_out, bindings=payment.bindings):
        then = "it fails for good, and its funds are released"
    else:
        then = "it goes round again by itself"
    if until_ms > now_ms:
        return f"it may be paid until {rfc3339(until_ms)}; if not, {then}"
    return f"once a final block proves that it was not paid, {then}"


def _listed(connection: Connection, *, limit: int) -> tuple[list[Reviewed], dict[str, int]]:
    listed = by_hand.review_list(connection, limit)
    return listed, times_left_out(connection, [each.id for each in listed])


def _row(payment: Reviewed, left_out: int, now_ms: int) -> dict[str, Any]:
    return {
        "id": payment.id,
        "ageS": max(0, now_ms - payment.created_at_ms) // 1000,
        "amountUnits": payment.amount_units,
        "merchant": payment.merchant_id,
        "reason": payment.failure_reason,
        "signedUntilS": payment.signed_until_s,
        "bindings": payment.bindings,
        "next": what_next(payment, left_out, now_ms),
    }

"""`GET /api/payments`: payments as lists, a page as JSON or all of them as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from functools import partial
from typing import Final

from aiohttp import web

from taprail_common.api.base import Empty
from taprail_common.api.payments import MAX_PAGE, ListedPayment, PaymentList, PaymentQuery
from taprail_common.clock import rfc3339
from taprail_common.wire import to_ms
from taprail_gateway.api.context import Services
from taprail_gateway.api.errors import HttpError
from taprail_gateway.api.table import Call, Route
from taprail_gateway.directory import User
from taprail_gateway.ledger import payment_list
from taprail_gateway.ledger.payment_list import Listed, Place, Seen, Wanted

MAX_EXPORTED: Final = 100_000
"""Rows of one CSV file; who has more asks for a shorter time."""

_COLUMNS: Final = (
    *("id", "status", "amount", "currency", "cardUuid", "merchantId", "terminalId", "requestId"),
    *("authCode", "createdAt", "completedAt", "txHash", "failureReason"),
)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet would carry out (OWASP, "CSV injection")."""


async def payments(call: Call[Empty, PaymentQuery]) -> PaymentList | web.StreamResponse:
    """GET /api/payments."""
    query, seen = call.query, _seen(call.bearer)
    wanted = Wanted(
        state=None if query.status is None else query.status.value,
        card=query.card,
        merchant=query.merchant,
        from_ms=None if query.from_time is None else to_ms(query.from_time),
        to_ms=None if query.to_time is None else to_ms(query.to_time),
    )
    after = None if query.cursor is None else _place(query.cursor)
    if query.format == "csv":
        return await _export(call, seen, wanted, after)
    rows = await _page(call.services, seen, wanted, after, query.limit + 1)
    shown = rows[: query.limit]
    return PaymentList(
        payments=[_shown(call.services, row) for row in shown],
        next_cursor=_cursor(shown[-1]) if len(rows) > query.limit else None,
    )


def _seen(user: User) -> Seen:
    return Seen(
        all=user.is_operator,
        paid_by=user.id if user.is_customer else None,
        sold_by=user.id if user.is_merchant else None,
    )


async def _page(
    services: Services, seen: Seen, wanted: Wanted, after: Place | None, limit: int
) -> list[Listed]:
    work = partial(payment_list.page, seen=seen, wanted=wanted, after=after, limit=limit)
    return await services.ledger.read(work)


async def _export(
    call: Call[Empty, PaymentQuery], seen: Seen, wanted: Wanted, after: Place | None
) -> web.StreamResponse:
    """All pages, each read when the one before was taken: no file is ever in memory."""
    rows = await _page(call.services, seen, wanted, after, MAX_PAGE)
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/csv; charset=utf-8",
            "Content-Disposition": 'attachment; filename="payments.csv"',
        }
    )
    await response.prepare(call.request)
    await response.write(_lines([_COLUMNS]))
    written = 0
    while rows and written < MAX_EXPORTED:
        await response.write(_lines(_fields(row) for row in rows))
        written += len(rows)
        rows = await _page(call.services, seen, wanted, _place(_cursor(rows[-1])), MAX_PAGE)
    await response.write_eof()
    return response


def _lines(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([[_harmless(each) for each in row] for row in rows])
    return text.getvalue().encode()


def _harmless(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _fields(row: Listed) -> list[object]:
    return [
        *(row.id, row.state, row.amount_units, row.currency, row.card_uuid, row.merchant_id),
        *(row.terminal_id, row.request_id, row.auth_code, rfc3339(row.created_at_ms)),
        None if row.completed_at_ms is None else rfc3339(row.completed_at_ms),
        *(row.tx_hash, row.failure_reason),
    ]


def _shown(services: Services, row: Listed) -> ListedPayment:
    return ListedPayment(
        id=row.id,
        status=row.state,
        amount=row.amount_units,
        currency=row.currency,
        card_uuid=row.card_uuid,
        merchant_id=row.merchant_id,
        terminal_id=row.terminal_id,
        request_id=row.request_id,
        auth_code=row.auth_code,
        created_at=row.created_at_ms,
        completed_at=row.completed_at_ms,
        tx_hash=row.tx_hash,
        explorer_url=services.explorer_link(row.tx_hash),
        failure_reason=row.failure_reason,
    )


def _cursor(row: Listed) -> str:
    return f"{row.created_at_ms}-{row.id}"


def _place(cursor: str) -> Place:
    at_ms, _, payment_id = cursor.partition("-")
    if not payment_id:
        raise HttpError(400, "bad_request", "cursor: is none of ours", field="cursor")
    return Place(int(at_ms), payment_id)


ROUTES: Final = (
    Route(
        "GET",
        "/api/payments",
        "Payments, the newest first: one's own, the sales of one's merchants, or all",
        payments,
        PaymentList,
        query=PaymentQuery,
        csv=True,
    ),
)

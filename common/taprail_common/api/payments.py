"""Payments and refunds: begun, looked at, listed, sent round again."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from taprail_common.api.base import Answer, Part, Request, Time, Told, Why, Written
from taprail_common.payment_state import PaymentState
from taprail_common.wire import AmountUnits, Identifier, Timestamp

MAX_PAGE: Final = 200
_PAGE: Final = 50

Limit = Annotated[int, Field(ge=1, le=MAX_PAGE)]


class PaymentStarted(Told):
    """A verdict: approved. Signed (header `TapRail-Signature`) over these very bytes."""

    success: Literal[True]
    verdict: Literal["approved"]
    transaction_id: str
    status: Literal["pending"]
    message: str
    processing_time: Annotated[int, Field(ge=0, description="ms")]
    request_id: str
    terminal_id: str
    amount: int
    currency: str
    queue_job_id: str
    auth_code: str
    estimated_processing_time: str
    estimate_basis: Literal["recent", "configured"]
    status_url: str
    websocket_channel: str
    gateway_time: Written


class _Rule(Told):
    rule: str
    text: str


class Declined(Told):
    """A verdict: not charged, and never by this request. Signed like an approval."""

    success: Literal[False]
    verdict: Literal["declined"]
    error: str
    reason: str
    reason_code: str
    processing_time: Annotated[int, Field(ge=0, description="ms")]
    request_id: str
    terminal_id: str
    amount: int
    currency: str
    gateway_time: Written
    left_units: int | None = None
    pin_tries_left: int | None = None
    rules: list[_Rule] | None = None


class PaymentMetadata(Told):
    """How it came about."""

    payment_method: Literal["nfc", "refund"]
    terminal_id: str
    auth_code: str
    processing_type: Literal["async"]
    request_id: str


class RefundOfSale(Told):
    """A refund, beside its sale."""

    id: str
    status: PaymentState
    amount: int
    tx_hash: str | None
    created_at: Written
    completed_at: Written | None
    failure_reason: str | None


class Transaction(Told):
    """A payment; a sale has `refundedUnits` and `refunds`, a refund has `refundOf`."""

    id: str
    status: PaymentState
    amount: int
    currency: str
    tx_hash: str | None
    created_at: Written
    processing_started_at: Written | None
    completed_at: Written | None
    processing_time: Annotated[str | None, Field(description="Like 1234ms.")]
    failure_reason: str | None
    explorer_url: str | None
    refunded_units: Annotated[
        int | None, Field(description="Given back or promised to be: all that has not failed.")
    ] = None
    refunds: list[RefundOfSale] | None = None
    refund_of: Annotated[str | None, Field(description="The sale that it gives back.")] = None
    metadata: PaymentMetadata


class PaymentStatus(Told):
    """Where a payment is."""

    success: Literal[True]
    transaction: Transaction


class OwnAuthorization(Request):
    """EIP-3009 `transferWithAuthorization`, signed by the account that the sale was paid to.

    `to` is the account that paid, `value` the amount, `validAfter` 0 and `nonce` the refund's id:
    `payment_id("refund:user:<id>", <request id>)`, so that the request id must be given, too.
    """

    valid_before: Annotated[int, Field(ge=0, lt=2**40, description="Unix seconds.")]
    signature: Annotated[str, Field(pattern=r"^0x[0-9a-f]{130}$", description="r, s and v.")]


class RefundRequest(Request):
    """How much of a sale is given back; from the merchant's float, unless it is signed for."""

    amount: AmountUnits
    request_id: Identifier | None = None
    authorization: OwnAuthorization | None = None


class RefundStarted(Answer):
    """A refund was taken on; asked for again by the same request, the answer is the same."""

    transaction_id: str
    refund_of: str
    status: Literal["pending"] = "pending"
    message: str = "Refund initiated successfully"
    amount: int
    currency: str
    request_id: str
    created_at: Time
    status_url: str
    websocket_channel: str


class PaymentQuery(Request):
    """Which payments."""

    status: PaymentState | None = None
    card: Identifier | None = None
    merchant: Identifier | None = None
    from_time: Annotated[Timestamp | None, Field(alias="from")] = None
    to_time: Annotated[Timestamp | None, Field(alias="to")] = None
    limit: Limit = _PAGE
    cursor: Annotated[
        str | None,
        Field(pattern=r"^[0-9]{1,15}-0x[0-9a-f]{64}$", description="`nextCursor` of a page."),
    ] = None
    format: Annotated[Literal["json", "csv"], Field(description="`csv` is all pages.")] = "json"


class ListedPayment(Part):
    """A payment in a list."""

    id: str
    status: PaymentState
    amount: int
    currency: str
    card_uuid: str
    merchant_id: str
    terminal_id: str
    request_id: str
    auth_code: str
    created_at: Time
    completed_at: Time | None
    tx_hash: str | None
    explorer_url: str | None
    failure_reason: str | None


class PaymentList(Answer):
    """A page, the newest first."""

    payments: list[ListedPayment]
    next_cursor: Annotated[str | None, Field(description="null: this was the last page.")]


class Retried(Answer):
    """It goes round again."""

    transaction_id: str
    status: PaymentState


class StuckQuery(Why):
    """What counts as stuck."""

    older_than_seconds: Annotated[
        int | None,
        Field(ge=0, le=86_400, description="`sent` for so long; by default as it is set."),
    ] = None


class Reset(Answer):
    """What will be broadcast again, and then bumped."""

    payments: int
    transactions: int

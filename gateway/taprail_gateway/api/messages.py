"""What is sent and answered over HTTP, beside payments themselves (`taprail_common.wire`).

Requests refuse what they do not know; answers may carry more at any time.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from taprail_common.clock import rfc3339
from taprail_common.payment_state import PaymentState
from taprail_common.wire import SigningTerms
from taprail_gateway.queue_health import Health

_TIME: Final = {"type": "string", "format": "date-time"}

Time = Annotated[int, PlainSerializer(rfc3339, return_type=str), Field(json_schema_extra=_TIME)]
"""Unix milliseconds inside, RFC 3339 outside."""

Written = Annotated[str, Field(json_schema_extra=_TIME)]
"""The same, written already."""


class Request(BaseModel):
    """Something that is sent."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, validate_by_name=True
    )


class Empty(Request):
    """Nothing is sent."""


class Answer(BaseModel):
    """Something that is answered."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        serialize_by_alias=True,
        json_schema_serialization_defaults_required=True,
    )
    http_status: ClassVar[int] = 200
    success: Literal[True] = True


class Part(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        from_attributes=True,
        serialize_by_alias=True,
        json_schema_serialization_defaults_required=True,
    )


class Problem(BaseModel):
    """Why something was not done. It is no verdict, and says nothing about money."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)

    success: Literal[False] = False
    error: Annotated[str, Field(description="For people.")]
    reason_code: Annotated[
        str | None, Field(description="For programs.", pattern=r"^[a-z0-9_]{1,40}$")
    ] = None
    field: Annotated[str | None, Field(description="The part of the request that is wrong.")] = None
    request_id: Annotated[str | None, Field(description="Of a fault of ours, in its log.")] = None


class NotFound(BaseModel):
    """There is no such thing, or it is none of the caller's business."""

    model_config = ConfigDict(alias_generator=to_camel)

    success: Literal[False]
    error: str
    reason_code: str | None = None


# --- written by other modules, byte for byte; here for the documentation --------------------------


class _Written(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)


class PaymentStarted(_Written):
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


class _Rule(_Written):
    rule: str
    text: str


class Declined(_Written):
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
    rules: list[_Rule] | None = None


class PaymentMetadata(_Written):
    """How it came about."""

    payment_method: Literal["nfc", "refund"]
    terminal_id: str
    auth_code: str
    processing_type: Literal["async"]
    request_id: str


class RefundOfSale(_Written):
    """A refund, beside its sale."""

    id: str
    status: PaymentState
    amount: int
    tx_hash: str | None
    created_at: Written
    completed_at: Written | None
    failure_reason: str | None


class Transaction(_Written):
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


class PaymentStatus(_Written):
    """Where a payment is."""

    success: Literal[True]
    transaction: Transaction


class Hello(_Written):
    """Who a terminal is here, and the terms that cards sign under."""

    gateway_id: str
    gateway_time: Written
    terminal_id: str
    status: Literal["active", "revoked"]
    merchant_id: str
    merchant_name: str
    currency: str
    decimals: int
    signing: SigningTerms


class Alive(_Written):
    """It lives."""

    status: Literal["ok"]


class Ready(_Written):
    """It can do its work."""

    status: Literal["ready"]


class NotReady(_Written):
    """What is in the way."""

    status: Literal["not ready"]
    problems: list[str]


# --- queues and sockets ---------------------------------------------------------------------------


class QueuePart(Part):
    """One queue; `completed` and `failed` are of the window, `perMinute` of the last minute."""

    status: Health
    waiting: int
    active: int
    completed: int
    failed: int
    delayed: int
    oldest_seconds: Annotated[float | None, Field(validation_alias="oldest_s")]
    per_minute: int


class Queues(Part):
    """All queues, by name."""

    payment: QueuePart
    mint: QueuePart
    notification: QueuePart
    webhook: QueuePart
    cache: QueuePart


class QueueStatus(Answer):
    """How the queues are doing."""

    queues: Queues
    states: Annotated[
        dict[PaymentState, int],
        Field(description="Payments; `completed` and `failed` are those of the window."),
    ]
    window_seconds: int
    avg_seconds: Annotated[
        float | None, Field(description="From acceptance to completion; null: none was completed.")
    ]
    per_second: Annotated[float, Field(description="Payments completed, over the last minute.")]
    failures_by_reason: dict[str, int]
    timestamp: Time


class Websocket(Part):
    """Who listens at this gateway."""

    status: Literal["active", "inactive"]
    total_connections: int
    unique_users: int
    connected_users: Annotated[
        list[str], Field(description="The caller's own id; all of them for operators.")
    ]
    timestamp: Time


class WebsocketStatus(Answer):
    """How the push is doing."""

    websocket: Websocket


Json = dict[str, Any]

"""What the messages of the contract are made of: requests, answers, times, and problems."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from taprail_common.clock import rfc3339
from taprail_common.ids import IDENTIFIER_PATTERN
from taprail_common.wire import to_ms

IDEMPOTENCY_HEADER: Final = "Idempotency-Key"

MAX_REASON: Final = 200
"""Characters; a reason may become part of what a customer is told."""

_TIME: Final = {"type": "string", "format": "date-time"}


def _as_ms(value: object) -> object:
    return to_ms(datetime.fromisoformat(value)) if isinstance(value, str) else value


Time = Annotated[
    int,
    BeforeValidator(_as_ms),
    PlainSerializer(rfc3339, return_type=str),
    Field(json_schema_extra=_TIME),
]
"""Unix milliseconds inside, RFC 3339 outside."""

Written = Annotated[str, Field(json_schema_extra=_TIME)]
"""The same, as it is written."""

Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON, description="For the record.")]
AfterId = Annotated[
    str, Field(pattern=IDENTIFIER_PATTERN, description="The last id of the page before.")
]


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


class Told(BaseModel):
    """What is answered byte for byte as it was written (verdicts, signed answers)."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)


class Why(Request):
    """Why something is done."""

    reason: Reason | None = None

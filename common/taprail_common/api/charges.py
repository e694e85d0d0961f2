"""Charges: what a till asks a terminal to take, and what became of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from taprail_common.api.base import Answer, Request, Written
from taprail_common.api.payments import Transaction
from taprail_common.charge_wire import MAX_CHARGE_S, MAX_TEXT_CHARACTERS
from taprail_common.wire import AmountUnits, Currency, Identifier


class ChargeStatus(StrEnum):
    """Where a charge is."""

    WAITING = "waiting"
    """The terminal has not said anything yet."""
    ARMED = "armed"
    """The terminal asks for a card."""
    APPROVED = "approved"
    DECLINED = "declined"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REFUSED = "refused"


def _printable(text: str) -> str:
    # Neither control characters nor marks that turn the writing direction.
    if not text.isprintable():
        raise ValueError("has characters that cannot be shown")
    return text


class ChargeOrder(Request):
    """What a till asks for."""

    amount: AmountUnits
    currency: Currency
    reference: Annotated[Identifier, Field(description="The till's own name for the sale.")]
    deadline_seconds: Annotated[int, Field(ge=1, le=MAX_CHARGE_S)] = 60


class DisplayOrder(Request):
    """What a terminal is to show while there is nothing to pay."""

    text: Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS), AfterValidator(_printable)]


class ChargeBody(BaseModel):
    """A charge."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True
    )

    charge_id: str
    terminal_id: str
    merchant_id: str
    reference: str
    amount: int
    currency: str
    status: ChargeStatus
    reason_code: Annotated[str | None, Field(description="Why it came to no payment.")]
    transaction_id: str | None
    created_at: Written
    deadline: Written
    armed_at: Written | None
    ended_at: Written | None
    payment: Annotated[Transaction | None, Field(description="What it came to, as it is now.")]


class ChargeAnswer(Answer):
    """A charge as it is now."""

    charge: ChargeBody


class ChargeMade(ChargeAnswer):
    """A new charge."""

    http_status: ClassVar[int] = 201


class CancelAnswer(ChargeAnswer):
    """Who came first; only one of them does."""

    won: Annotated[
        Literal["cancel", "tap", "deadline", "terminal"],
        Field(description="`tap`: there was a verdict already; if approved, `charge.payment`."),
    ]


class DisplayAnswer(Answer):
    """What the terminal shows now, or as soon as it connects."""

    terminal_id: str
    text: str

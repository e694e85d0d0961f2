"""What gateway and terminal say to each other about charges, over the socket that both keep open.

The gateway signs what it says (Domain.COMMAND, about the event's name), and every message names the
terminal that it is for. The terminal's answers need no signature of their own: it has proved itself
when it connected. A message says nothing about money; that is decided when a tap is accepted.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from taprail_common.wire import AmountUnits, Identifier, Timestamp, to_ms

REQUEST_EVENT: Final = "charge:request"
CANCEL_EVENT: Final = "charge:cancel"
TEXT_EVENT: Final = "terminal:display"
OPEN_EVENT: Final = "charge:open"
"""A terminal that has connected asks for what it is to take, naming what it has."""
ANSWER_EVENT: Final = "charge:answer"

MAX_CHARGE_S: Final = 300
"""The longest that a charge may wait for its tap (public contract)."""

MAX_TEXT_CHARACTERS: Final = 64
"""On the idle display: four lines of sixteen on the smallest."""


class _Message(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True
    )


class ChargeRequest(_Message):
    """Take this, until then."""

    terminal_id: Identifier
    charge_id: Identifier
    amount: AmountUnits
    currency: Annotated[str, Field(pattern=r"^[A-Z0-9]{2,12}$")]
    deadline: Timestamp

    @property
    def deadline_ms(self) -> int:
        return to_ms(self.deadline)


class ChargeCancel(_Message):
    """Do not take this any more; it is over at the gateway."""

    terminal_id: Identifier
    charge_id: Identifier
    reason: Annotated[str, Field(max_length=40)]


class DisplayText(_Message):
    """Show this while there is nothing to pay; no text is the terminal's own."""

    terminal_id: Identifier
    text: Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]
    at: Timestamp


class ChargeReply(StrEnum):
    """What a terminal answers to a request."""

    ARMED = "armed"
    BUSY = "busy"
    """It has something else to do; no card was or will be asked for."""
    REFUSED = "refused"
    """It cannot take this at all; the code says why."""
    CANCELLED = "cancelled"
    """Staff took it back at the terminal."""
    TAPPED = "tapped"
    """A card was read for it; the request is on its way."""


class ChargeAnswer(_Message):
    """A terminal's answer."""

    charge_id: Identifier
    answer: ChargeReply
    reason_code: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")] | None = None

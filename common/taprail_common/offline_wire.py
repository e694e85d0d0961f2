"""What a gateway allows a terminal to take while the two cannot speak, signed once and kept.

Answers for the form of that policy and its bounds. Who may have one, and whether a tap was within
it, is decided at the gateway (`offline_policy`); what it lets through, at the terminal (`offline`).
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from taprail_common.wire import (
    SIGNED_VALIDITY_S,
    AmountUnits,
    Currency,
    Identifier,
    SigningTerms,
    Timestamp,
    to_ms,
)

POLICY_PATH: Final = "/api/terminals/offline-policy"

MAX_COUNT: Final = 50
"""Taps that may wait at once: half of what an outbox holds, so that selling online goes on."""

LEAST_AGE_S: Final = 60
MOST_AGE_S: Final = 86_400
"""A day: what a card has signed can be carried out by whoever has it until it ends."""

MAX_FROZEN: Final = 256
"""Frozen cards that a policy names; with more of them there is none, and so no offline taps."""

FROZEN_DIGITS: Final = 16
"""The last digits of an account: two that share them are both refused, which harms nobody."""

SETTLEMENT_S: Final = SIGNED_VALIDITY_S
"""What a card signs offline outlives the tap's age by as much as it does online."""


class OfflinePolicy(BaseModel):
    """A gateway's leave for one terminal. What an older terminal does not know it refuses: it might
    be a limit.

    `max_age_s` bounds three things: how long after its issue it is good for, how long a tap waits
    before it must have reached the gateway, and the oldest tap that may wait while another is
    taken. `signing` are the terms that cards sign under, for a terminal that begins without its
    gateway.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, validate_by_name=True
    )

    terminal_id: Identifier
    merchant_id: Identifier
    currency: Currency
    version: Annotated[int, Field(gt=0, lt=2**31)]
    issued_at: Timestamp
    per_tap_units: AmountUnits
    max_count: Annotated[int, Field(gt=0, le=MAX_COUNT)]
    sum_units: AmountUnits
    max_age_s: Annotated[int, Field(ge=LEAST_AGE_S, le=MOST_AGE_S)]
    revision: Identifier
    """Changes with the version and with the cards that are frozen; a hello tells the newest."""
    frozen: Annotated[
        tuple[Annotated[str, Field(pattern=rf"^[0-9a-f]{{{FROZEN_DIGITS}}}$")], ...],
        Field(max_length=MAX_FROZEN, strict=False),
    ]
    signing: SigningTerms

    @property
    def issued_at_ms(self) -> int:
        return to_ms(self.issued_at)

    @property
    def good_until_ms(self) -> int:
        """No tap is taken by it from then on."""
        return self.issued_at_ms + self.max_age_s * 1000

    def names(self, account: str) -> bool:
        """Whether the card of this account is among the frozen."""
        return account[-FROZEN_DIGITS:] in self.frozen

    def to_json(self) -> bytes:
        """The bytes that are signed."""
        return self.model_dump_json(by_alias=True).encode()

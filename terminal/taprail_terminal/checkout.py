"""One sale at the counter, as a pure state table.

Answers for what the customer and the merchant are shown, and for when a card may be read. It holds
no money and no I/O: what must not be forgotten is in the outbox, and time comes in as an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """What the terminal shows; each has its own light, sound and words."""

    IDLE = "idle"
    """Nothing to pay."""
    READY = "ready"
    """An amount is set: tap a card."""
    READING = "reading"
    """A card is in the field and being read: hold still."""
    WAITING = "waiting"
    """The card is read and may be lifted; the gateway is asked."""
    APPROVED = "approved"
    """A verified verdict says yes."""
    SETTLED = "settled"
    """The transfer is final on the chain."""
    DECLINED = "declined"
    """A verified verdict says no, for good."""
    UNKNOWN = "unknown"
    """Nobody has said anything yet: neither paid nor unpaid."""
    TRY_AGAIN = "try_again"
    """The card could not be read to its end; nothing was charged."""
    CARD_REFUSED = "card_refused"
    """Not a card that this terminal takes; nothing was charged."""
    OUT_OF_SERVICE = "out_of_service"
    """The reader is lost and being reopened."""


@dataclass(frozen=True, slots=True)
class View:
    """All that lights, sounds and display need to know; feedback draws it and decides nothing.

    `amount_units` is None when there is nothing to pay. `reason` is a sentence for people.
    `left_units` is what a limit leaves, when the gateway said so. `late` marks the result of an
    earlier sale, which is shown over the current one.
    """

    phase: Phase
    amount_units: int | None
    currency: str
    decimals: int
    card_present: bool
    reason: str | None = None
    left_units: int | None = None
    late: bool = False
    auth_code: str | None = None

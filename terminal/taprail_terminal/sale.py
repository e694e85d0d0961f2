"""The words of a sale: what may happen to it, and what has to be done then.

Answers for the form of phases, events and effects only; what follows from what is in `checkout`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """What the terminal shows; each has its own light, sound and words."""

    IDLE = "idle"
    """Nothing to pay."""
    READY = "ready"
    """An amount is set: tap a card."""
    READING = "reading"
    """A card is in the field and being read: hold still."""
    PIN = "pin"
    """The card is read and may be lifted; its holder types the PIN."""
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
    OFFLINE = "offline"
    """Taken by the gateway's leave and stored, without its verdict: no green."""
    TRY_AGAIN = "try_again"
    """The card could not be read to its end; nothing was charged."""
    CARD_REFUSED = "card_refused"
    """Not a card that this terminal takes; nothing was charged."""
    OUT_OF_SERVICE = "out_of_service"
    """The reader is lost and being reopened."""


@dataclass(frozen=True, slots=True)
class View:
    """All that lights, sounds and display need to know; feedback draws it and decides nothing.

    `amount_units` is None when there is nothing to pay. `reason` is a sentence for people, and
    `reason_code` finds the words that fit the display.
    `left_units` is what a limit leaves, when the gateway said so. `late` marks the result of an
    earlier sale, which is shown over the current one. `left_behind` says that the customer has
    forgotten the card. `request_id` says whose outcome this is, and
    is not shown.
    """

    phase: Phase
    amount_units: int | None
    currency: str
    decimals: int
    card_present: bool
    reason: str | None = None
    reason_code: str | None = None
    left_units: int | None = None
    late: bool = False
    left_behind: bool = False
    auth_code: str | None = None
    request_id: str | None = None
    typed: str = ""
    """What stands on the keypad's line: an amount, or a dot for each digit of a PIN."""
    tries_left: int | None = None
    idle_text: str | None = None
    """The merchant's own words for the time in which there is nothing to pay."""


@dataclass(frozen=True, slots=True)
class Sale:
    """One request to the gateway. `earlier` marks one that a former run of the agent has sent,
    `charge_id` names what the till has asked for through the gateway."""

    request_id: str
    amount_units: int
    earlier: bool = False
    charge_id: str | None = None


@dataclass(frozen=True, slots=True)
class Arm:
    """The till asks for an amount; through the gateway if it names a charge."""

    amount_units: int
    charge_id: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """The till takes its amount back, or clears what is shown."""


@dataclass(frozen=True, slots=True)
class CardSensed:
    """A card came into the field of an armed reader."""


@dataclass(frozen=True, slots=True)
class CardRead:
    """Its proof is in hand; `request_id` is newly minted. With `needs_pin`, nothing is sent before
    its holder has typed one."""

    request_id: str
    needs_pin: bool = False


@dataclass(frozen=True, slots=True)
class PinGiven:
    """The PIN is typed and sealed; this table never sees it."""


@dataclass(frozen=True, slots=True)
class PinLeft:
    """Nobody types it, or its holder does not want to: nothing was sent."""

    reason: str = "no PIN was entered"
    code: str = "pin_missing"


@dataclass(frozen=True, slots=True)
class Typed:
    """What stands on the keypad's line now, as it may be shown."""

    text: str


CARD_CHANGED: Final = "card_changed"
"""The reason code of a card that became another one while it was read."""


@dataclass(frozen=True, slots=True)
class CardTorn:
    """It left before it was read."""

    reason: str
    code: str = "torn"


@dataclass(frozen=True, slots=True)
class CardUnreadable:
    """It is still there, but could not be understood."""

    reason: str
    code: str = "unreadable"


@dataclass(frozen=True, slots=True)
class CardRejected:
    """It is no card that this terminal takes."""

    reason: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class CardLies:
    """One lies there that nobody has put there for this sale, and is not read. `unseen`: it came
    while the reader was away, so that nobody knows whose it is."""

    unseen: bool = False


@dataclass(frozen=True, slots=True)
class CardRemoved:
    """It has cleanly left."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """The request could not be stored, so it was not sent: nothing was or will be charged."""

    request_id: str
    reason: str
    code: str = "not_stored"


@dataclass(frozen=True, slots=True)
class TakenOffline:
    """The request is stored, within what the gateway allows: it will be asked when it is back."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Result:
    """A verified, final verdict on a request of this sitting or of an earlier one."""

    request_id: str
    approved: bool
    reason: str | None = None
    code: str | None = None
    left_units: int | None = None
    auth_code: str | None = None
    settled: bool = False
    """Final on the chain by now; only of an earlier sale."""
    tries_left: int | None = None
    may_come_again: bool = False
    """Declined for its PIN alone: the same card may be tapped again for the same sale."""


NOT_SETTLED: Final = "not_settled"
"""The reason code under which an approved sale comes back: nobody knows yet whether it is paid."""

PAYMENT_FAILED: Final = "payment_failed"
"""The same, once it is proven that it never will be."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The transfer of a request is final on the chain."""

    request_id: str


@dataclass(frozen=True, slots=True)
class NotSettled:
    """The chain has not moved the money of an approved sale: staff has to know."""

    sale: Sale
    code: str = NOT_SETTLED


@dataclass(frozen=True, slots=True)
class SettledAfterAll:
    """The money of a sale that had come back has moved in the end."""

    sale: Sale


@dataclass(frozen=True, slots=True)
class TimeUp:
    """The clock reached `Checkout.deadline_s`."""


@dataclass(frozen=True, slots=True)
class ReaderLost:
    """The reader does not answer."""

    reason: str


@dataclass(frozen=True, slots=True)
class ReaderBack:
    """The reader is open and answers."""


Event = (
    Arm
    | Cancel
    | CardSensed
    | CardRead
    | PinGiven
    | PinLeft
    | Typed
    | CardTorn
    | CardUnreadable
    | CardRejected
    | CardLies
    | CardRemoved
    | NotSent
    | TakenOffline
    | Result
    | Settled
    | NotSettled
    | SettledAfterAll
    | TimeUp
    | ReaderLost
    | ReaderBack
)


@dataclass(frozen=True, slots=True)
class Ask:
    """Effect: store this sale's request, then ask the gateway."""

    sale: Sale


@dataclass(frozen=True, slots=True)
class SetReader:
    """Effect: let the reader take one card, or none. With `by_itself` no person has asked for the
    sale: a card that was put back while its own verdict was awaited must not pay again."""

    armed: bool
    by_itself: bool = False


@dataclass(frozen=True, slots=True)
class Show:
    """Effect: show this."""

    view: View


Effect = Ask | SetReader | Show

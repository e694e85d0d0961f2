"""What a conversation with a card comes to."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from taprail_common.offline_wire import OfflinePolicy
from taprail_common.wire import PlainSunProof, SignedProof, SunProof, UidProof


@dataclass(frozen=True, slots=True)
class CardProof:
    """What the card proves of itself; holds identifying values, so it shows none.

    `request_id` is set when the card has signed for one request and no other.
    """

    proof: SunProof | PlainSunProof | UidProof | SignedProof
    request_id: str | None = None
    offline: OfflinePolicy | None = None
    """By whose leave it is taken without the gateway."""

    def __repr__(self) -> str:
        return f"CardProof({self.proof.profile})"


@dataclass(frozen=True, slots=True)
class NotOurs:
    """A card, but none that this terminal takes; `reason` is for the customer."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Garbled:
    """An answer that no card gives: read again while the card is there. `detail` is for logs."""

    detail: str


Outcome = CardProof | NotOurs | Garbled
Conversation = Generator[bytes, bytes, Outcome]

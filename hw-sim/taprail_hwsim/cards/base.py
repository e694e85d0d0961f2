"""What a reader's field may assume of a card: ISO/IEC 14443-3 type A facts and one frame exchange.

Answers for the vocabulary only. Protocols above it live in `iso_dep` (type 4) and `ntag21x`
(type 2); radio, time and CRC belong to the reader chip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class CardAnswer:
    """One frame from card to reader, without its CRC_A.

    `apdu` names the command that this frame completed (None for protocol frames), so that tests can
    count and follow commands. `short` marks a 4-bit ACK/NAK, which carries no CRC.
    """

    frame: bytes
    apdu: str | None = None
    short: bool = False


class Card(Protocol):
    """A card as a PN532 sees it. Methods are called from one thread at a time."""

    kind: str  # a name for events and pictures, never an identity

    @property
    def uid(self) -> bytes: ...

    @property
    def atqa(self) -> int:
        """ATQA as the 16-bit number of ISO/IEC 14443-3 (sent least significant byte first)."""

    @property
    def sak(self) -> int: ...

    @property
    def ats(self) -> bytes | None:
        """Answer to select with its length byte, or None for a card without ISO/IEC 14443-4."""

    def power_lost(self) -> None:
        """The field is gone: forget everything volatile."""

    def activate(self) -> bool:
        """Answer REQA, anticollision and SELECT; False when the card's state forbids an answer."""

    def receive(self, frame: bytes) -> CardAnswer | None:
        """Take one frame (CRC checked and removed); None means the card stays silent."""

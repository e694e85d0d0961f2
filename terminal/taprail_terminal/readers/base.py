"""What a card reader's driver has to do, and no more.

A driver fills in a few blocking primitives, called from one thread. Time-outs of a whole session,
retries, removal, recovery and logging belong to `polling` and `supervisor`, so that every driver
gets them alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from taprail_common.errors import TapRailError


class CardSilentError(TapRailError):
    """The card did not answer in time; it may have left."""

    code = "card_silent"
    retryable = True


class CardGarbledError(TapRailError):
    """The card answered, but what arrived is damaged. It is still there."""

    code = "card_garbled"
    retryable = True


@dataclass(frozen=True, slots=True)
class FoundCard:
    """A card in the field. Its UID identifies a person's card, so it is never shown."""

    uid: bytes
    iso_dep: bool

    def __repr__(self) -> str:
        return f"FoundCard(uid=…, iso_dep={self.iso_dep})"


class Driver(ABC):
    """One reader. A primitive that fails for any reason of the reader raises PartError.

    Each call returns within about two seconds, whatever the card does; a call that hangs is noticed
    by the supervisor, which then abandons the driver.
    """

    @abstractmethod
    def check(self) -> None:
        """Raise OperatorError when this cannot work before a person changes something."""

    @abstractmethod
    def open(self) -> str:
        """Make the reader ready with its field off; gives its name and version for people."""

    @abstractmethod
    def close(self) -> None:
        """Leave the reader so that the next program can open it. Never raises."""

    @abstractmethod
    def ping(self) -> None:
        """Make sure that the reader answers; touches no card."""

    def soft_reset(self) -> None:
        """Bring a reader that gives trouble back into order without closing it."""
        self.ping()

    @abstractmethod
    def wait_for_card(self) -> FoundCard | None:
        """Look for a card for a fraction of a second, with the field on; None when none came."""

    @abstractmethod
    def look_again(self) -> FoundCard | None:
        """Switch the field off and on and look once. None only when nothing answered at all;
        raises CardGarbledError when something did. The card starts anew."""

    @abstractmethod
    def start_session(self, *, budget_s: float) -> None:
        """Open the dialogue with the ISO-DEP card that was found last; all of it ends when the
        budget is used up. Raises CardSilentError, CardGarbledError."""

    @abstractmethod
    def exchange(self, apdu: bytes) -> bytes:
        """Send a command APDU, give the response APDU. Raises CardSilentError, CardGarbledError."""

    @abstractmethod
    def still_answers(self) -> bool:
        """Ask an ISO-DEP card for a sign of life that is no read; a damaged one is a sign too."""

    def sees_another(self) -> bool:
        """Whether one more card answers beside the one that was found last, whose dialogue goes
        on. A reader that can see one card only says no."""
        return False

    @abstractmethod
    def rest(self) -> None:
        """Switch the field off until the next look."""

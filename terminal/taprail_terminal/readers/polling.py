"""One run of a reader in its own thread, from its opening until it fails or is stopped.

Answers for *one read per card presence*: after a card was sensed no other is looked for until it
has cleanly left, and a damaged answer is no leaving. A permit to read is used up by the first card,
so a slow listener can never let a second one through. What lies there when the reader is opened, or
was put back before a permit that nobody asked for, has to leave first. Blocking calls happen here
and only here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

from taprail_common.errors import PartError
from taprail_common.wire import PlainSunProof
from taprail_terminal.card_session import converse, is_random_uid, uid_outcome
from taprail_terminal.charge import Charge
from taprail_terminal.outcome import CardProof, Garbled, NotOurs, Outcome
from taprail_terminal.readers.base import CardGarbledError, CardSilentError, Driver, FoundCard
from taprail_terminal.readers.ladder import WITHIN_A_RUN, Rung, Sign, next_rung

READ_ATTEMPTS: Final = 3
"""Reads in one presence; each starts the card anew, so its tap counter may skip. That is fine."""

SESSION_BUDGET_S: Final = 1.5
"""For all attempts together. With the longest single exchange it stays below HANG_LIMIT_S."""

TWO_CARDS: Final = NotOurs("two_cards", "two cards lie on the reader; one has to be chosen")
"""Neither pays: which one answers is chance, and not the customer's will."""

BOUNCE_S: Final = 0.7
"""A card that comes back this soon after it was read never really left: a hand that hesitates at
the edge of the field is one tap. Someone who taps the same card again takes longer."""

PING_EVERY_S: Final = 1.0
PRESENCE_EVERY_S: Final = 0.05
STRIKE_PAUSE_S: Final = 0.02
EMPTY_LOOKS: Final = 2
"""A card has left when the field was empty this often in a row."""

ChargeSource = Callable[[], Charge | NotOurs | None]
"""What a signing card that is here now shall sign, or why it is not taken; None: nothing. Called in
the reader's thread, which it may keep waiting for as long as people hold a card."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Opened:
    """The reader answers."""

    description: str


@dataclass(frozen=True, slots=True)
class Sensed:
    """A card came, and is being read."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The card was read to its end."""

    outcome: CardProof | NotOurs


@dataclass(frozen=True, slots=True)
class Torn:
    """The card left before it was read."""


@dataclass(frozen=True, slots=True)
class Changed:
    """Another card has taken its place before it was read: two in a wallet, or sleight of hand."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The card is there and could not be understood; `detail` says why, for logs."""

    detail: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Lies:
    """A card lies there that nobody has put there for this sale: it is not read, and `Gone` tells
    when it has left. `unseen`: it was there when the reader was opened."""

    unseen: bool = False


@dataclass(frozen=True, slots=True)
class Gone:
    """The card has cleanly left."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The reader does not answer any more; `reason` is one line for people."""

    reason: str


Report = Opened | Sensed | Finished | Torn | Changed | Unreadable | Lies | Gone | Lost


class Poller:
    """Runs a driver until `stop`; `post(report, at_s)` is called in its thread."""

    def __init__(
        self, driver: Driver, post: Callable[[Report, float], None], charge: ChargeSource
    ) -> None:
        self._driver = driver
        self._post_to = post
        self._charge = charge
        self._wake = threading.Condition()
        self._stopping = False
        self._permit: int | None = None
        self._by_itself = False
        self._sensed = 0
        self._resting = True
        self._last_read: FoundCard | None = None
        self._last_left_s = 0.0
        self.opened = False
        self.busy_since_s = time.monotonic()
        """When the driver's current call began; the supervisor looks at it to notice a hang."""

    def permit(self, sensed_so_far: int | None, *, by_itself: bool = False) -> None:
        """Allow one read, to a listener that has heard of so many cards; None takes it back.

        With `by_itself` nobody has asked for another sale: the card that was read last may lie
        there again, put back while its verdict was awaited, and has to leave first.
        """
        with self._wake:
            self._permit, self._by_itself = sensed_so_far, by_itself
            self._wake.notify()

    def stop(self) -> None:
        """Ask the thread to end after the current call."""
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def run(self) -> None:
        """The thread's work. Raises PartError when the reader is lost."""
        self.busy_since_s = time.monotonic()
        description = self._driver.open()
        try:
            self.opened = True
            occupied = self._occupied()
            self._post(Opened(description))
            if occupied:  # and who knows whether it has paid already
                self._see_off(Lies(unseen=True))
            while not self._stopping:
                self._turn()
        finally:
            self._driver.close()

    def _turn(self) -> None:
        if not self._may_read():
            self._idle()
            return
        self._resting = False
        if self._put_back():
            self._see_off(Lies())
            return
        card = self._call(self._driver.wait_for_card)
        if card is None or not self._may_read():
            return
        if self._bounced(card):
            self._call(self._driver.rest)
            self._pause(PRESENCE_EVERY_S)
            return
        self._serve(card)

    def _may_read(self) -> bool:
        return self._permit == self._sensed

    def _idle(self) -> None:
        if not self._resting:
            self._call(self._driver.rest)
            self._resting = True
        self._call(self._driver.ping)
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._may_read(), PING_EVERY_S)

    def _put_back(self) -> bool:
        """Whether the card that was read last lies there, and nobody has asked for another sale."""
        by_itself, self._by_itself = self._by_itself, False
        last = self._last_read
        return by_itself and last is not None and self._departure(last) is None

    def _see_off(self, lies: Lies) -> None:
        self._resting = False
        self._post(lies)
        self._wait_until_empty()
        self._last_left_s = time.monotonic()
        self._post(Gone())

    def _serve(self, card: FoundCard) -> None:
        self._sensed += 1
        self._post(Sensed())
        outcome = self._read(card)
        if isinstance(outcome, Torn):
            self._post(outcome)
            return
        if isinstance(outcome, Changed) or outcome is TWO_CARDS:
            self._post(outcome if isinstance(outcome, Changed) else Finished(TWO_CARDS))
            self._wait_until_empty()
            self._post(Gone())
            return
        if isinstance(outcome, Garbled):
            self._post(Unreadable(outcome.detail))
        else:
            self._post(Finished(outcome))
        self._wait_until_gone(card)
        if isinstance(outcome, CardProof):
            self._last_read, self._last_left_s = card, time.monotonic()
        self._post(Gone())

    def _read(self, card: FoundCard) -> Outcome | Torn | Changed:
        """Read the card, again if need be."""
        charge = self._charge() if card.iso_dep else None
        deadline_s = time.monotonic() + SESSION_BUDGET_S
        outcome: Outcome = Garbled("never read")
        for _ in range(READ_ATTEMPTS):
            outcome = self._attempt(card, charge, max(0.0, deadline_s - time.monotonic()))
            if not isinstance(outcome, Garbled):
                return self._alone(card, outcome)
            departure = self._departure(card)
            if departure is not None:
                return departure
        return outcome

    def _attempt(
        self, card: FoundCard, charge: Charge | NotOurs | None, budget_s: float
    ) -> Outcome:
        if not card.iso_dep:
            return uid_outcome(card.uid)
        conversation = converse(charge)
        try:
            self._timed(lambda: self._driver.start_session(budget_s=budget_s))
            command = next(conversation)
            while True:
                command = conversation.send(self._exchange(command))
        except StopIteration as done:
            outcome: Outcome = done.value
            return outcome
        except (CardSilentError, CardGarbledError, PartError) as exc:
            return Garbled(str(exc))  # a dead reader is found out by the next look at the field

    def _alone(self, card: FoundCard, outcome: CardProof | NotOurs) -> Outcome | Changed:
        """What was read, if it was read of the only card that is there, and of this one."""
        if self._call(self._driver.sees_another):
            return TWO_CARDS
        return outcome if _may_be_of(card, outcome) else Changed()

    def _exchange(self, apdu: bytes) -> bytes:
        return self._timed(lambda: self._driver.exchange(apdu))

    def _departure(self, card: FoundCard) -> Torn | Changed | None:
        """How the card has left; None when it is still there, and is started anew."""
        for _ in range(EMPTY_LOOKS):
            try:
                found = self._call(self._driver.look_again)
            except CardGarbledError:
                return None
            if found is not None:
                return None if _may_be_same(card, found) else Changed()
        return Torn()

    def _wait_until_gone(self, card: FoundCard) -> None:
        while not self._stopping:
            if not (card.iso_dep and self._still_answers()):
                if self._departure(card) is not None:
                    return
                self._renew_session(card)
            self._pause(PRESENCE_EVERY_S)

    def _wait_until_empty(self) -> None:
        """Whichever card it is now: nobody has chosen it to pay."""
        while not self._stopping and self._occupied():
            self._pause(PRESENCE_EVERY_S)

    def _occupied(self) -> bool:
        """Whether anything answers, be it damaged."""
        for _ in range(EMPTY_LOOKS):
            try:
                if self._call(self._driver.look_again) is not None:
                    return True
            except CardGarbledError:
                return True
        return False

    def _still_answers(self) -> bool:
        try:
            return self._timed(self._driver.still_answers)
        except PartError:
            return False  # the look at the field that follows finds out whose fault it was

    def _renew_session(self, card: FoundCard) -> None:
        """Bring a card that was started anew back to where it gives signs of life."""
        if card.iso_dep:
            try:
                self._timed(lambda: self._driver.start_session(budget_s=SESSION_BUDGET_S))
            except (CardSilentError, CardGarbledError, PartError):
                return  # then the next look at the field tells

    def _bounced(self, card: FoundCard) -> bool:
        last, now_s = self._last_read, time.monotonic()
        if last is None or not _may_be_same(last, card) or now_s - self._last_left_s > BOUNCE_S:
            return False
        self._last_left_s = now_s
        return True

    def _call(self, primitive: Callable[[], T]) -> T:
        """A primitive that may be repeated: noise on the line costs a try and a mild remedy."""
        rung = Rung.NONE
        while True:
            try:
                return self._timed(primitive)
            except PartError:
                rung = next_rung(rung, Sign.FAILED)
                if rung not in WITHIN_A_RUN:
                    raise
            self._pause(STRIKE_PAUSE_S)
            self._mend(rung)

    def _mend(self, rung: Rung) -> None:
        remedy = self._driver.soft_reset if rung is Rung.SOFT_RESET else self._driver.rest
        with suppress(PartError):  # whether it has helped, the next try shows
            self._timed(remedy)

    def _timed(self, primitive: Callable[[], T]) -> T:
        self.busy_since_s = time.monotonic()
        try:
            return primitive()
        finally:
            self.busy_since_s = float("inf")

    def _pause(self, duration_s: float) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._stopping, duration_s)

    def _post(self, report: Report) -> None:
        self._post_to(report, time.monotonic())


def _may_be_of(card: FoundCard, outcome: CardProof | NotOurs) -> bool:
    """A proof that names its card in the open must name the one that was found, which may have
    shown a number drawn for the occasion."""
    proof = outcome.proof if isinstance(outcome, CardProof) else None
    if not isinstance(proof, PlainSunProof) or is_random_uid(card.uid):
        return True
    return bytes.fromhex(proof.uid) == card.uid


def _may_be_same(one: FoundCard, other: FoundCard) -> bool:
    """Cards that draw their UID anew cannot be told apart, so they count as the same."""
    return one.uid == other.uid or (is_random_uid(one.uid) and is_random_uid(other.uid))

"""The space before the antenna: field on or off, the cards in it, and what happens to them.

Answers for presence, power, tearing, disturbance, and for which of two cards anticollision singles
out. Time belongs to the chip; a change of `session` tells it that the card it talked to is no
longer the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from taprail_hwsim.cards.base import Card, CardAnswer

EventSink = Callable[[str, dict[str, Any]], None]

MOST_CARDS: Final = 2
"""A wallet in which two answer: with more of them, hardly one gets the power that it needs."""


class RfField:
    """Room for a card and another beside it. Reports what happens to `emit(name, details)`; no UID
    ever goes there."""

    def __init__(self, emit: EventSink) -> None:
        self._emit = emit
        self._on = False
        self._cards: list[Card] = []
        self._selected: Card | None = None
        self._tear_after: int | None = None
        self._apdus = 0
        self._disturbed = 0
        self.session = 0

    @property
    def on(self) -> bool:
        return self._on

    @property
    def card(self) -> Card | None:
        """The card that came first."""
        return self._cards[0] if self._cards else None

    def put(self, card: Card, tear_after_apdus: int | None) -> None:
        """A card enters; it leaves by itself once that many of its APDUs are answered."""
        if self._cards:
            raise ValueError("there is a card in the field already")
        if tear_after_apdus is not None and tear_after_apdus < 0:
            raise ValueError("tear_after_apdus must be 0 or more")
        self._tear_after, self._apdus = tear_after_apdus, 0
        self._unpower()
        self._enter(card)

    def put_beside(self, card: Card) -> None:
        """One more card enters; what goes on with the first is not disturbed."""
        if len(self._cards) >= MOST_CARDS or card in self._cards:
            raise ValueError(f"the field holds {MOST_CARDS} different cards")
        card.power_lost()
        self._enter(card)

    def lift(self, *, torn: bool = False) -> None:
        """All cards leave; nothing happens when there is none."""
        self._unpower()
        cards, self._cards = self._cards, []
        for card in cards:
            self._tell_left(card, torn=torn)

    def lift_one(self, card: Card) -> None:
        """This card leaves, and another one stays as it is."""
        if card not in self._cards:
            raise ValueError("that card is not in the field")
        if card is self._selected:
            self._selected = None
            self.session += 1
        card.power_lost()
        self._cards.remove(card)
        self._tell_left(card, torn=False)

    def disturb(self, exchanges: int) -> None:
        """Garble the card's next answers: it has worked, the reader cannot understand it."""
        self._disturbed = exchanges

    def switch(self, *, on: bool) -> None:
        if on == self._on:
            return
        self._on = on
        self._unpower()
        self._emit("field_on" if on else "field_off", {})

    def activate(self, wanted_uid: bytes) -> Card | None:
        """REQA, anticollision and SELECT; `wanted_uid` empty selects whatever card answers."""
        if not self._on:
            return None
        answering = [card for card in self._cards if wanted_uid in (b"", card.uid)]
        for card in sorted(answering, key=_precedence, reverse=True):
            if card.activate():
                self._selected = card
                self._emit("card_activated", {"card": card.kind})
                if card.ats is None:
                    self._tear_if_due()
                return card
        return None

    def exchange(self, frame: bytes) -> tuple[CardAnswer, bool] | None:
        """The card's answer to one frame, and whether it arrives garbled; None for silence."""
        if not self._on or self._selected is None:
            return None
        answer = self._selected.receive(frame)
        if answer is None:
            return None
        if answer.apdu is not None:
            self._apdus += 1
            self._emit("apdu", {"name": answer.apdu})
        garbled = self._disturbed > 0
        self._disturbed -= garbled
        return answer, garbled

    def answered(self) -> None:
        """The last answer reached the chip: now a card that is to be torn may leave."""
        self._tear_if_due()

    def _tear_if_due(self) -> None:
        if self._tear_after is not None and self._apdus >= self._tear_after:
            self.lift(torn=True)

    def _unpower(self) -> None:
        self.session += 1
        self._selected = None
        for card in self._cards:
            card.power_lost()

    def _enter(self, card: Card) -> None:
        self._cards.append(card)
        self._emit("card_put", {"card": card.kind})

    def _tell_left(self, card: Card, *, torn: bool) -> None:
        self._emit("card_lifted", {"card": card.kind, "torn": torn})


def _precedence(card: Card) -> str:
    """Where two UIDs differ the reader goes on with the 1; each byte begins with its lowest bit
    (ISO/IEC 14443-3 clauses 6.2.3 and 6.5.3)."""
    return "".join(f"{byte:08b}"[::-1] for byte in card.uid)

"""The space before the antenna: field on or off, the one card in it, and what happens to it.

Answers for presence, power, tearing and disturbance. Time belongs to the chip; a change of
`session` tells it that the card it talked to is no longer the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taprail_hwsim.cards.base import Card, CardAnswer

EventSink = Callable[[str, dict[str, Any]], None]


class RfField:
    """Room for one card. Reports what happens to `emit(name, details)`; no UID ever goes there."""

    def __init__(self, emit: EventSink) -> None:
        self._emit = emit
        self._on = False
        self._card: Card | None = None
        self._selected = False
        self._tear_after: int | None = None
        self._apdus = 0
        self._disturbed = 0
        self.session = 0

    @property
    def on(self) -> bool:
        return self._on

    @property
    def card(self) -> Card | None:
        return self._card

    def put(self, card: Card, tear_after_apdus: int | None) -> None:
        """A card enters; it leaves by itself once that many of its APDUs are answered."""
        if self._card is not None:
            raise ValueError("there is a card in the field already")
        if tear_after_apdus is not None and tear_after_apdus < 0:
            raise ValueError("tear_after_apdus must be 0 or more")
        self._card, self._tear_after, self._apdus = card, tear_after_apdus, 0
        self._unpower()
        self._emit("card_put", {"card": card.kind})

    def lift(self, *, torn: bool = False) -> None:
        """The card leaves; nothing happens when there is none."""
        card = self._card
        if card is None:
            return
        self._unpower()
        self._card = None
        self._emit("card_lifted", {"card": card.kind, "torn": torn})

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
        """Anticollision and SELECT; `wanted_uid` empty selects whatever card is there."""
        card = self._card
        if not self._on or card is None or (wanted_uid and wanted_uid != card.uid):
            return None
        if not card.activate():
            return None
        self._selected = True
        self._emit("card_activated", {"card": card.kind})
        if card.ats is None:
            self._tear_if_due()
        return card

    def exchange(self, frame: bytes) -> tuple[CardAnswer, bool] | None:
        """The card's answer to one frame, and whether it arrives garbled; None for silence."""
        if not self._on or self._card is None or not self._selected:
            return None
        answer = self._card.receive(frame)
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
        self._selected = False
        if self._card is not None:
            self._card.power_lost()

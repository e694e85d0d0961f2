"""All that is known of the sale that is on, and what of it is to be shown.

Answers for the form of the state and for what follows from it alone; how it changes is in
`checkout`, and when it may in `sale_table`.
"""

from __future__ import annotations

from dataclasses import dataclass

from taprail_terminal.sale import Phase, Result, Sale, TakenOffline, View
from taprail_terminal.sale_table import TRANSITIONS, Kind


@dataclass(frozen=True, slots=True)
class Checkout:
    """All that is known of the sale that is on. `fixed_units` is the price in fixed-price mode.

    `sale` is the one whose result is awaited or shown; `unresolved` are all those whose outcome
    nobody knows yet, oldest first; `offline` are those that were taken without the gateway, which
    hold nothing up; `late_results` wait for a moment in which they can be shown, and
    `untold` counts those that found no place there. `left_behind` says that the card lies there for
    too long. `pin_wanted`: the last card was declined for want of a PIN, and may come again.
    """

    currency: str
    decimals: int
    fixed_units: int | None
    verdict_timeout_s: float
    phase: Phase = Phase.OUT_OF_SERVICE
    reader_ok: bool = False
    card_present: bool = False
    armed_units: int | None = None
    armed_charge: str | None = None
    sale: Sale | None = None
    unresolved: tuple[Sale, ...] = ()
    offline: tuple[Sale, ...] = ()
    late_results: tuple[tuple[Sale, Result | TakenOffline], ...] = ()
    result: Result | None = None
    reason: str | None = None
    reason_code: str | None = None
    late: bool = False
    left_behind: bool = False
    typed: str = ""
    pin_wanted: bool = False
    untold: int = 0
    deadline_s: float | None = None

    @property
    def next_units(self) -> int | None:
        """What the next card would pay. A fixed price waits until no sale is unknown any more."""
        if self.armed_units is not None:
            return self.armed_units
        return None if self.unresolved else self.fixed_units

    @property
    def armed(self) -> bool:
        """Whether a card may be read now."""
        takes_card = Kind.CARD in TRANSITIONS[self.phase]
        return takes_card and self.reader_ok and self.next_units is not None

    @property
    def view(self) -> View:
        """What is to be shown."""
        result = self.result
        return View(
            phase=self.phase,
            amount_units=self._shown_units(),
            currency=self.currency,
            decimals=self.decimals,
            card_present=self.card_present,
            reason=self.reason,
            reason_code=self.reason_code,
            left_units=result.left_units if result else None,
            tries_left=result.tries_left if result else None,
            typed=self.typed,
            late=self.late,
            left_behind=self.left_behind,
            auth_code=result.auth_code if result else None,
            request_id=self.sale.request_id if self.sale else None,
        )

    def _shown_units(self) -> int | None:
        return self.sale.amount_units if self.sale is not None else self.next_units

"""The screens that a customer may meet, by name: what the golden pictures are made of, in each
language.

`python -m tests.support.screen_gallery` draws the pictures anew; look at every one that changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from taprail_common.money import MAX_AMOUNT_UNITS
from taprail_terminal.feedback.messages import CATALOGUES, Language
from taprail_terminal.feedback.scene import scene
from taprail_terminal.feedback.screens import render
from taprail_terminal.sale import Phase, View

FOLDER: Final = Path(__file__).parents[1] / "vectors" / "screens"


def view(
    phase: Phase,
    *,
    amount_units: int | None = 12_500_000,
    currency: str = "USDC",
    card_present: bool = False,
    reason: str | None = None,
    reason_code: str | None = None,
    left_units: int | None = None,
    late: bool = False,
    left_behind: bool = False,
    auth_code: str | None = None,
    typed: str = "",
    tries_left: int | None = None,
) -> View:
    """A view of a sale of 12.50 USDC unless said otherwise."""
    return View(
        phase=phase,
        amount_units=amount_units,
        currency=currency,
        decimals=6,
        card_present=card_present,
        reason=reason,
        reason_code=reason_code,
        left_units=left_units,
        late=late,
        left_behind=left_behind,
        auth_code=auth_code,
        typed=typed,
        tries_left=tries_left,
    )


GALLERY: Final[dict[str, View]] = {
    "idle": view(Phase.IDLE, amount_units=None),
    "ready": view(Phase.READY),
    "ready_199": view(Phase.READY, amount_units=199_990_000),
    "ready_largest": view(Phase.READY, amount_units=MAX_AMOUNT_UNITS),
    "ready_lift": view(Phase.READY, card_present=True),
    "reading": view(Phase.READING, card_present=True),
    "idle_typed": view(Phase.IDLE, amount_units=None, typed="12.5"),
    "unknown_typed": view(Phase.UNKNOWN, typed="7.25"),
    "pin_lift": view(Phase.PIN, card_present=True),
    "pin_typed": view(Phase.PIN, typed="••••"),
    "declined_wrong_pin": view(Phase.DECLINED, reason_code="pin_wrong", tries_left=2),
    "waiting_lift": view(Phase.WAITING, card_present=True),
    "waiting": view(Phase.WAITING),
    "approved_lift": view(Phase.APPROVED, card_present=True, auth_code="7K2M9Q"),
    "approved_left": view(Phase.APPROVED, card_present=True, left_behind=True, auth_code="7K2M9Q"),
    "approved": view(Phase.APPROVED, auth_code="7K2M9Q"),
    "approved_late": view(Phase.APPROVED, auth_code="7K2M9Q", late=True),
    "settled": view(Phase.SETTLED),
    "declined_daily_limit": view(Phase.DECLINED, reason="daily_limit", left_units=3_200_000),
    "declined_single_limit_lift": view(
        Phase.DECLINED, reason="single_limit", left_units=50_000_000, card_present=True
    ),
    "declined_replayed": view(Phase.DECLINED, reason="card_replayed"),
    "declined_sentence_lift": view(
        Phase.DECLINED,
        reason="Insufficient daily limit: 3.20 left today",
        left_units=3_200_000,
        card_present=True,
    ),
    "declined_late": view(Phase.DECLINED, reason="accept_until_passed", late=True),
    "not_settled": view(Phase.DECLINED, reason_code="not_settled", late=True),
    "payment_failed": view(Phase.DECLINED, reason_code="payment_failed", late=True),
    "settled_late": view(Phase.SETTLED, late=True),
    "unknown": view(Phase.UNKNOWN),
    "unknown_lift": view(Phase.UNKNOWN, card_present=True),
    "offline_lift": view(Phase.OFFLINE, card_present=True),
    "offline_late": view(Phase.OFFLINE, late=True),
    "offline_loss": view(Phase.DECLINED, reason_code="offline_loss", late=True),
    "offline_refused_lift": view(Phase.CARD_REFUSED, reason_code="offline_card", card_present=True),
    "try_again": view(Phase.TRY_AGAIN),
    "try_again_lift": view(Phase.TRY_AGAIN, card_present=True),
    "two_cards_lift": view(Phase.CARD_REFUSED, reason_code="two_cards", card_present=True),
    "ready_dong": view(Phase.READY, amount_units=1_250_000_000_000, currency="VND"),
    "card_refused_lift": view(Phase.CARD_REFUSED, reason="bank_card", card_present=True),
    "out_of_service": view(Phase.OUT_OF_SERVICE, amount_units=None),
}


def golden(language: Language, name: str) -> Path:
    """Where an approved picture lies."""
    return FOLDER / language / f"{name}.png"


def _draw_anew() -> None:
    for old in FOLDER.rglob("*.png"):
        old.unlink()
    for language, words in CATALOGUES.items():
        golden(language, "").parent.mkdir(parents=True, exist_ok=True)
        for name, shown in GALLERY.items():
            picture = render(scene(shown, words).screen)
            picture.save(golden(language, name), optimize=True)


if __name__ == "__main__":
    _draw_anew()

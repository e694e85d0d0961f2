"""Every word that a customer reads, in one catalogue for each language; keys by code.

Answers for short sentences that fit a display of 128 by 64. Codes of reasons are those of verdicts
and of this terminal. Amounts come in as text. What a key is for stands here, beside the English.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeAlias

from taprail_terminal.feedback.vietnamese import VIETNAMESE

Catalogue: TypeAlias = Mapping[str, str]

ENGLISH: Final[Catalogue] = {
    # How a number is written.
    "number.point": ".",
    "number.group": ",",
    # Headlines and prompts of the phases.
    "idle.headline": "Welcome",
    "idle.line": "Nothing to pay yet",
    "typed.prompt": "Press Enter",
    "ready.prompt": "Tap card",
    "ready.lift": "Lift card first",
    "reading.prompt": "Hold still",
    "pin.prompt": "Enter PIN",
    "waiting.prompt": "Card read",
    "waiting.next": "One moment",
    "approved.headline": "Approved",
    "settled.headline": "Paid",
    "settled.line": "Final on chain",
    "declined.headline": "Declined",
    "not_settled.headline": "Not settled",
    "offline.headline": "Noted",
    "offline.line": "Paid when online",
    "unknown.headline": "Checking…",
    "unknown.line": "Do not pay again",
    "try_again.headline": "Try again",
    "try_again.line": "Hold card until the beep",
    "card_refused.headline": "Card refused",
    "card_refused.line": "Please use another card",
    "out_of_service.headline": "Closed",
    "out_of_service.line": "Out of service",
    # Pieces.
    "lift_card": "LIFT CARD",
    "card_left": "TAKE CARD!",
    "not_charged": "Not charged",
    "next_sale": "Next: {sum}",
    "earlier_sale": "Earlier: {sum}",
    "auth_code": "Code {code}",
    "left": "{left} left",
    # Why a payment was declined: the reason codes of verdicts.
    "reason.accept_until_passed": "Took too long. Not charged",
    "reason.card_expired": "Card has expired",
    "reason.card_frozen": "Card is frozen",
    "reason.card_profile_disabled": "This kind of card is not accepted",
    "reason.card_proof_invalid": "Card could not be verified",
    "reason.card_replayed": "Tap was used before. Tap again",
    "reason.card_unknown": "Card is not known here",
    "reason.charge_cancelled": "Sale was cancelled. Not charged",
    "reason.charge_closed": "Sale is over. Not charged",
    "reason.charge_expired": "Took too long. Not charged",
    "reason.charge_mismatch": "Amount is wrong. Not charged",
    "reason.charge_unknown": "Sale is not known. Not charged",
    "reason.clock_skew": "Clock of the terminal is wrong",
    "reason.currency_unsupported": "Currency not accepted",
    "reason.daily_limit": "Daily limit",
    "reason.high_fraud_risk": "Too many warning signs. Ask staff",
    "reason.insufficient_balance": "Not enough balance",
    "reason.invalid_merchant": "Merchant is not set up",
    "reason.single_limit": "Over the limit for one payment",
    "reason.single_limit.left": "At most {left} per payment",
    "reason.terminal_frozen": "Terminal is frozen",
    "reason.terminal_revoked": "Terminal is not active",
    "reason.terminal_unknown": "Terminal is not set up",
    "reason.user_frozen": "Card is frozen",
    "reason.offline_not_allowed": "Terminal may not sell offline",
    "reason.offline_limit": "Too much without connection",
    "reason.pin_required": "PIN needed. Tap again",
    "reason.pin_wrong": "Wrong PIN. Tap again",
    "reason.pin_wrong.left": "Wrong PIN. {left} left. Tap again",
    "reason.pin_blocked": "Wrong PIN. Card is frozen now",
    # Why a card was refused by the terminal itself.
    "reason.bank_card": "Bank cards and phones not accepted",
    "reason.card_cannot_sign": "Card did not sign",
    "reason.card_signature_wrong": "Card is faulty",
    "reason.not_our_card": "Card is not for this terminal",
    "reason.signing_not_ready": "No such cards right now",
    "reason.offline_sum": "No connection. Offline limit reached",
    "reason.offline_count": "No connection. Too many sales wait",
    "reason.offline_age": "No connection. A sale waits too long",
    "reason.offline_expired": "No connection for too long",
    "reason.offline_clock": "No connection. Clock is wrong",
    "reason.offline_policy": "No connection. No offline sales",
    "reason.offline_frozen": "Card is frozen",
    "reason.offline_pin": "PIN needed. No connection",
    "reason.offline_card": "Cannot take this card. No connection",
    # Why a card has to be tapped again.
    "reason.pin_missing": "No PIN. Not charged",
    "reason.card_changed": "Card was swapped. Hold one still",
    "reason.two_cards": "Two cards. Hold one only",
    "reason.torn": "Card removed too early",
    "reason.unreadable": "Hold card until the beep",
    "reason.not_stored": "Not charged. Terminal cannot store sales",
    # Why the terminal is closed.
    "reason.service_needed": "Service needed",
    # Why an approved sale comes back.
    "reason.not_settled": "Ask staff",
    "reason.payment_failed": "Transfer failed. Ask staff",
    "reason.offline_loss": "Offline sale not paid. Ask staff",
    # The self-test's picture.
    "test.headline": "Display",
    "test.line": "Self-test running",
}


class Language(StrEnum):
    """What a terminal speaks to its customers, by ISO 639-1."""

    ENGLISH = "en"
    VIETNAMESE = "vi"


CATALOGUES: Final[dict[Language, Catalogue]] = {
    Language.ENGLISH: ENGLISH,
    Language.VIETNAMESE: VIETNAMESE,
}

SERVICE_NEEDED: Final = "service_needed"
"""Why a terminal is closed that only a person can bring back."""

_CODE = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*", re.ASCII)


def reason_text(reason: str, left: str | None, catalogue: Catalogue = ENGLISH) -> str:
    """Words for a reason, with what a limit leaves ("Daily limit: 3.20 left").

    `reason` is a code of the catalogue or a sentence for people. A code that a newer gateway has
    and this catalogue has not is shown in its own words rather than hidden.
    """
    words = catalogue.get(f"reason.{reason}") or _own_words(reason)
    if left is None or left in words:
        return words
    with_left = catalogue.get(f"reason.{reason}.left") or f"{words}: {catalogue['left']}"
    return with_left.replace("{left}", left)


def _own_words(reason: str) -> str:
    if _CODE.fullmatch(reason) is None:
        return reason
    return reason.replace("_", " ").capitalize()

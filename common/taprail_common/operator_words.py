"""What an operator or a technician is told about each reason code: what it means, what to do.

A customer's words are in the terminal's catalogue. These are for the audit log and the serial
console; they name commands. Codes are those of the gateway's verdicts and of the terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

WORDS: Final[Mapping[str, str]] = {
    # The tap came too late, or from a clock that is wrong.
    "accept_until_passed": "the tap reached the gateway too late: check the terminal's network",
    "clock_skew": "the terminal's clock is wrong: check its time service",
    # The card.
    "card_unknown": "no such card is issued here: `card issue`, or `card personalize --user`",
    "card_proof_invalid": "a copy, or a card whose keys are not those on record: `card personalize`"
    " again; if that does not help, replace it",
    "card_replayed": "the same tap came twice: a copied tap, or a terminal that sends old ones",
    "card_profile_disabled": "cards that can be copied are off: `accept_uid_cards` allows them",
    "card_frozen": "`card unfreeze` takes its payments again",
    "card_expired": "its date has come, or it was replaced: `card show` tells which",
    "user_frozen": "its owner is frozen: `user unfreeze` takes their payments again",
    "pin_required": "the amount needs a PIN, and none was given",
    "pin_wrong": "the PIN was wrong; a few in a row block it",
    "pin_blocked": "too many wrong PINs: `card pin unlock` gives new tries",
    # The shop.
    "terminal_unknown": "`terminal add` makes it known",
    "terminal_frozen": "`terminal unfreeze` takes its payments again",
    "terminal_revoked": "the terminal was revoked for good: `terminal pair` lets a device in anew",
    "invalid_merchant": "the terminal is another merchant's, or the merchant is closed",
    "currency_unsupported": "the terminal is set up for another currency than this gateway's",
    # Limits and money.
    "single_limit": "`card limits --single` sets what it may pay at once",
    "daily_limit": "`card limits --daily` sets what it may pay in a day",
    "high_fraud_risk": "the fraud rules objected: `[fraud]` has their thresholds",
    "insufficient_balance": "its account has less than that free: fund it",
    # Taken without asking.
    "offline_not_allowed": "taken without the gateway, which had not allowed it: see `terminal"
    " offline show`",
    "offline_limit": "more was taken without the gateway than allowed: `terminal offline show`",
    "offline_sum": "more money would wait than may: bring the terminal's network back",
    "offline_count": "as many taps wait for the gateway as may: bring the terminal's network back",
    "offline_age": "a tap has waited for the gateway for too long: bring the network back",
    "offline_expired": "the gateway was away for longer than offline taps are allowed",
    "offline_clock": "the clock is wrong, so nothing is taken offline: check its time service",
    "offline_policy": "the stored offline policy cannot be believed: connect to the gateway",
    "offline_frozen": "the card was frozen when the gateway was last heard: `card unfreeze`",
    "offline_pin": "a PIN was wanted, which only the gateway can check: bring the network back",
    "offline_card": "only cards that sign can be taken without the gateway",
    "offline_loss": "taken offline, declined later: the goods are not paid",
    # A till's charge.
    "charge_unknown": "the terminal was armed for a charge that is none of its own",
    "charge_cancelled": "the till had cancelled the sale before the tap",
    "charge_expired": "the tap came after the sale's deadline",
    "charge_closed": "the sale was paid or refused before",
    "charge_mismatch": "the terminal asked for another amount than the till",
    # The terminal itself refused the card.
    "bank_card": "a bank card or a phone: nothing of it was stored",
    "not_our_card": "a card of another system: nothing of it was stored",
    "card_cannot_sign": "the signing card refused to sign: try another card",
    "card_signature_wrong": "the card's signature does not hold: it is faulty or forged",
    "signing_not_ready": "the terminal has no signing terms yet: its gateway has not answered",
    "service_needed": "the terminal's starts failed five times in a row: its journal tells why",
    # The terminal asked for another tap.
    "card_changed": "one card took another one's place while it was read: one at a time",
    "two_cards": "two cards lay on the reader: one at a time",
    "torn": "the card left before it was read",
    "unreadable": "the card's answers could not be understood: if others are read well, replace it",
    "not_stored": "the terminal's disk takes nothing: run `selftest`",
    "pin_missing": "the customer gave no PIN in time; nothing was sent",
    # An approved sale came back.
    "not_settled": "approved, and not confirmed on the chain yet: `payment list --review`",
    "payment_failed": "approved, and proven never to settle: the goods are not paid",
}


def what_to_do(code: str) -> str | None:
    """The sentence for a code; None for one that a newer program has."""
    return WORDS.get(code)

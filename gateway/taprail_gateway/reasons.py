"""Why a payment is declined, as a stable code; `authorize` decides which.

What a customer reads for each is in the terminal's catalogue, what an operator is told about it in
`taprail_common.operator_words`. Taps for a charge have a few more: `charges.Objection`.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a payment is declined; the values are part of the public contract."""

    ACCEPT_UNTIL_PASSED = "accept_until_passed"
    CLOCK_SKEW = "clock_skew"
    CARD_UNKNOWN = "card_unknown"
    CARD_PROOF_INVALID = "card_proof_invalid"
    CARD_REPLAYED = "card_replayed"
    CARD_PROFILE_DISABLED = "card_profile_disabled"
    TERMINAL_UNKNOWN = "terminal_unknown"
    TERMINAL_FROZEN = "terminal_frozen"
    TERMINAL_REVOKED = "terminal_revoked"
    INVALID_MERCHANT = "invalid_merchant"
    CARD_FROZEN = "card_frozen"
    USER_FROZEN = "user_frozen"
    CARD_EXPIRED = "card_expired"
    CURRENCY_UNSUPPORTED = "currency_unsupported"
    SINGLE_LIMIT = "single_limit"
    DAILY_LIMIT = "daily_limit"
    HIGH_FRAUD_RISK = "high_fraud_risk"
    OFFLINE_NOT_ALLOWED = "offline_not_allowed"
    OFFLINE_LIMIT = "offline_limit"
    INSUFFICIENT_BALANCE = "insufficient_balance"

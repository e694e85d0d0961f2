"""What an answer that is no success means: one class for each kind, and what to do by its code.

`retryable` says whether the same request may succeed later. Only `DeclinedError` says something
about money: not charged, and never by this request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from taprail_common.api.base import Problem
from taprail_common.api.payments import Declined
from taprail_common.client.exchange import Reply
from taprail_common.errors import LinkError, TapRailError

MAX_WAIT_S: Final = 3_600
"""A longer `Retry-After` is not believed."""


class ApiError(TapRailError):
    """The gateway has answered, and did not do it. `field` names what of the request is wrong,
    `request_id` finds a fault of the gateway's in its log, `wait_s` is when to come again."""

    def __init__(self, reply: Reply, problem: Problem) -> None:
        code = problem.reason_code or _CODES.get(reply.status, "unexpected")
        about = "" if problem.field is None else f"{problem.field}: "
        text = problem.error if problem.error.startswith(about) else about + problem.error
        super().__init__(text, fix=WHAT_TO_DO.get(code, ""), code=code)
        self.status = reply.status
        self.field = problem.field
        self.request_id = problem.request_id
        self.wait_s = _wait_s(reply)


class RequestError(ApiError):
    """The request itself is wrong (400, 405, 408, 413, 415): mend it."""


class NotIdentifiedError(ApiError):
    """The gateway does not know who asks (401)."""


class NotAllowedError(ApiError):
    """Whoever asks may not do this (403)."""


class NotThereError(ApiError):
    """There is no such thing, or it is none of the caller's business (404)."""


class ConflictError(ApiError):
    """It does not go with how things stand (409)."""


class TooManyError(ApiError):
    """Asked too often (429): nothing was done, come again after `wait_s`."""

    retryable = True


class UnavailableError(ApiError):
    """Not now (503): come again after `wait_s` with the same request."""

    retryable = True


class GatewayFaultError(ApiError):
    """A fault of the gateway's (5xx); its operator finds it by `request_id`."""


class DeclinedError(TapRailError):
    """A verdict: not charged, and never by this request."""

    code = "declined"

    def __init__(self, verdict: Declined) -> None:
        fix = WHAT_TO_DO_WHEN_DECLINED.get(verdict.reason_code, "")
        super().__init__(verdict.reason, fix=fix, code=verdict.reason_code)
        self.verdict = verdict


class OutcomeUnknownError(LinkError):
    """It may have been done or not: the answer did not come, and asking again might do it twice."""

    code = "outcome_unknown"


class NotYetError(TapRailError):
    """What was waited for has not happened in time; it still may."""

    code = "not_yet"
    retryable = True


def error_of(reply: Reply) -> TapRailError:
    """What a reply that is no success says."""
    if reply.status == 400 and (declined := _declined(reply)) is not None:
        return DeclinedError(declined)
    try:
        problem = Problem.model_validate_json(reply.body)
    except ValidationError:
        return LinkError(f"an answer ({reply.status}) that is not the gateway's")
    kind = GatewayFaultError if reply.status >= 500 else RequestError
    return _KINDS.get(reply.status, kind)(reply, problem)


def _declined(reply: Reply) -> Declined | None:
    try:
        return Declined.model_validate_json(reply.body)
    except ValidationError:
        return None


def _wait_s(reply: Reply) -> float | None:
    text = reply.headers.get("Retry-After", "")
    return min(float(text), MAX_WAIT_S) if text.isascii() and text.isdigit() else None


_KINDS: Final[Mapping[int, type[ApiError]]] = {
    401: NotIdentifiedError,
    403: NotAllowedError,
    404: NotThereError,
    409: ConflictError,
    429: TooManyError,
    503: UnavailableError,
}
_CODES: Final[Mapping[int, str]] = {404: "not_found"}

WHAT_TO_DO: Final[Mapping[str, str]] = {
    "pairing_refused": "make a new code: taprail admin terminal pair",
    "bad_request": "correct the field that is named",
    "bad_signature": "sign the very bytes that are sent, with the key that is registered",
    "body_timeout": "ask again; the line is slow",
    "charge_unknown": "ask for the terminal's charges by the ids that were answered",
    "draining": "ask again later; the operator has told the gateway to take nothing new",
    "exists": "choose another id",
    "idempotency_reused": "use a new key or reference for another charge",
    "internal": "tell the gateway's operator the request id",
    "ledger_unavailable": "ask again in a moment",
    "method_not_allowed": "see /openapi.json for what the address takes",
    "no_float": "open a float: taprail admin merchant float",
    "not_asked": "send the diagnosis that was asked for last",
    "not_found": "check the id, and whose token it is",
    "not_refundable": "refund sales that are completed, and no refunds",
    "not_your_card": "pay with a card of the token's own user",
    "not_your_sale": "use the token of the sale's merchant",
    "overloaded": "ask again in a moment",
    "refund_too_high": "ask for no more than what is left of the sale",
    "request_id_reused": "use a new key for another payment",
    "scope": "use a token with the scope that is named",
    "signature_missing": "send the signature's header too",
    "terminal_busy": "wait for the terminal's charge to end, or cancel it",
    "terminal_frozen": "use another terminal, or have it thawed by the gateway's operator",
    "terminal_revoked": "use another terminal, or have a new one registered",
    "terminal_unknown": "check the terminal's id, and whose it is",
    "timeout": "ask again with the same key: it may have been done",
    "timestamp": "set the clock",
    "token_expired": "get a new token",
    "token_invalid": "get a new token",
    "token_revoked": "get a new token",
    "token_missing": "send Authorization: Bearer and a token",
    "too_large": "send less",
    "too_many_requests": "wait as long as Retry-After says",
    "unsupported_media_type": "send plain JSON as application/json",
    "user_frozen": "ask the gateway's operator",
    "wrong_state": "look at how it stands now",
}
"""By the code of an error; a code that is not here explains itself."""

WHAT_TO_DO_WHEN_DECLINED: Final[Mapping[str, str]] = {
    "accept_until_passed": "tap again",
    "card_expired": "use another card",
    "card_frozen": "have the card unfrozen, or use another one",
    "card_profile_disabled": "use another card",
    "card_proof_invalid": "use another card",
    "card_replayed": "tap again",
    "card_unknown": "use a card of this gateway",
    "charge_cancelled": "charge anew if the sale is still wanted",
    "charge_closed": "charge anew if the sale is still wanted",
    "charge_expired": "charge anew if the sale is still wanted",
    "charge_mismatch": "charge anew",
    "charge_unknown": "charge anew",
    "clock_skew": "set the terminal's clock",
    "currency_unsupported": "use the gateway's currency",
    "offline_not_allowed": "ask the gateway at the tap: it allows this terminal no other",
    "offline_limit": "ask the gateway at the tap: more waited than it allows",
    "daily_limit": "pay no more than what is left, or tomorrow",
    "high_fraud_risk": "have the gateway's operator look at the alert",
    "insufficient_balance": "top the card up",
    "invalid_merchant": "have the gateway's operator look at the merchant",
    "pin_blocked": "have the card's PIN set anew",
    "pin_required": "tap again, with the card's PIN",
    "pin_wrong": "tap again, with the right PIN",
    "single_limit": "pay less at once",
    "terminal_frozen": "use another terminal",
    "terminal_revoked": "use another terminal",
    "terminal_unknown": "have the terminal registered",
    "user_frozen": "ask the gateway's operator",
}
"""By the reason's code of a decline."""

"""Whether a payment is accepted: a pure decision over what was asked and what the ledger holds.

No input or output and no clock: facts and time come in, one `Decision` goes out. The order of the
checks is the order of the two tuples below, and it is part of the contract: the card's proof comes
before anything that would tell a stranger about the card, fraud rules and balance come last.
`accept` makes the decision hold, by guarded writes in the commit that read the facts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from taprail_common.money import format_amount
from taprail_common.wire import SIGNED_LEAST_S
from taprail_gateway import charges, fraud, offline_policy
from taprail_gateway.activity import UNUSED, Activity
from taprail_gateway.card_authorization import CardAuthorization
from taprail_gateway.fraud_settings import DEFAULTS, FraudSettings
from taprail_gateway.pins import CardPin, PinJudgement, PinReason, PinTried, judge
from taprail_gateway.reasons import Reason

MAX_TEXT: Final = 300
"""Characters of a decline's sentence that a terminal takes (`wire.Verdict.reason`)."""


class Profile(StrEnum):
    """How a payment names its card."""

    SUN = "sun"
    """A fresh tap of an NTAG 424 DNA, proved by its MAC."""
    UID = "uid"
    """A serial number, which proves nothing."""
    SIGNED = "signed"
    """A card's own signature under this very transfer."""
    APP = "app"
    """No tap: the card's owner asks through an app, with a token."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the card before the ledger is asked; made by `proofs`.

    The card is named by `uid_digest` (taps; of its address, where it signs) or `card_uuid` (apps; a
    tap may name both, and they must agree). `problem`: why the proof does not hold by itself.
    """

    profile: Profile
    uid_digest: str | None = None
    card_uuid: str | None = None
    counter: int | None = None
    key_version: int | None = None
    problem: Reason | None = None
    authorization: CardAuthorization | None = None
    """Of a card that signs: what it signed, which holds by itself."""


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """One request in the words of the ledger, whoever sent it.

    `requester` is a terminal's id or `user:<id>`. `currency` and `accept_until_ms` are None where
    an app may leave them out.
    """

    requester: str
    request_id: str
    payment_id: str
    terminal_id: str
    merchant_id: str
    amount_units: int
    currency: str | None
    tapped_at_ms: int
    accept_until_ms: int | None
    evidence: Evidence
    charge_id: str | None = None
    pin: PinTried | None = None
    is_offline: bool = False
    offline_version: int | None = None

    @property
    def signs(self) -> bool:
        """Whether its card proves itself by a signature."""
        return self.evidence.profile is Profile.SIGNED


@dataclass(frozen=True, slots=True)
class Card:
    """A card's row."""

    uuid: str
    user_id: str
    account: str
    profile: str
    status: str
    single_limit_units: int
    daily_limit_units: int
    time_zone: str
    sun_counter: int
    key_version: int
    created_at_ms: int = 0
    expires_at_ms: int | None = None
    owner_frozen_at_ms: int | None = None
    day_of: str | None = None
    pin: CardPin | None = None

    @property
    def counted_as(self) -> str:
        """The card whose days it spends: the one whose place it has taken, or itself."""
        return self.day_of or self.uuid


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal's row and that of its merchant; `payee` is the merchant's account."""

    id: str
    status: str
    merchant_id: str
    merchant_status: str
    payee: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the ledger holds about this request at this instant; None where it has no such row."""

    card: Card | None
    terminal: Terminal | None
    spent_units: int = 0
    available_units: int = 0
    card_activity: Activity = UNUSED
    terminal_activity: Activity = UNUSED
    charge: charges.Charge | None = None
    offline: offline_policy.Standing = offline_policy.NOWHERE


@dataclass(frozen=True, slots=True)
class Rules:
    """What this gateway takes."""

    currency: str
    decimals: int
    accept_uid_cards: bool = False
    fraud: FraudSettings = DEFAULTS

    def text(self, amount_units: int) -> str:
        """An amount as a person reads it."""
        return format_amount(amount_units, self.decimals)


@dataclass(frozen=True, slots=True)
class Decline:
    """Not charged: a stable code, a sentence for people, what is left of the day's limit, and the
    fraud rules that fired."""

    reason: Reason | charges.Objection | PinReason
    text: str
    left_units: int | None = None
    pin_tries_left: int | None = None
    rules: tuple[fraud.Fired, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """`declined` is None for an acceptance. `counter` is the card's new tap counter: it is stored
    even when the payment is declined after the proof held, since the tap is used up. `risk` is what
    the fraud rules found, of a tap that came to them; `pin_tries_left` is set if that changes."""

    declined: Decline | None
    counter: int | None = None
    is_proved: bool = False
    risk: fraud.Risk = fraud.NONE
    pin_tries_left: int | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """All that a decision rests on."""

    request: PaymentRequest
    facts: Facts
    rules: Rules
    now_ms: int


_Check = Callable[[Case], Decline | None]


def decide(case: Case) -> Decision:
    """Accept or decline; the first check that objects gives the reason."""
    declined = _first(_PROOF_CHECKS, case)
    if declined is not None:
        return Decision(declined)
    counter = case.request.evidence.counter
    declined = _first(_LIMIT_CHECKS, case)
    if declined is not None:
        return Decision(declined, counter, is_proved=True)
    pin = _pin(case)
    if pin.reason is not None:
        declined = Decline(pin.reason, pin.text, pin_tries_left=pin.tries_left)
        return Decision(declined, counter, is_proved=True, pin_tries_left=pin.tries_left)
    risk = _risk(case)
    declined = _too_risky(risk) or _balance(case)
    return Decision(declined, counter, is_proved=True, risk=risk, pin_tries_left=pin.tries_left)


def spend_day(now_ms: int, time_zone: str) -> str:
    """The date on which a payment counts, where the card lives."""
    return datetime.fromtimestamp(now_ms / 1000, ZoneInfo(time_zone)).date().isoformat()


def _first(checks: tuple[_Check, ...], case: Case) -> Decline | None:
    for check in checks:
        declined = check(case)
        if declined is not None:
            return declined
    return None


def _fresh(case: Case) -> Decline | None:
    found = offline_policy.objection(case.request, case.facts.offline, case.now_ms)
    return None if found is None else Decline(found, offline_policy.WORDS[found])


def _known(case: Case) -> Decline | None:
    if case.facts.card is None or case.request.evidence.problem is Reason.CARD_UNKNOWN:
        return Decline(Reason.CARD_UNKNOWN, "The card is not known here")
    return None


def _proved(case: Case) -> Decline | None:
    evidence, card = case.request.evidence, _card(case)
    if evidence.problem is not None:
        return Decline(evidence.problem, "The card's proof does not hold")
    if evidence.card_uuid is not None and evidence.card_uuid != card.uuid:
        return Decline(Reason.CARD_PROOF_INVALID, "The card's proof is by another card")
    if evidence.profile is Profile.APP:
        return _spends_by_key(card)
    # A card that can prove itself must: else its serial number alone would pay.
    if evidence.profile != card.profile:
        return Decline(Reason.CARD_PROOF_INVALID, f"This card proves itself by {card.profile}")
    if evidence.key_version not in {None, card.key_version}:
        return Decline(Reason.CARD_PROOF_INVALID, "The card's keys are not those on record")
    return None


def _spends_by_key(card: Card) -> Decline | None:
    """Nobody but the card could sign for such an account."""
    if card.profile == Profile.SIGNED:
        return Decline(Reason.CARD_PROOF_INVALID, "This card pays by its own signature only")
    return None


def _signed(case: Case) -> Decline | None:
    """Whether what the card signed is what would be settled; its amount and id were checked."""
    authorization, terminal = case.request.evidence.authorization, case.facts.terminal
    if authorization is None:
        return None
    left_s = authorization.valid_before_s - case.now_ms // 1000
    longest_s = offline_policy.longest_s(case.request, case.facts.offline)
    if not SIGNED_LEAST_S <= left_s <= longest_s:
        return Decline(Reason.CLOCK_SKEW, "The card has signed for another time")
    if authorization.payer != _card(case).account:
        return Decline(Reason.CARD_PROOF_INVALID, "The card has signed for another account")
    if terminal is not None and authorization.payee != terminal.payee:
        return Decline(Reason.CARD_PROOF_INVALID, "The card has signed for another merchant")
    return None


def _rising(case: Case) -> Decline | None:
    counter = case.request.evidence.counter
    if counter is not None and counter <= _card(case).sun_counter:
        return Decline(Reason.CARD_REPLAYED, "This tap was used before; tap the card again")
    return None


def _profile(case: Case) -> Decline | None:
    if case.request.evidence.profile is Profile.UID and not case.rules.accept_uid_cards:
        return Decline(Reason.CARD_PROFILE_DISABLED, "Cards without a proof are not accepted here")
    return None


def _terminal(case: Case) -> Decline | None:
    if case.facts.terminal is None:
        return Decline(Reason.TERMINAL_UNKNOWN, "The terminal is not known here")
    if case.facts.terminal.status == "frozen":
        return Decline(Reason.TERMINAL_FROZEN, "The terminal is frozen")
    if case.facts.terminal.status != "active":
        return Decline(Reason.TERMINAL_REVOKED, "The terminal was revoked")
    return None


def _merchant(case: Case) -> Decline | None:
    terminal = case.facts.terminal
    if terminal is None or terminal.merchant_id != case.request.merchant_id:
        return Decline(Reason.INVALID_MERCHANT, "The terminal does not belong to this merchant")
    if terminal.merchant_status != "active":
        return Decline(Reason.INVALID_MERCHANT, "The merchant's account is closed")
    return None


def _charge(case: Case) -> Decline | None:
    found = charges.objection(case.facts.charge, case.request, case.now_ms)
    return None if found is None else Decline(found, charges.WORDS[found])


def _card_status(case: Case) -> Decline | None:
    card = _card(case)
    if card.status == "frozen":
        return Decline(Reason.CARD_FROZEN, "The card is frozen")
    if card.owner_frozen_at_ms is not None:
        return Decline(Reason.USER_FROZEN, "The card's owner is frozen")
    is_over = card.expires_at_ms is not None and case.now_ms >= card.expires_at_ms
    if is_over or card.status != "active":
        return Decline(Reason.CARD_EXPIRED, "The card has expired")
    return None


def _currency(case: Case) -> Decline | None:
    if case.request.currency not in {None, case.rules.currency}:
        return Decline(Reason.CURRENCY_UNSUPPORTED, f"Only {case.rules.currency} is accepted here")
    return None


def _single_limit(case: Case) -> Decline | None:
    limit = _card(case).single_limit_units
    if case.request.amount_units > limit:
        text = f"Amount exceeds single transaction limit: {case.rules.text(limit)} at most"
        return Decline(Reason.SINGLE_LIMIT, text)
    return None


def _daily_limit(case: Case) -> Decline | None:
    left = max(0, _card(case).daily_limit_units - case.facts.spent_units)
    if case.request.amount_units > left:
        text = f"Insufficient daily limit: {case.rules.text(left)} left today"
        return Decline(Reason.DAILY_LIMIT, text, left)
    return None


def _pin(case: Case) -> PinJudgement:
    # An app's user has proved by a token who they are; a card on the pad is in anybody's hand.
    pin = None if case.request.evidence.profile is Profile.APP else _card(case).pin
    return judge(pin, case.request.amount_units, case.request.pin)


def _risk(case: Case) -> fraud.Risk:
    card, counter, facts = _card(case), case.request.evidence.counter, case.facts
    # A card's first tap here tells nothing: it was made and tried out elsewhere.
    known = counter is not None and card.sun_counter > 0
    tap = fraud.Tap(
        card=facts.card_activity,
        terminal=facts.terminal_activity,
        amount_units=case.request.amount_units,
        counter_step=counter - card.sun_counter if known and counter is not None else None,
        card_age_ms=case.now_ms - card.created_at_ms,
        now_ms=case.now_ms,
    )
    return fraud.assess(tap, case.rules.fraud)


def _too_risky(risk: fraud.Risk) -> Decline | None:
    if not risk.declines:
        return None
    text = f"High fraud risk: {risk.text}"
    return Decline(Reason.HIGH_FRAUD_RISK, text[:MAX_TEXT], rules=risk.fired)


def _balance(case: Case) -> Decline | None:
    # How much is left is between the customer and the gateway: the answer goes to a merchant.
    if case.request.amount_units > case.facts.available_units:
        return Decline(Reason.INSUFFICIENT_BALANCE, "Insufficient balance")
    return None


def _card(case: Case) -> Card:
    if case.facts.card is None:
        raise AssertionError("the proof's checks let nothing without a card pass")
    return case.facts.card


_PROOF_CHECKS: Final[tuple[_Check, ...]] = (_fresh, _known, _proved, _signed, _rising, _profile)
_LIMIT_CHECKS: Final[tuple[_Check, ...]] = (
    _terminal,
    _merchant,
    _charge,
    _card_status,
    _currency,
    _single_limit,
    _daily_limit,
)

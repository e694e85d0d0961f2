"""What a till asks a terminal to take: its states, who may still change it, and its words.

    waiting ──▶ armed ──▶ approved      a tap was accepted: there is a payment
       │          ├─────▶ declined      a tap was declined, for good
       ├──────────┼─────▶ cancelled     the till took it back, or staff did at the terminal
       ├──────────┼─────▶ expired       nobody tapped in time
       ╰──────────┴─────▶ refused       the terminal did not take it

A charge comes to one tap at most: a customer who is declined is charged anew by the till. Waiting
charges may be tapped too, because the terminal's word that it is armed may come later than the tap.
No I/O and no clock; `ledger.charges` makes each step hold.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from taprail_common.api.charges import ChargeStatus
from taprail_common.clock import rfc3339

OPEN: Final = (ChargeStatus.WAITING, ChargeStatus.ARMED)
"""In which a charge may still come to a payment."""


class Objection(StrEnum):
    """Why a tap cannot pay a charge; also reasons of declines."""

    UNKNOWN = "charge_unknown"
    CANCELLED = "charge_cancelled"
    EXPIRED = "charge_expired"
    CLOSED = "charge_closed"
    MISMATCH = "charge_mismatch"


@dataclass(frozen=True, slots=True)
class Charge:
    """A charge's row."""

    id: str
    terminal_id: str
    merchant_id: str
    user_id: str
    reference: str
    idempotency_key: str | None
    amount_units: int
    currency: str
    status: ChargeStatus
    reason_code: str | None
    payment_id: str | None
    created_at_ms: int
    deadline_ms: int
    armed_at_ms: int | None
    ended_at_ms: int | None
    changed_at_ms: int

    @property
    def is_open(self) -> bool:
        return self.status in OPEN


@dataclass(frozen=True, slots=True)
class Asked:
    """What a till asks for."""

    amount_units: int
    currency: str
    reference: str
    deadline_s: int

    def made(self, charge: Charge) -> bool:
        """Whether this very request made the charge."""
        given_ms = charge.deadline_ms - charge.created_at_ms
        return self == Asked(
            charge.amount_units, charge.currency, charge.reference, given_ms // 1000
        )

    def is_same_sale(self, charge: Charge) -> bool:
        """Whether it asks for what the charge is about, however long it may take."""
        said = (charge.amount_units, charge.currency, charge.reference)
        return said == (self.amount_units, self.currency, self.reference)


class Tap(Protocol):
    """What of a payment request has to agree with the charge that it names."""

    @property
    def charge_id(self) -> str | None: ...
    @property
    def terminal_id(self) -> str: ...
    @property
    def amount_units(self) -> int: ...
    @property
    def currency(self) -> str | None: ...


def objection(charge: Charge | None, tap: Tap, now_ms: int) -> Objection | None:
    """Why a tap may not pay the charge that it names; None if it may, or names none."""
    if tap.charge_id is None:
        return None
    if charge is None or charge.terminal_id != tap.terminal_id:
        return Objection.UNKNOWN
    if not charge.is_open:
        return _CLOSED.get(charge.status, Objection.CLOSED)
    if now_ms > charge.deadline_ms:
        return Objection.EXPIRED
    if (tap.amount_units, tap.currency) != (charge.amount_units, charge.currency):
        return Objection.MISMATCH
    return None


_CLOSED: Final = {
    ChargeStatus.CANCELLED: Objection.CANCELLED,
    ChargeStatus.EXPIRED: Objection.EXPIRED,
}

WORDS: Final = {
    Objection.UNKNOWN: "The terminal was not asked to charge this",
    Objection.CANCELLED: "The sale was cancelled before the tap came in",
    Objection.EXPIRED: "The time for this sale was over when the tap came in",
    Objection.CLOSED: "This sale is over; nothing more is charged for it",
    Objection.MISMATCH: "The tap is for another amount than the sale",
}
"""An objection as people read it on a decline."""


def ending(reason_code: str | None) -> ChargeStatus:
    """How a tap's decision ends an open charge; None for an acceptance."""
    if reason_code is None:
        return ChargeStatus.APPROVED
    return ChargeStatus.EXPIRED if reason_code == Objection.EXPIRED else ChargeStatus.DECLINED


def view(charge: Charge) -> dict[str, object]:
    """A charge as those see it whom it concerns."""
    return {
        "chargeId": charge.id,
        "terminalId": charge.terminal_id,
        "merchantId": charge.merchant_id,
        "reference": charge.reference,
        "amount": charge.amount_units,
        "currency": charge.currency,
        "status": charge.status.value,
        "reasonCode": charge.reason_code,
        "transactionId": charge.payment_id,
        "createdAt": rfc3339(charge.created_at_ms),
        "deadline": rfc3339(charge.deadline_ms),
        "armedAt": _time(charge.armed_at_ms),
        "endedAt": _time(charge.ended_at_ms),
    }


def event_of(status: ChargeStatus) -> str:
    """The type of the webhook that tells of a charge's end."""
    return f"charge.{status}"


def event_body(charge: Charge) -> bytes:
    """What a merchant's server is told of a charge's end."""
    event = {
        "type": event_of(charge.status),
        "timestamp": rfc3339(charge.changed_at_ms),
        "data": view(charge),
    }
    return json.dumps(event).encode()


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)

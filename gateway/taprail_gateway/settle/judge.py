"""What the chain's facts mean for a payment: pure decisions, one function for each question.

The facts come from one confirmed block or earlier. A decision against a payment needs every fact
in hand: whoever could not read one of them must not ask here. What can never be taken back, that a
payment has failed, moreover wants a final block that is deep enough (`is_proven`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger.queries import BoundPayment
from taprail_gateway.ledger.schema import REFUSED_AFTER
from taprail_gateway.ledger.transitions import Confirmed
from taprail_gateway.settle.errors import NOT_COVERED
from taprail_gateway.settle.executions import Fate, Place, Transfer

MAX_LEFT_OUT: Final = 3
"""Transactions that may be final without a payment before a person has to look at it."""

MAX_BINDINGS: Final = 10
"""Those included that never had their chance: an outage, or a wallet without gas, must not cost a
merchant who was told yes, but nothing goes round for ever."""

PROOF_DEPTH: Final = 7
"""Blocks that must lie between the confirmed block and one that proves a failure, because a failure
is not taken back when its block is: the longest reorg that Ethereum's beacon chain has had (25 May
2022). A finalized block needs none."""

_BURNT: Final = "its authorization was used up by its holder"
_EXPIRED: Final = "its authorization expired without being used"

TRAVELLING: Final = frozenset({PaymentState.PROCESSING, PaymentState.SENT})


class Step(Enum):
    """What to do with a payment."""

    CONFIRM = auto()
    UNBIND = auto()
    GIVE_UP = auto()
    RETRY = auto()
    DISPROVE = auto()
    REJECT = auto()
    LEAVE = auto()
    """Nothing now, and its transaction is done with: the proof rule decides later."""
    WAIT = auto()
    """The facts do not tell: ask again, and keep its transaction open."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the chain says of one authorization, up to the confirmed block."""

    spent: bool
    """The token: its nonce was used, or cancelled."""
    fate: Place | Fate
    """The logs: by what."""
    left_out: int = 0
    """Transactions that had their chance to pay it and are final without, all told."""

    @property
    def is_unclear(self) -> bool:
        """Spent, but no log tells by what: nothing may be concluded."""
        return self.spent and self.fate is Fate.UNSEEN


@dataclass(frozen=True, slots=True)
class Judgement:
    """The step, where the transfer was made (for CONFIRM), and why (for the others)."""

    step: Step
    place: Place | None = None
    reason: str = ""


@dataclass
class Verdicts:
    """The judgements of one pass, by what has to be written for them."""

    confirmed: list[Confirmed] = field(default_factory=list)
    others: dict[Step, dict[str, list[str]]] = field(default_factory=dict)
    """step → reason → payment ids"""
    waiting: set[str] = field(default_factory=set)
    """Payments that nothing can be said of yet."""
    payers: set[str] = field(default_factory=set)
    """Whose balances have to be read with it: money of theirs moved, or did not although asked."""

    def add(self, payment: BoundPayment, judgement: Judgement) -> None:
        """File one judgement."""
        if judgement.step not in {Step.WAIT, Step.LEAVE}:
            self.payers.add(payment.payer)
        if judgement.place is not None:
            place = judgement.place
            self.confirmed.append(
                Confirmed(payment.id, place.tx_hash, place.block_number, place.block_hash)
            )
        elif judgement.step is Step.WAIT:
            self.waiting.add(payment.id)
        elif judgement.step is not Step.LEAVE:
            by_reason = self.others.setdefault(judgement.step, {})
            by_reason.setdefault(judgement.reason, []).append(payment.id)


def transfer_of(payment: BoundPayment) -> Transfer:
    """The transfer that this payment stands for."""
    return Transfer(payment.payer, payment.payee, payment.amount_units, payment.id)


def left_out(payment: BoundPayment, facts: Facts, why: str) -> Judgement:
    """A payment whose transaction is final without having paid it, for the reason given."""
    if isinstance(facts.fate, Place):
        return Judgement(Step.CONFIRM, place=facts.fate)
    if facts.is_unclear:
        return Judgement(Step.WAIT)
    is_listed = payment.state not in TRAVELLING
    burnt = facts.fate is Fate.BURNT
    if burnt or is_at_its_end(left_out=facts.left_out, bindings=payment.bindings):
        times = max(facts.left_out, 1)
        reason = _BURNT if burnt else f"{times} transactions went by: {why}"
        return Judgement(Step.LEAVE) if is_listed else Judgement(Step.GIVE_UP, reason=reason)
    # Nothing but its time was against one on the list: it need not wait until that has run out.
    return Judgement(Step.RETRY if is_listed else Step.UNBIND, reason=why)


def expired(payment: BoundPayment, facts: Facts, *, is_proven: bool) -> Judgement:
    """A payment that was given up, at a final block past the end of all that was signed for it.

    Paid after all, or not by any of that: an unspent nonce past that end is a proof by itself,
    because the token will refuse whatever still lies in some pool. What merely took too long (an
    outage, a wallet without gas) is signed anew then: the merchant was told yes, the money is still
    held, and the nonce is the same. Only what went by too often is at its end.
    """
    if isinstance(facts.fate, Place):
        return Judgement(Step.CONFIRM, place=facts.fate)
    if facts.is_unclear:
        return Judgement(Step.WAIT)
    burnt = facts.fate is Fate.BURNT
    if not burnt and not is_at_its_end(left_out=facts.left_out, bindings=payment.bindings):
        return Judgement(Step.RETRY, reason=_EXPIRED)
    if not is_proven:
        return Judgement(Step.LEAVE)
    return Judgement(Step.DISPROVE, reason=_BURNT if burnt else _EXPIRED)


def refused(payment: BoundPayment, facts: Facts, *, is_proven: bool) -> Judgement:
    """A pending payment that a preflight has refused.

    It may have been carried out by somebody else: what was signed for it is public. Else it fails,
    if it is not tried again, once a final block is past the end of all that was ever signed for it,
    the preflights included.
    """
    if isinstance(facts.fate, Place):
        return Judgement(Step.CONFIRM, place=facts.fate)
    if facts.is_unclear:
        return Judgement(Step.WAIT)
    if not is_proven or payment.preflights < REFUSED_AFTER:
        return Judgement(Step.LEAVE)
    burnt = facts.fate is Fate.BURNT
    return Judgement(Step.REJECT, reason=_BURNT if burnt else payment.failure_reason or _EXPIRED)


def why_left_out(payment: BoundPayment, *, outcome: str, balances: Mapping[str, int]) -> str:
    """The reason for people, as far as the facts at hand tell; `outcome`: of its transaction."""
    if balances.get(payment.payer, payment.amount_units) < payment.amount_units:
        return NOT_COVERED
    return outcome


def is_at_its_end(*, left_out: int, bindings: int) -> bool:
    """Whether a payment that is not paid goes round no more."""
    return left_out >= MAX_LEFT_OUT or bindings >= MAX_BINDINGS

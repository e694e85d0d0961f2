"""The states of a payment, and every step between them, in one table.

    pending ──bind──▶ processing ──broadcast──▶ sent ──confirm──▶ completed
       │                  │                      │                    │
       │                  └──────────┬───────────┘◀──────reorg────────┘
       │            unbind (back)    │ give_up
       │                             ▼
       └──reject──▶ failed ◀──disprove── confirmation_failed ──confirm──▶ completed

From `processing` on a payment *may be on chain*. What follows from that:

- `unbind` is allowed only when its transaction is final without the payment; the payment keeps its
  authorization nonce, so an old authorization and a new one can never both move money;
- `failed` is reached only with proof that the payment can never take effect: it was never signed
  (`reject`), or a final block is past `validBefore` of every authorization ever signed for it and
  no transfer was found (`disprove`);
- funds stay held in every state but `completed` and `failed`;
- even a `pending` payment may be paid: what was signed for it is public (an earlier transaction
  held it, or a node was asked to try it), and anyone may carry it out. Then it can never be bound
  again, so `confirm` leads from there too, and `reorg_unbound` back, as it has no transaction.

An event that the table does not have raises and changes nothing. The ledger guards each step again
in SQL by the state that it leaves.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from taprail_common.errors import IllegalTransitionError


class PaymentState(StrEnum):
    """Where a payment is; the values are part of the public contract."""

    PENDING = "pending"
    PROCESSING = "processing"
    SENT = "sent"
    COMPLETED = "completed"
    FAILED = "failed"
    CONFIRMATION_FAILED = "confirmation_failed"


class PaymentEvent(StrEnum):
    """What may happen to a payment."""

    BIND = "bind"
    """Its authorization is signed and stored inside a transaction with a lane and a nonce."""
    BROADCAST = "broadcast"
    """A node took the bytes."""
    CONFIRM = "confirm"
    """Its transfer is final at the chosen depth."""
    UNBIND = "unbind"
    """Its transaction is final without it."""
    GIVE_UP = "give_up"
    """Not confirmed by its deadline, or too often final without effect."""
    REJECT = "reject"
    """Cancelled or expired before anybody ever signed for it."""
    DISPROVE = "disprove"
    """Proof that no authorization for it can take effect any more."""
    RETRY = "retry"
    """It goes round again: its transaction is final without it, nothing that was signed for it can
    take effect any more, or an operator wants it."""
    REORG = "reorg"
    """The block that held it is gone, deeper than the chosen depth."""
    REORG_UNBOUND = "reorg_unbound"
    """The same, of a payment that somebody else carried out while no transaction of ours did."""


_S = PaymentState
_E = PaymentEvent

TRANSITIONS: Final[dict[tuple[PaymentState, PaymentEvent], PaymentState]] = {
    (_S.PENDING, _E.BIND): _S.PROCESSING,
    (_S.PENDING, _E.REJECT): _S.FAILED,
    (_S.PENDING, _E.CONFIRM): _S.COMPLETED,
    (_S.PROCESSING, _E.BROADCAST): _S.SENT,
    (_S.PROCESSING, _E.CONFIRM): _S.COMPLETED,
    (_S.PROCESSING, _E.UNBIND): _S.PENDING,
    (_S.PROCESSING, _E.GIVE_UP): _S.CONFIRMATION_FAILED,
    (_S.SENT, _E.CONFIRM): _S.COMPLETED,
    (_S.SENT, _E.UNBIND): _S.PENDING,
    (_S.SENT, _E.GIVE_UP): _S.CONFIRMATION_FAILED,
    (_S.CONFIRMATION_FAILED, _E.CONFIRM): _S.COMPLETED,
    (_S.CONFIRMATION_FAILED, _E.RETRY): _S.PENDING,
    (_S.CONFIRMATION_FAILED, _E.DISPROVE): _S.FAILED,
    (_S.COMPLETED, _E.REORG): _S.SENT,
    (_S.COMPLETED, _E.REORG_UNBOUND): _S.PENDING,
}

HOLDING: Final = frozenset({_S.PENDING, _S.PROCESSING, _S.SENT, _S.CONFIRMATION_FAILED})
"""States in which the payer's funds are held and the day's spend counts."""

SETTLED: Final = frozenset({_S.COMPLETED, _S.FAILED})
"""States after which nothing more is expected to happen."""


def next_state(state: PaymentState, event: PaymentEvent) -> PaymentState:
    """The state after the event; raises IllegalTransitionError when the table has no such step."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransitionError(f"a {state} payment cannot {event}") from None


def sources_of(event: PaymentEvent) -> frozenset[PaymentState]:
    """The states in which the event is allowed: the guard of the SQL that carries it out."""
    return frozenset(state for state, possible in TRANSITIONS if possible is event)


def target_of(event: PaymentEvent) -> PaymentState:
    """The state that the event leads to; each event has exactly one."""
    (target,) = {target for (_, possible), target in TRANSITIONS.items() if possible is event}
    return target

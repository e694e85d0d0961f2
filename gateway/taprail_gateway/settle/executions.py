"""Which payments a set of logs has paid: the judgement of success, pure.

The token logs `AuthorizationUsed(from, nonce)` and, as its very next log, the `Transfer` that this
authorization allowed. Both are needed: a holder may burn the nonce with another transfer, or with
a cancel, so the used flag alone proves nothing. Only the log that follows counts, never the one
before: else one transfer could be read as the payment of two authorizations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from taprail_gateway.settle.calls import (
    AUTHORIZATION_CANCELED_TOPIC,
    AUTHORIZATION_USED_TOPIC,
    TRANSFER_TOPIC,
    address_topic,
    topic_address,
)
from taprail_gateway.settle.replies import Log

SPENT_TOPICS: Final = (AUTHORIZATION_USED_TOPIC, AUTHORIZATION_CANCELED_TOPIC)
"""The events after which an authorization nonce is spent, whatever it did."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer as a payment wants it: who, to whom, how much, under which nonce."""

    payer: str
    payee: str
    amount_units: int
    nonce: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where on the chain something happened."""

    tx_hash: str
    block_number: int
    block_hash: str


class Fate(Enum):
    """What the logs say of one authorization."""

    UNSEEN = auto()
    """Neither used nor cancelled in these logs."""
    BURNT = auto()
    """Used for another transfer, or cancelled, by its holder: it can move nothing any more."""


def executed(token: str, logs: Iterable[Log]) -> dict[Transfer, Place]:
    """The transfers that authorizations of this token moved, and where."""
    own = [log for log in logs if log.address == token]
    by_place = {(log.tx_hash, log.index): log for log in own}
    found = {}
    for used in own:
        beside = by_place.get((used.tx_hash, used.index + 1))
        if _is_used(used) and beside is not None and _is_transfer_of(beside, used.topics[1]):
            transfer = Transfer(
                payer=topic_address(used.topics[1]),
                payee=topic_address(beside.topics[2]),
                amount_units=int(beside.data, 16),
                nonce=used.topics[2],
            )
            found[transfer] = Place(used.tx_hash, used.block_number, used.block_hash)
    return found


def fate(wanted: Transfer, token: str, logs: Sequence[Log]) -> Place | Fate:
    """Where this very transfer was made, or what else the logs say of its authorization."""
    place = executed(token, logs).get(wanted)
    if place is not None:
        return place
    key = (address_topic(wanted.payer), wanted.nonce)
    spent = any(_is_spent(log) and log.topics[1:] == key for log in logs if log.address == token)
    return Fate.BURNT if spent else Fate.UNSEEN


def _is_spent(log: Log) -> bool:
    return len(log.topics) == 3 and log.topics[0] in SPENT_TOPICS


def _is_used(log: Log) -> bool:
    return len(log.topics) == 3 and log.topics[0] == AUTHORIZATION_USED_TOPIC


def _is_transfer_of(log: Log, payer_topic: str) -> bool:
    return (
        len(log.topics) == 3
        and log.topics[0] == TRANSFER_TOPIC
        and log.topics[1] == payer_topic
        and len(log.data) == 2 + 64
    )

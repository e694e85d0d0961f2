"""What a user may subscribe to: transactions and cards, in one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from taprail_common.ids import is_payment_id
from taprail_gateway import push_history
from taprail_gateway.event_pump import News
from taprail_gateway.payment_view import PaymentView
from taprail_gateway.push_auth import Listener
from taprail_gateway.push_history import Past
from taprail_gateway.push_rooms import Message
from taprail_gateway.push_words import Words

_LONGEST_ID: Final = 80


@dataclass(frozen=True, slots=True)
class Topic:
    """One kind of room: what its id is called, who may enter, and what is said in it."""

    kind: str
    field: str
    not_found: str
    find: Callable[[Connection, str, Listener], Past | None]
    """Its past for this listener; None when there is no such thing for them."""
    id_in: Callable[[PaymentView], str]
    words: Callable[[Words, News], list[Message]]

    def wanted(self, data: object) -> str:
        """The id that a client means; empty for what is none."""
        given = data.get(self.field) if isinstance(data, dict) else data
        return given if isinstance(given, str) and 0 < len(given) <= _LONGEST_ID else ""

    def said(self, data: object) -> dict[str, object]:
        """The same, as an error gives it back."""
        return {self.field: self.wanted(data)}

    def room_of(self, payment: PaymentView) -> str:
        """The room that hears of a payment."""
        return f"{self.kind}:{self.id_in(payment)}"

    def read(self, wanted: str, who: Listener, connection: Connection) -> Past | None:
        """A query for the reader threads."""
        return self.find(connection, wanted, who) if wanted else None

    def nothing_yet(self, words: Words, wanted: str, cursor: str) -> list[Message]:
        """How it stands before its first step; a transaction begins with one."""
        return [Message(0, *words.card_status(wanted, None, cursor))]


def _transaction(connection: Connection, wanted: str, who: Listener) -> Past | None:
    if not is_payment_id(wanted):
        return None
    return push_history.of_transaction(connection, wanted, who.terminal_id, who.user)


def _card(connection: Connection, wanted: str, who: Listener) -> Past | None:
    return push_history.of_card(connection, wanted, who.user)


TOPICS: Final = (
    Topic(
        "transaction",
        "transactionId",
        "Transaction not found",
        _transaction,
        lambda payment: payment.id,
        Words.of_transaction,
    ),
    Topic(
        "card",
        "cardUuid",
        "Card not found",
        _card,
        lambda payment: payment.card_uuid,
        Words.of_card,
    ),
)

"""The messages of the push, as apps know them: names and fields are the public contract's. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from taprail_common.clock import rfc3339
from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_gateway.event_pump import News
from taprail_gateway.ledger.alerts import Alert
from taprail_gateway.payment_view import PaymentView
from taprail_gateway.push_auth import payee_room, payer_room
from taprail_gateway.push_rooms import Message

Data = dict[str, object]

_MOVES_BACK: Final = frozenset({PaymentEvent.REORG.value, PaymentEvent.REORG_UNBOUND.value})
_MOVES: Final = frozenset({PaymentEvent.CONFIRM.value, *_MOVES_BACK})

_FOR_ALL: Final = {
    "error": "Payments may take longer than usual. The operator has been told.",
    "warning": "Some payments may take longer than usual.",
    "info": "The operator has been told of something.",
}
"""What everybody hears of an alert, by its level: its own words may name wallets and nodes."""


class Words:
    """Puts news into messages; `explorer_link` gives the address of a transaction's page."""

    def __init__(
        self, now: Callable[[], str], explorer_link: Callable[[str | None], str | None]
    ) -> None:
        self._now = now
        self._explorer_link = explorer_link

    def of_transaction(self, news: News) -> list[Message]:
        """What `transaction:{id}` is told of a step."""
        payment = news.payment
        same: Data = {
            "transactionId": payment.id,
            "status": news.state,
            "timestamp": self._now(),
            "cursor": news.cursor,
            **_sale_of(payment),
        }
        known: Data = {"txHash": payment.tx_hash, "amount": payment.amount_units}
        messages = [Message(news.seq, "transaction:update", {**same, **known})]
        if news.state == PaymentState.COMPLETED and payment.completed_at_ms is not None:
            completed: Data = {
                **same,
                **known,
                "explorerUrl": self._explorer_link(payment.tx_hash),
                "completedAt": rfc3339(payment.completed_at_ms),
            }
            messages.append(Message(news.seq, "transaction:completed", completed))
        if news.state == PaymentState.FAILED:
            why: Data = {"reason": payment.failure_reason, "failedAt": rfc3339(news.at_ms)}
            messages.append(Message(news.seq, "transaction:failed", {**same, **why}))
        return messages

    def of_card(self, news: News) -> list[Message]:
        """What `card:{uuid}` is told of a step of a payment with it."""
        payment = news.payment
        done_ms = payment.completed_at_ms if news.state == PaymentState.COMPLETED else None
        last: Data = {
            "id": payment.id,
            "amount": payment.amount_units,
            "status": news.state,
            "completedAt": None if done_ms is None else rfc3339(done_ms),
            **_sale_of(payment),
        }
        return [Message(news.seq, *self.card_status(payment.card_uuid, last, news.cursor))]

    def card_status(self, card_uuid: str, last: Data | None, cursor: str) -> tuple[str, Data]:
        """How a card stands: what became of its last transaction, or that there was none."""
        return "card:status:update", {
            "cardUuid": card_uuid,
            "status": {"lastTransaction": last},
            "timestamp": self._now(),
            "cursor": cursor,
        }

    def of_balance(self, news: News, purse: str) -> list[Message]:
        """What a user is told of a step; only of one that has moved money of theirs."""
        payment = news.payment
        # A refund is a payment from the merchant to the customer.
        units = payment.amount_units if payment.refund_of is None else -payment.amount_units
        gains = {payee_room(payment.merchant_user_id): units}
        gains |= {payer_room(payment.user_id): -units}
        if news.event not in _MOVES or purse not in gains:
            return []
        gained = gains[purse]
        last: Data = {
            "id": payment.id,
            "amount": -gained if news.event in _MOVES_BACK else gained,
            "txHash": payment.tx_hash,
            "status": news.state,
            **_sale_of(payment),
        }
        balance: Data = {
            "lastUpdate": rfc3339(news.at_ms),
            "currency": payment.currency,
            "lastTransaction": last,
        }
        data: Data = {"balance": balance, "timestamp": self._now(), "cursor": news.cursor}
        return [Message(news.seq, "balance:update", data)]

    def alert_for_all(self, level: str) -> Data:
        """An alert as everybody hears it."""
        return {"message": _FOR_ALL[level], "level": level, "timestamp": self._now()}

    def alert_for_operators(self, alert: Alert) -> Data:
        """The same with what it is about."""
        return {
            "message": alert.text,
            "level": alert.level,
            "timestamp": self._now(),
            "id": alert.id,
            "kind": alert.kind,
            "subject": alert.subject,
            "needsReview": alert.needs_review,
            "raisedAt": rfc3339(alert.raised_at_ms),
        }


def _sale_of(payment: PaymentView) -> Data:
    """Which sale a refund gives back; nothing of a sale."""
    return {} if payment.refund_of is None else {"refundOf": payment.refund_of}


def worded(
    steps: Sequence[News], words: Callable[[News], list[Message]], place: str, before: str
) -> list[Message]:
    """Steps that were read, each with a place from which nothing is missed: the last one is up to
    date, the others leave whoever is cut off among them where they were."""
    told: list[list[Message]] = []
    for step in reversed(steps):
        messages = words(replace(step, cursor=before if told else place))
        if messages:
            told.append(messages)
    return [message for messages in reversed(told) for message in messages]

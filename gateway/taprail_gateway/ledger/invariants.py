"""What must be true of every ledger at every moment, checked against all of it.

For tests and for `admin check`: it reads everything and is no part of any loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, exists, func, select

from taprail_common.payment_state import HOLDING, PaymentState
from taprail_gateway.ledger.funds import NO_DAY
from taprail_gateway.ledger.schema import (
    accounts,
    alerts,
    attempts,
    bindings,
    card_authorizations,
    card_spend,
    cards,
    chain_transactions,
    lanes,
    payment_events,
    payments,
    refunded_sales,
    refunds,
)
from taprail_gateway.ledger.schema_refunds import AWAITS_FLOAT_MS

_MAX_SHOWN = 20


@dataclass(frozen=True)
class _Check:
    """Finds what is wrong; `words` take a row of it, column by column."""

    wrong: Select[*tuple[Any, ...]]
    words: str

    def problems(self, connection: Connection) -> Iterator[str]:
        for row in connection.execute(self.wrong):
            yield self.words.format(*row)


def check_invariants(connection: Connection) -> list[str]:
    """One sentence for each thing that is wrong, at most 20 of a kind; empty when all is well."""
    return [problem for check in _checks() for problem in check.problems(connection)]


@cache
def _checks() -> tuple[_Check, ...]:
    """Made once: to build a statement takes longer than to run it on a small ledger."""
    kinds = (
        *(_holds, _spend, _lanes, _attempts, _travelling, _completed, _bindings, _events),
        *(_signatures, _shares, _refunds, _awaiting),
    )
    return tuple(
        _Check(check.wrong.limit(_MAX_SHOWN), check.words) for kind in kinds for check in kind()
    )


def _holds() -> Iterator[_Check]:
    holding = [state.value for state in HOLDING]
    total = func.coalesce(func.sum(payments.c.amount_units), 0)
    statement = (
        select(accounts.c.address, accounts.c.held_units, total)
        .outerjoin(
            payments, (payments.c.payer == accounts.c.address) & payments.c.state.in_(holding)
        )
        .group_by(accounts.c.address, accounts.c.held_units)
        .having(accounts.c.held_units != total)
    )
    yield _Check(statement, "account {} holds {} units, its open payments are {}")


def _spend() -> Iterator[_Check]:
    card = func.coalesce(cards.c.day_of, cards.c.uuid)
    counted = (
        select(
            card.label("card_uuid"),
            payments.c.spend_day.label("day"),
            func.sum(payments.c.amount_units).label("units"),
        )
        .join_from(payments, cards, payments.c.card_uuid == cards.c.uuid)
        .where(payments.c.state != PaymentState.FAILED.value, payments.c.spend_day != NO_DAY)
        .group_by(card, payments.c.spend_day)
        .subquery()
    )
    same = (counted.c.card_uuid == card_spend.c.card_uuid) & (counted.c.day == card_spend.c.day)
    due = func.coalesce(counted.c.units, 0)
    wrong = (
        select(card_spend.c.card_uuid, card_spend.c.spent_units, card_spend.c.day, due)
        .outerjoin(counted, same)
        .where(card_spend.c.spent_units != due)
    )
    yield _Check(wrong, "card {} has spent {} units on {}, its payments are {}")
    absent = select(counted.c.card_uuid, counted.c.day).where(
        ~exists().where(same).correlate(counted)
    )
    yield _Check(absent, "card {} has payments but no spend on {}")


# A lane whose key was used elsewhere goes on behind those nonces; an alert has told of it.
_SHARED = exists().where(alerts.c.kind == "foreign_nonce", alerts.c.subject == lanes.c.address)


def _lanes() -> Iterator[_Check]:
    nonce = chain_transactions.c.nonce
    statement = (
        select(lanes.c.address, lanes.c.next_nonce, func.max(nonce))
        .join(chain_transactions, chain_transactions.c.lane == lanes.c.address)
        .where(~_SHARED)
        .group_by(lanes.c.address, lanes.c.next_nonce)
        .having((func.max(nonce) + 1 != lanes.c.next_nonce) | (lanes.c.next_nonce.is_(None)))
    )
    yield _Check(statement, "lane {} would use nonce {} after {}")
    count = func.count(nonce)
    gaps = (
        select(lanes.c.address, count, func.min(nonce), func.max(nonce))
        .join(chain_transactions, chain_transactions.c.lane == lanes.c.address)
        .where(~_SHARED)
        .group_by(lanes.c.address)
        .having(func.max(nonce) - func.min(nonce) + 1 != count)
    )
    yield _Check(gaps, "lane {} has {} transactions for the nonces {} to {}")


def _attempts() -> Iterator[_Check]:
    signed = exists().where(attempts.c.chain_transaction_id == chain_transactions.c.id)
    statement = select(chain_transactions.c.lane, chain_transactions.c.nonce).where(~signed)
    yield _Check(statement, "lane {} has no signed bytes for nonce {}")


def _travelling() -> Iterator[_Check]:
    states = [PaymentState.PROCESSING.value, PaymentState.SENT.value]
    bound = exists().where(
        bindings.c.payment_id == payments.c.id,
        bindings.c.chain_transaction_id == payments.c.chain_transaction_id,
    )
    statement = select(payments.c.id, payments.c.state).where(payments.c.state.in_(states), ~bound)
    yield _Check(statement, "payment {} is {} without a transaction")


def _completed() -> Iterator[_Check]:
    statement = select(payments.c.id).where(
        payments.c.state == PaymentState.COMPLETED.value,
        payments.c.tx_hash.is_(None)
        | payments.c.block_number.is_(None)
        | payments.c.completed_at_ms.is_(None),
    )
    yield _Check(statement, "payment {} is completed without saying where")


def _bindings() -> Iterator[_Check]:
    stored = select(func.count()).where(bindings.c.payment_id == payments.c.id).scalar_subquery()
    statement = select(payments.c.id, payments.c.bindings, stored).where(
        payments.c.bindings != stored
    )
    yield _Check(statement, "payment {} counts {} bindings, {} are stored")


def _signatures() -> Iterator[_Check]:
    """What no key here could sign for must have come signed, and counts as signed until then."""
    c = card_authorizations.c
    statement = (
        select(payments.c.id, payments.c.signed_until_s, c.valid_before_s)
        .join(accounts, accounts.c.address == payments.c.payer)
        .outerjoin(card_authorizations, c.payment_id == payments.c.id)
        .where(
            accounts.c.wrapped_key.is_(None),
            c.valid_before_s.is_(None) | (c.valid_before_s != payments.c.signed_until_s),
        )
    )
    yield _Check(statement, "payment {} is signed until {}, its card's signature ends at {}")


def _shares() -> Iterator[_Check]:
    """What is promised back of a sale is what its refunds come to, and the sale is known as it is.
    A check of the table sees to it that it is never more than was paid."""
    refund = payments.alias()
    due = (
        select(func.coalesce(func.sum(refund.c.amount_units), 0))
        .join_from(refunds, refund, refund.c.id == refunds.c.payment_id)
        .where(refunds.c.sale_id == payments.c.id, refund.c.state != PaymentState.FAILED.value)
        .correlate(payments)
        .scalar_subquery()
    )
    s = refunded_sales.c
    statement = (
        select(payments.c.id, payments.c.amount_units, s.refunded_units, s.refundable_units, due)
        .outerjoin_from(payments, refunded_sales, s.sale_id == payments.c.id)
        .where(
            payments.c.id.in_(select(refunds.c.sale_id).union(select(s.sale_id))),
            s.refunded_units.is_(None)
            | (s.refunded_units != due)
            | (s.refundable_units != payments.c.amount_units),
        )
    )
    yield _Check(
        statement,
        "sale {} of {} units has {} of {} promised back, its refunds are {}",
    )


def _refunds() -> Iterator[_Check]:
    """Whoever paid is paid back, by no card's day, and nothing else is without a day."""
    sale = payments.alias()
    statement = (
        select(payments.c.id, refunds.c.sale_id)
        .outerjoin_from(payments, refunds, refunds.c.payment_id == payments.c.id)
        .outerjoin(sale, sale.c.id == refunds.c.sale_id)
        .where(
            refunds.c.sale_id.is_not(None) | (payments.c.spend_day == NO_DAY),
            refunds.c.sale_id.is_(None)
            | (payments.c.spend_day != NO_DAY)
            | (payments.c.payee != sale.c.payer)
            | (sale.c.spend_day == NO_DAY),
        )
    )
    yield _Check(statement, "payment {} is no refund of {} that gives back what was paid")


def _awaiting() -> Iterator[_Check]:
    """Who waits for a float is due at no time, and nobody else waits for ever."""
    is_pending = payments.c.state == PaymentState.PENDING.value
    never = payments.c.due_at_ms.is_not(None) & (payments.c.due_at_ms == AWAITS_FLOAT_MS)
    statement = (
        select(payments.c.id, payments.c.state)
        .outerjoin(refunds, refunds.c.payment_id == payments.c.id)
        .where(
            ((func.coalesce(refunds.c.awaits_float, 0) == 1) & ~(is_pending & never))
            | ((func.coalesce(refunds.c.awaits_float, 0) == 0) & is_pending & never)
        )
    )
    yield _Check(statement, "payment {} is {}, and whether it waits for its float is not clear")


def _events() -> Iterator[_Check]:
    last = (
        select(payment_events.c.payment_id, func.max(payment_events.c.seq).label("seq"))
        .group_by(payment_events.c.payment_id)
        .subquery()
    )
    statement = (
        select(payments.c.id, payments.c.state, payment_events.c.state)
        .outerjoin(last, last.c.payment_id == payments.c.id)
        .outerjoin(payment_events, payment_events.c.seq == last.c.seq)
        .where(payment_events.c.state.is_(None) | (payment_events.c.state != payments.c.state))
    )
    yield _Check(statement, "payment {} is {}, its last event led to {}")

"""Accepts payments: all requests of one instant are decided and stored in one durable commit.

Inside the commit, for each request in the order of arrival: a verdict that was given before is
given again, byte for byte; else the request is decided on the ledger's rows (`authorize`), and the
verdict is stored together with everything that makes it true: the payment, its hold, the day's
spend and the card's counter; with what the next decisions need to know, the activity of card and
terminal; and with the audit log's link. A decline is stored too: it is final, so a later delivery
of the same request can never charge. While the gateway drains, what would be accepted is told to
ask again later, and leaves no trace; what can never be charged gets its final answer all the same.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from nacl.signing import SigningKey
from sqlalchemy import Connection, select

from taprail_common.clock import Clock, rfc3339
from taprail_common.crash import crash
from taprail_common.ids import new_id
from taprail_common.signing import Domain, sign
from taprail_common.wire import TerminalPayment
from taprail_gateway import audit, verdicts
from taprail_gateway.authorize import Case, Decision, Facts, PaymentRequest, Rules, decide
from taprail_gateway.book import Book, lock
from taprail_gateway.estimate import SettlementEstimate
from taprail_gateway.ledger import audit_log, card_signatures, charges, schema, transitions
from taprail_gateway.ledger.alerts import raise_alerts
from taprail_gateway.ledger.card_signatures import StoredSignature
from taprail_gateway.ledger.prepared import Lookup, prepared
from taprail_gateway.offline_policy import loss_text
from taprail_gateway.pins import SOFT

HIGH_AMOUNT_UNITS: Final = 1_000_000
"""Payments above this are sent first (public contract: priority 10, all others 5)."""

_CODE_BYTES: Final = 6
"""Random bytes of an authorization code: people read it out when they ask about a payment."""

APPROVED_STATUS: Final = 200
DECLINED_STATUS: Final = 400

SUSPECTED_ALERT: Final = "fraud_suspected"
DECLINED_ALERT: Final = "fraud_declined"
"""Kinds of the alerts about a card that taps suspiciously: its tap was taken, or was not."""

BLOCKED_ALERT: Final = "pin_blocked"
"""Kind of the alert about a card that wrong PINs have frozen."""


@dataclass(frozen=True, slots=True)
class AcceptItem:
    """One request as it came in; `user_id` is set for an app, `signature` for a terminal. `tap` is
    what a terminal has sent with a PIN, until that was looked at."""

    request: PaymentRequest
    body: bytes
    received_s: float
    signature: str | None = None
    user_id: str | None = None
    tap: TerminalPayment | None = field(default=None, repr=False)

    @property
    def key(self) -> tuple[str, str]:
        return self.request.requester, self.request.request_id


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored, signed verdict; `payment_id` is set when this very call accepted the payment."""

    http_status: int
    body: bytes
    signature: str
    payment_id: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Not a verdict, and nothing stored: the request itself may not be made."""

    http_status: int
    code: str
    message: str
    field: str | None = None


_REUSED: Final = Refusal(
    409, "request_id_reused", "this request id was used for another request", "requestId"
)
_DRAINING: Final = Refusal(
    503, "draining", "the gateway takes no new payments for now; ask again later"
)
_NOT_YOURS: Final = Refusal(403, "not_your_card", "you may pay only with a card of your own")

_v = schema.verdicts.c
_STORED: Final = Lookup(
    select(_v.requester, _v.request_id, _v.request_body, _v.http_status, _v.body, _v.signature),
    (_v.requester, _v.request_id),
)
_INSERT_VERDICT: Final = prepared(
    schema.verdicts.insert(), [column.name for column in schema.verdicts.c]
)


@dataclass(frozen=True, slots=True)
class _Given:
    request_body: bytes
    answer: Answer


class Acceptor:
    """The batcher of `Ledger.write_batched`; holds no state of its own between groups.

    Its `chain` in the audit log is its own: whoever accepts beside it has another one.
    """

    def __init__(
        self,
        key: SigningKey,
        rules: Rules,
        clock: Clock,
        estimate: SettlementEstimate,
        is_draining: Callable[[], bool] = bool,
    ) -> None:
        self._key = key
        self._rules = rules
        self._clock = clock
        self._estimate = estimate
        self._chain = new_id("chain")
        self.is_draining = is_draining

    def run(self, connection: Connection, items: Sequence[AcceptItem]) -> list[Answer | Refusal]:
        """One result per item, in order; all is written in the caller's transaction."""
        now_ms = self._clock.now_ms()
        lock(connection, [item.request for item in items])
        given = _given(connection, items)
        book = Book.load(connection, [i.request for i in items if i.key not in given], now_ms)
        group = _Group(self, book, given, now_ms, _codes(len(items)))
        results = [group.answer(item) for item in items]
        group.store(connection)
        crash("accept.written")
        return results

    def judge(self, item: AcceptItem, facts: Facts, now_ms: int) -> Decision:
        return decide(Case(item.request, facts, self._rules, now_ms))

    def approve(self, item: AcceptItem, auth_code: str, moment: verdicts.Moment) -> Answer:
        request = item.request
        body = verdicts.approved(
            request, self._rules.currency, auth_code, self._estimate.current, moment
        )
        return Answer(APPROVED_STATUS, body, self._sign(item, body), request.payment_id)

    def decline(self, item: AcceptItem, decision: Decision, moment: verdicts.Moment) -> Answer:
        if decision.declined is None:
            raise AssertionError("an acceptance is not a decline")
        currency = item.request.currency or self._rules.currency
        body = verdicts.declined(item.request, currency, decision.declined, moment)
        return Answer(DECLINED_STATUS, body, self._sign(item, body))

    def log(self, connection: Connection, entries: Sequence[audit_log.Entry], at_ms: int) -> None:
        """Write the decisions of this commit into the audit log."""
        seq, previous = audit_log.end(connection, self._chain)
        made = audit.link(self._key, self._chain, seq, previous, entries, at_ms)
        audit_log.append(connection, made)

    def elapsed_ms(self, item: AcceptItem) -> int:
        return round((self._clock.monotonic_s() - item.received_s) * 1000)

    def amount_text(self, request: PaymentRequest) -> str:
        return f"{self._rules.text(request.amount_units)} {request.currency or self.currency}"

    @property
    def currency(self) -> str:
        return self._rules.currency

    def _sign(self, item: AcceptItem, body: bytes) -> str:
        return sign(self._key, Domain.VERDICT, body, about=item.body)


class _Group:
    """The requests of one commit: what they were answered, and the rows to write for it."""

    def __init__(
        self,
        acceptor: Acceptor,
        book: Book,
        given: dict[tuple[str, str], _Given],
        now_ms: int,
        codes: Iterator[str],
    ) -> None:
        """`codes` are for payments to be known by, one for each request at least."""
        self._acceptor = acceptor
        self._codes = codes
        self._book = book
        self._given = given
        self._now_ms = now_ms
        self._time = rfc3339(now_ms)
        self._payments: list[dict[str, object]] = []
        self._verdicts: list[dict[str, object]] = []
        self._signatures: dict[str, StoredSignature] = {}
        self._entries: list[audit_log.Entry] = []
        self._tapped: dict[str, charges.Tapped] = {}
        self._suspected: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._blocked: dict[str, str] = {}

    def answer(self, item: AcceptItem) -> Answer | Refusal:
        before = self._given.get(item.key)
        if before is not None:
            return before.answer if before.request_body == item.body else _REUSED
        facts = self._book.facts(item.request)
        if item.user_id is not None and facts.card and facts.card.user_id != item.user_id:
            return _NOT_YOURS
        decision = self._acceptor.judge(item, facts, self._now_ms)
        if decision.declined is None and self._acceptor.is_draining():
            return _DRAINING
        answer = self._carry_out(item, facts, decision)
        self._note(item.request, facts, decision, answer)
        # A second delivery in the same group is answered like a later one.
        again = Answer(answer.http_status, answer.body, answer.signature)
        self._given[item.key] = _Given(item.body, again)
        self._verdicts.append(_verdict_row(item, answer, self._now_ms))
        return answer

    def store(self, connection: Connection) -> None:
        """Write everything; raises GuardError when a row is not as it was read."""
        self._book.store(connection)
        self._book.offline.store(connection, self._now_ms)
        if self._payments:
            transitions.accept(connection, self._payments, self._now_ms)
            card_signatures.store(connection, self._signatures)
        charges.settle(connection, self._tapped, self._now_ms)
        if self._verdicts:
            _INSERT_VERDICT.run_each(connection, self._verdicts)
            self._acceptor.log(connection, self._entries, self._now_ms)
        now_ms, some = self._now_ms, sorted(self._suspected.items())
        raise_alerts(connection, SUSPECTED_ALERT, some, "warning", now_ms, needs_review=True)
        some = sorted(self._refused.items())
        raise_alerts(connection, DECLINED_ALERT, some, "error", now_ms, needs_review=True)
        some = sorted(self._blocked.items())
        raise_alerts(connection, BLOCKED_ALERT, some, "warning", now_ms, needs_review=True)

    def _carry_out(self, item: AcceptItem, facts: Facts, decision: Decision) -> Answer:
        moment = verdicts.Moment(self._time, self._acceptor.elapsed_ms(item))
        if facts.card is not None and decision.counter is not None:
            self._book.advance(facts.card, decision.counter)
        if facts.card is not None and decision.pin_tries_left is not None:
            self._book.set_tries(facts.card, decision.pin_tries_left)
        if decision.declined is not None:
            return self._acceptor.decline(item, decision, moment)
        auth_code = f"AUTH_{next(self._codes)}"
        self._payments.append(self._payment_row(item.request, facts, auth_code))
        return self._acceptor.approve(item, auth_code, moment)

    def _note(
        self, request: PaymentRequest, facts: Facts, decision: Decision, answer: Answer
    ) -> None:
        """Remember what the next decisions, auditors and operators are to know of this one."""
        card, risk, charge = facts.card, decision.risk, facts.charge
        is_declined = decision.declined is not None
        may_come_again = decision.declined is not None and decision.declined.reason in SOFT
        if (
            charge is not None
            and charge.is_open
            and charge.terminal_id == request.requester
            and not may_come_again
        ):
            code = None if decision.declined is None else decision.declined.reason.value
            payment_id = None if is_declined else request.payment_id
            self._tapped[charge.id] = self._book.end_charge(charge, payment_id, code)
        if request.is_offline:
            self._note_offline(request, decision)
        if facts.terminal is not None:
            self._book.note_terminal(facts.terminal, self._now_ms, declined=is_declined)
        if card is not None and decision.is_proved:
            paid_units = None if is_declined else request.amount_units
            self._book.note_card(card, self._now_ms, paid_units)
            if decision.pin_tries_left == 0:
                self._blocked[card.uuid] = (
                    f"three wrong PINs, the last one at {request.terminal_id}"
                )
            if risk.alerts:
                cards = self._refused if risk.declines else self._suspected
                cards[card.uuid] = f"{risk.points} points at {request.terminal_id}: {risk.text}"
        name = card.uuid if card is not None else None
        self._entries.append(audit.entry(request, name, decision, answer.body))

    def _note_offline(self, request: PaymentRequest, decision: Decision) -> None:
        reason, loss = None, ""
        if decision.declined is not None:
            reason, amount = str(decision.declined.reason), self._acceptor.amount_text(request)
            why = decision.declined.text
            loss = loss_text(amount, request.terminal_id, request.tapped_at_ms, why)
        self._book.offline.note(request, reason, loss, self._now_ms)

    def _payment_row(
        self, request: PaymentRequest, facts: Facts, auth_code: str
    ) -> dict[str, object]:
        card, terminal = facts.card, facts.terminal
        if card is None or terminal is None:
            raise AssertionError("nothing is accepted without a card and a terminal")
        signed = request.evidence.authorization
        if signed is not None:
            stored = StoredSignature(signed.valid_before_s, signed.signature)
            self._signatures[request.payment_id] = stored
        return {
            "id": request.payment_id,
            "requester": request.requester,
            "request_id": request.request_id,
            "terminal_id": terminal.id,
            "merchant_id": terminal.merchant_id,
            "card_uuid": card.uuid,
            "user_id": card.user_id,
            "payer": card.account,
            "payee": terminal.payee,
            "amount_units": request.amount_units,
            "currency": self._acceptor.currency,
            "profile": str(request.evidence.profile),
            "priority": priority(request.amount_units),
            "auth_code": auth_code,
            "spend_day": self._book.reserve(card, request.amount_units),
            "tapped_at_ms": request.tapped_at_ms,
            "signed_until_s": 0 if signed is None else signed.valid_before_s,
        }


def _codes(count: int) -> Iterator[str]:
    """So many random codes. Of one draw: each gives the interpreter up, and waits for it again."""
    digits = secrets.token_hex(_CODE_BYTES * count).upper()
    return (digits[at : at + 2 * _CODE_BYTES] for at in range(0, len(digits), 2 * _CODE_BYTES))


def priority(amount_units: int) -> int:
    """How early a payment is sent, higher first."""
    return 10 if amount_units > HIGH_AMOUNT_UNITS else 5


def _given(connection: Connection, items: Sequence[AcceptItem]) -> dict[tuple[str, str], _Given]:
    rows = _STORED.rows(connection, [item.key for item in items])
    return {
        (requester, request_id): _Given(request_body, Answer(status, body, signature))
        for requester, request_id, request_body, status, body, signature in rows
    }


def _verdict_row(item: AcceptItem, answer: Answer, now_ms: int) -> dict[str, object]:
    return {
        "requester": item.request.requester,
        "request_id": item.request.request_id,
        "request_body": item.body,
        "request_signature": item.signature,
        "http_status": answer.http_status,
        "body": answer.body,
        "signature": answer.signature,
        "payment_id": answer.payment_id,
        "created_at_ms": now_ms,
    }

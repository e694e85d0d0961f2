"""Requests to the gateway, from the tap to the chain: *store, send, believe, show, write down*.

Answers for that order, at each of whose steps the power may go. The request is on the disk before
its first byte leaves; the verdict needs no disk to be shown, since it is durable at the gateway,
which gives the same one again when the same bytes are posted after a restart. What is durable here
is in `outbox`, what is believed in `gateway_link` and `push_link`, what is shown follows from the
events that are handed to the checkout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_common.errors import IllegalTransitionError, PartError
from taprail_common.payment_state import PaymentState
from taprail_common.wire import TAP_VALIDITY_MS, Outcome, TerminalPayment, from_ms
from taprail_terminal.gateway_link import Believed, GatewayLink, retry_pauses_s
from taprail_terminal.identity import Identity
from taprail_terminal.offline import LOSS, OfflineRefusedError
from taprail_terminal.offline_desk import OfflineDesk
from taprail_terminal.outbox import Outbox, OutboxRow, RequestState
from taprail_terminal.outcome import CardProof
from taprail_terminal.push_link import BelievedNotice
from taprail_terminal.sale import (
    NOT_SETTLED,
    PAYMENT_FAILED,
    Event,
    NotSent,
    NotSettled,
    Result,
    Sale,
    Settled,
    SettledAfterAll,
    TakenOffline,
)
from taprail_terminal.tap_log import TapLog
from taprail_terminal.timeline import Timeline

NOT_STORED: Final = "nothing was charged: this terminal cannot store sales"
MAX_EARLY_NOTICES: Final = 100
"""News of requests whose verdict is not here yet; more than that can wait for the next connect."""

ASK_AGAIN: Final = frozenset({"pin_required", "pin_wrong"})
"""Codes of declines after which the gateway takes the same sale again, with the right PIN."""

T = TypeVar("T")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Seller:
    """What every request of this terminal says."""

    merchant_id: str
    currency: str


class Payments:
    """Carries requests to their end. `report` takes what the checkout has to know."""

    def __init__(
        self,
        seller: Seller,
        identity: Identity,
        *,
        outbox: Outbox,
        link: GatewayLink,
        taps: TapLog,
        timeline: Timeline,
        clock: Clock,
        report: Callable[[Event], None],
        offline: OfflineDesk | None = None,
    ) -> None:
        self._seller = seller
        self._identity = identity
        self._outbox = outbox
        self._link = link
        self._taps = taps
        self._timeline = timeline
        self._clock = clock
        self._report = report
        self._offline = offline
        self._early_notices: dict[str, BelievedNotice] = {}
        self._came_back: set[tuple[str, str]] = set()

    async def sell(self, sale: Sale, card: CardProof, sealed_pin: str | None = None) -> None:
        """Store a new request and carry it to its verdict."""
        row, policy, desk = self._request(sale, card, sealed_pin), card.offline, self._offline
        limit = None if policy is None or desk is None else desk.limit(policy, sale.amount_units)
        try:
            await self._outbox.store(row, limit)
        except OfflineRefusedError as exc:
            self._report(NotSent(sale.request_id, exc.message, exc.no.value))
            return
        except PartError as exc:
            _log.error("a sale could not be stored", reason=str(exc))
            self._report(NotSent(sale.request_id, NOT_STORED))
            return
        crash("tap.stored")
        self._taps.reach("stored", sale.request_id)
        if row.offline:
            self._take(row)
            await self._count()
        await self.resolve(row)

    def _take(self, row: OutboxRow) -> None:
        """On the disk, and within what the gateway allows: the customer may go."""
        self._timeline.tell("taken_offline", request=row.request_id, amountUnits=row.amount_units)
        self._report(TakenOffline(row.request_id))
        crash("offline.taken")

    async def resolve(self, row: OutboxRow) -> None:
        """Ask until a stored request has a verdict, tell it, and write down what was signed."""
        request_id = row.request_id
        believed = await self._link.ask(row, lambda: self._taps.reach("request_sent", request_id))
        verdict = believed.verdict
        self._taps.reach(
            "verdict",
            request_id,
            outcome=verdict.verdict.value,
            verified=True,
            reason=verdict.reason,
            reasonCode=verdict.reason_code,
            transactionId=verdict.transaction_id,
        )
        self._report(
            Result(
                request_id,
                verdict.verdict is Outcome.APPROVED,
                verdict.reason,
                verdict.reason_code,
                verdict.left_units,
                verdict.auth_code,
                tries_left=verdict.pin_tries_left,
                may_come_again=verdict.reason_code in ASK_AGAIN,
            )
        )
        crash("tap.believed")
        await self._write_down(row, believed)
        crash("tap.verdict")
        if row.offline:
            await self._offline_is_over(row, believed)
        early = self._early_notices.pop(request_id, None)
        if early is not None:
            await self._note(early)

    async def _offline_is_over(self, row: OutboxRow, believed: Believed) -> None:
        verdict = believed.verdict
        if verdict.verdict is not Outcome.APPROVED:
            request, code = row.request_id, verdict.reason_code
            _log.error("a sale that was taken offline is a loss", request=request, reason=code)
            self._timeline.tell(LOSS, request=request, amountUnits=row.amount_units, reason=code)
        await self._count()

    async def _count(self) -> None:
        if self._offline is None:
            return
        try:
            await self._offline.count()
        except PartError as exc:  # the next sale is counted in its own commit all the same
            _log.error("offline sales could not be counted", reason=str(exc))

    async def resume(self, row: OutboxRow) -> None:
        """Take up a request whose outcome an earlier run has not shown."""
        if row.state is RequestState.STORED:
            if row.offline and not row.told:
                self._take(row)
            await self.resolve(row)
            return
        settled = row.state is RequestState.SETTLED
        approved = settled or row.state is RequestState.APPROVED
        code = PAYMENT_FAILED if row.state is RequestState.FAILED else None
        self._report(Result(row.request_id, approved, code=code, settled=settled))

    async def shown(self, request_id: str) -> None:
        """Lights and display have shown a request's outcome; else the next start shows it."""
        crash("tap.shown")
        try:
            await self._outbox.mark_shown(request_id, self._clock.now_ms())
        except PartError as exc:
            _log.error("a verdict's showing could not be noted", reason=str(exc))

    async def told(self, request_id: str) -> None:
        """Lights and display have shown that a sale is taken; else the next start shows it."""
        crash("offline.shown")
        try:
            await self._outbox.mark_told(request_id, self._clock.now_ms())
        except PartError as exc:
            _log.error("an offline sale's showing could not be noted", reason=str(exc))

    async def on_notice(self, believed: BelievedNotice) -> None:
        """A verified notice about a payment of this terminal."""
        notice = believed.notice
        row = await _until_stored(lambda: self._outbox.find(notice.request_id))
        if row is None or (row.amount_units, row.currency) != (notice.amount, notice.currency):
            _log.error("a notice about a payment that is not ours", request=notice.request_id)
            return
        if row.state is RequestState.STORED:
            # The gateway has decided and its verdict got lost on the way: fetch it now.
            if len(self._early_notices) < MAX_EARLY_NOTICES:
                self._early_notices[notice.request_id] = believed
            self._link.hurry()
            return
        await self._note(believed)

    def _request(self, sale: Sale, card: CardProof, sealed_pin: str | None) -> OutboxRow:
        tapped_at_ms, policy = self._clock.now_ms(), card.offline
        valid_ms = TAP_VALIDITY_MS if policy is None else policy.max_age_s * 1000
        body = TerminalPayment(
            request_id=sale.request_id,
            terminal_id=self._identity.terminal_id,
            merchant_id=self._seller.merchant_id,
            amount=sale.amount_units,
            currency=self._seller.currency,
            tapped_at=from_ms(tapped_at_ms),
            accept_until=from_ms(tapped_at_ms + valid_ms),
            proof=card.proof,
            charge_id=sale.charge_id,
            pin=sealed_pin,
            offline=policy is not None,
            offline_version=None if policy is None else policy.version,
        ).to_json()
        return OutboxRow(
            sale.request_id,
            sale.amount_units,
            self._seller.currency,
            body,
            self._identity.sign_request(body),
            tapped_at_ms,
            offline=policy is not None,
        )

    async def _write_down(self, row: OutboxRow, believed: Believed) -> None:
        approved = believed.verdict.verdict is Outcome.APPROVED
        state = RequestState.APPROVED if approved else RequestState.DECLINED
        at_ms = self._clock.now_ms()
        try:
            await _until_stored(
                lambda: self._outbox.resolve(row.request_id, state, believed.evidence, at_ms)
            )
        except IllegalTransitionError as exc:
            _log.error("the gateway contradicts itself", request=row.request_id, reason=str(exc))

    async def _note(self, believed: BelievedNotice) -> None:
        notice = believed.notice
        request_id = notice.request_id
        match notice.status:
            case PaymentState.COMPLETED:
                await self._note_settled(believed)
            case PaymentState.FAILED:
                if await self._finish(RequestState.FAILED, believed):
                    _log.error("an approved payment has failed", request=request_id)
                    self._timeline.tell("failed", request=request_id, reason=notice.reason)
                    self._come_back(believed, PAYMENT_FAILED)
            case PaymentState.CONFIRMATION_FAILED:
                self._timeline.tell(notice.status, request=request_id, txHash=notice.tx_hash)
                at_ms = self._clock.now_ms()
                await _until_stored(lambda: self._outbox.come_back(request_id, at_ms))
                self._come_back(believed, NOT_SETTLED)
            case PaymentState.SENT:
                self._timeline.tell(notice.status, request=request_id, txHash=notice.tx_hash)
            case _:
                return  # on its way, as after every approval

    async def _note_settled(self, believed: BelievedNotice) -> None:
        notice = believed.notice
        request_id = notice.request_id
        if not await self._finish(RequestState.SETTLED, believed):
            return
        self._taps.reach("settled", request_id, txHash=notice.tx_hash)
        self._taps.keep(request_id)
        row = await _until_stored(lambda: self._outbox.find(request_id))
        if row is not None and row.came_back:
            # Staff was told that it might never be; whoever waits for that has to hear of it.
            self._report(SettledAfterAll(Sale(request_id, notice.amount, earlier=True)))
        else:
            self._report(Settled(request_id))

    def _come_back(self, believed: BelievedNotice, code: str) -> None:
        """Tell staff, once in a run: the gateway repeats at each connect what is not settled."""
        notice = believed.notice
        news = (notice.request_id, code)
        if news not in self._came_back:
            self._came_back.add(news)
            self._report(NotSettled(Sale(notice.request_id, notice.amount, earlier=True), code))

    async def _finish(self, state: RequestState, believed: BelievedNotice) -> bool:
        request_id, at_ms = believed.notice.request_id, self._clock.now_ms()
        return await _until_stored(
            lambda: self._outbox.finish(request_id, state, believed.evidence, at_ms)
        )


async def _until_stored(step: Callable[[], Awaitable[T]]) -> T:
    """Try until the disk does it: what the gateway has signed is not said twice by itself."""
    for pause_s in retry_pauses_s():
        try:
            return await step()
        except PartError as exc:
            _log.error("what the gateway signed cannot be stored yet", reason=str(exc))
        await asyncio.sleep(pause_s)
    raise AssertionError("the pauses never end")

"""A gateway as its users have it: payments, charges, refunds, cards, queues, settings, people.

Every answer is a model of the contract, everything else an error of `errors`. What may be asked
twice without being done twice is asked again by itself when the line or the gateway falters, with
the same key; what may not is asked once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from pydantic import BaseModel

from taprail_common.api.base import IDEMPOTENCY_HEADER
from taprail_common.api.charges import (
    CancelAnswer,
    ChargeAnswer,
    ChargeBody,
    ChargeOrder,
    DisplayAnswer,
    DisplayOrder,
)
from taprail_common.api.office import (
    AlertList,
    CardAnswer,
    CardChange,
    CardList,
    Cleared,
    MerchantAnswer,
    MerchantChange,
    MerchantList,
    SettingsAnswer,
    TerminalAnswer,
    TerminalChange,
    TerminalList,
    UserAnswer,
    UserChange,
    UserList,
)
from taprail_common.api.payments import (
    PaymentList,
    PaymentQuery,
    PaymentStarted,
    PaymentStatus,
    RefundRequest,
    RefundStarted,
    Reset,
    Retried,
    Transaction,
)
from taprail_common.api.queues import QueueStatus, WebsocketStatus
from taprail_common.client.errors import (
    ApiError,
    NotYetError,
    OutcomeUnknownError,
    TooManyError,
    error_of,
)
from taprail_common.client.exchange import Bounds, Exchange, NotSentError, Reply, pauses_s
from taprail_common.errors import LinkError, TapRailError
from taprail_common.ids import new_id
from taprail_common.payment_state import PaymentState
from taprail_common.wire import PAYMENT_PATH, AppPayment, parse

SETTLED: Final = frozenset({PaymentState.COMPLETED, PaymentState.FAILED})
"""The states that a payment is waited for by default."""

FIRST_PAUSE_S: Final = 0.2
LAST_PAUSE_S: Final = 2.0
PATIENCE_S: Final = 15.0
"""How long one call keeps trying; the answer to a payment is not worth waiting for any longer."""

Credentials = Callable[[str, str], Mapping[str, str]]
"""The headers by which somebody proves who asks, for a method and a path."""

A = TypeVar("A", bound=BaseModel)


def bearer(token: str) -> Credentials:
    """A user's token."""
    headers = {"Authorization": f"Bearer {token}"}
    return lambda _method, _path: headers


class GatewayClient:
    """Use as `async with GatewayClient(url, bearer(token)) as gateway`."""

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        bounds: Bounds | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._exchange = Exchange(url, bounds)
        self._credentials = credentials
        self._patience_s = patience_s

    async def __aenter__(self) -> Self:
        await self._exchange.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._exchange.close()

    # --- payments -----------------------------------------------------------------------------

    async def pay(self, order: AppPayment, *, key: str | None = None) -> PaymentStarted:
        """Pay with a card of one's own; DeclinedError when it was declined for good.

        The same `key` and order are the same payment, also after this process has ended.
        """
        return await self._do("POST", PAYMENT_PATH, PaymentStarted, order, key or new_id("req"))

    async def payment(self, transaction_id: str) -> Transaction:
        """Where a payment is."""
        path = f"/api/payment/status/{transaction_id}"
        return (await self._get(path, PaymentStatus)).transaction

    async def settled(
        self,
        transaction_id: str,
        *,
        until: Collection[PaymentState] = SETTLED,
        timeout_s: float = 60.0,
    ) -> Transaction:
        """Ask until a payment is in one of these states; NotYetError when it is not in time."""
        return await _polled(
            lambda: self.payment(transaction_id), lambda it: it.status in until, timeout_s
        )

    async def payments(self, query: PaymentQuery | None = None) -> PaymentList:
        """A page of payments; `next_cursor` of it leads to the next."""
        return await self._get("/api/payments", PaymentList, query)

    async def payments_csv(self, query: PaymentQuery | None = None) -> AsyncIterator[bytes]:
        """All pages as CSV, piece by piece."""
        wanted = {**_query(query), "format": "csv"}
        headers = self._credentials("GET", "/api/payments")
        async with self._exchange.stream("/api/payments", query=wanted, headers=headers) as found:
            status, pieces = found
            if status != 200:
                body = b"".join([piece async for piece in pieces])
                raise error_of(Reply(status, {}, body))
            async for piece in pieces:
                yield piece

    async def retry(self, transaction_id: str, reason: str | None = None) -> Retried:
        """Send a payment round again that is on the list for review."""
        path = f"/api/payments/{transaction_id}/retry"
        return await self._do("POST", path, Retried, _why(reason))

    async def refund(
        self, transaction_id: str, order: RefundRequest, *, key: str | None = None
    ) -> RefundStarted:
        """Give a completed sale back, or a part of it."""
        key = key or order.request_id or new_id("req")
        return await self._do(
            "POST", f"/api/payment/{transaction_id}/refund", RefundStarted, order, key
        )

    # --- charges ------------------------------------------------------------------------------

    async def charge(
        self, terminal_id: str, order: ChargeOrder, *, key: str | None = None
    ) -> ChargeBody:
        """Arm a terminal; ConflictError `terminal_busy` while it has something else to do."""
        path = f"/api/terminals/{terminal_id}/charges"
        return (await self._do("POST", path, ChargeAnswer, order, key or new_id("key"))).charge

    async def charge_status(self, terminal_id: str, charge_id: str) -> ChargeBody:
        """What became of a charge, and of its payment."""
        path = f"/api/terminals/{terminal_id}/charges/{charge_id}"
        return (await self._get(path, ChargeAnswer)).charge

    async def charged(
        self, terminal_id: str, charge_id: str, *, timeout_s: float = 300.0
    ) -> ChargeBody:
        """Ask until a charge has come to its end, with a payment or without."""
        return await _polled(
            lambda: self.charge_status(terminal_id, charge_id),
            lambda it: it.ended_at is not None,
            timeout_s,
        )

    async def cancel(self, terminal_id: str, charge_id: str) -> CancelAnswer:
        """Take a charge back; `won` says who came first."""
        path = f"/api/terminals/{terminal_id}/charges/{charge_id}/cancel"
        return await self._do("POST", path, CancelAnswer, again=True)

    async def display(self, terminal_id: str, text: str) -> DisplayAnswer:
        """Set what a terminal shows while there is nothing to pay."""
        path = f"/api/terminals/{terminal_id}/display"
        return await self._do("POST", path, DisplayAnswer, DisplayOrder(text=text), again=True)

    # --- how it is doing ----------------------------------------------------------------------

    async def queue_status(self) -> QueueStatus:
        """How the queues are doing."""
        return await self._get("/api/payment/queue-status", QueueStatus)

    async def ws_status(self) -> WebsocketStatus:
        """Who listens."""
        return await self._get("/api/payment/ws-status", WebsocketStatus)

    async def alerts(self, *, review: bool = False) -> AlertList:
        """What a person should look at."""
        return await self._get("/api/alerts", AlertList, {"review": str(review).lower()})

    async def clear_alert(self, number: int, reason: str | None = None) -> Cleared:
        """Note that somebody has looked into an alert."""
        return await self._do("POST", "/api/alerts", Cleared, {"id": number, **_why(reason)})

    async def reset_stuck(
        self, older_than_s: int | None = None, reason: str | None = None
    ) -> Reset:
        """Have what hangs broadcast again, and then bumped."""
        given = {} if older_than_s is None else {"olderThanSeconds": older_than_s}
        return await self._do("POST", "/api/queue/reset-stuck", Reset, {**given, **_why(reason)})

    async def settings(self) -> SettingsAnswer:
        """The settings of settlement that are in force."""
        return await self._get("/api/settings", SettingsAnswer)

    async def change_settings(
        self, values: Mapping[str, object], reason: str | None = None
    ) -> SettingsAnswer:
        """Change settings, all or none; None gives one back to the configuration file."""
        return await self._do("PATCH", "/api/settings", SettingsAnswer, {**values, **_why(reason)})

    # --- cards and people ---------------------------------------------------------------------

    async def cards(self, after: str | None = None) -> CardList:
        """A page of cards, in the order of their ids."""
        return await self._get("/api/cards", CardList, _after(after))

    async def card(self, card_uuid: str) -> CardAnswer:
        """A card, its limits and its balance."""
        return await self._get(f"/api/cards/{card_uuid}", CardAnswer)

    async def change_card(self, card_uuid: str, change: CardChange) -> CardAnswer:
        """Freeze or thaw a card, or set its limits."""
        return await self._do("PATCH", f"/api/cards/{card_uuid}", CardAnswer, change)

    async def users(self, after: str | None = None) -> UserList:
        """A page of users."""
        return await self._get("/api/users", UserList, _after(after))

    async def change_user(self, user_id: str, change: UserChange) -> UserAnswer:
        """Freeze a user, or let them in again."""
        return await self._do("PATCH", f"/api/users/{user_id}", UserAnswer, change)

    async def merchants(self, after: str | None = None) -> MerchantList:
        """A page of merchants."""
        return await self._get("/api/merchants", MerchantList, _after(after))

    async def change_merchant(self, merchant_id: str, change: MerchantChange) -> MerchantAnswer:
        """Close a merchant's account, or open it again."""
        return await self._do("PATCH", f"/api/merchants/{merchant_id}", MerchantAnswer, change)

    async def terminals(self, after: str | None = None) -> TerminalList:
        """A page of terminals."""
        return await self._get("/api/terminals", TerminalList, _after(after))

    async def change_terminal(self, terminal_id: str, change: TerminalChange) -> TerminalAnswer:
        """Freeze a terminal, thaw it, or revoke it for good."""
        return await self._do("PATCH", f"/api/terminals/{terminal_id}", TerminalAnswer, change)

    # --- one request --------------------------------------------------------------------------

    async def _get(
        self, path: str, model: type[A], query: BaseModel | Mapping[str, str] | None = None
    ) -> A:
        return await self._ask("GET", path, model, query=_query(query), again=True)

    async def _do(
        self,
        method: str,
        path: str,
        model: type[A],
        order: BaseModel | Mapping[str, object] | None = None,
        key: str | None = None,
        *,
        again: bool = False,
    ) -> A:
        body = b"{}" if order is None else _body(order)
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers[IDEMPOTENCY_HEADER] = key
        return await self._ask(
            method, path, model, body=body, headers=headers, again=again or key is not None
        )

    async def _ask(
        self,
        method: str,
        path: str,
        model: type[A],
        *,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool,
    ) -> A:
        """Ask, again if that cannot do it twice, until there is an answer or no patience left."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._patience_s
        for pause_s in pauses_s(FIRST_PAUSE_S, LAST_PAUSE_S):
            given = {**self._credentials(method, path), **(headers or {})}
            failure = await self._attempt(method, path, model, body, query, given)
            if not isinstance(failure, TapRailError):
                return failure
            wait_s = max(pause_s, getattr(failure, "wait_s", None) or 0.0)
            if not _may_ask_again(failure, again=again) or loop.time() + wait_s > until_s:
                raise _told(failure, again=again)
            await asyncio.sleep(wait_s)
        raise AssertionError("the pauses never end")

    async def _attempt(
        self,
        method: str,
        path: str,
        model: type[A],
        body: bytes | None,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
    ) -> A | TapRailError:
        try:
            reply = await self._exchange.send(method, path, body=body, query=query, headers=headers)
            return parse(model, reply.body) if 200 <= reply.status < 300 else error_of(reply)
        except TapRailError as exc:
            return exc


def _may_ask_again(failure: TapRailError, *, again: bool) -> bool:
    is_untouched = isinstance(failure, NotSentError | TooManyError)
    return failure.retryable and (again or is_untouched)


def _told(failure: TapRailError, *, again: bool) -> TapRailError:
    """Without an answer nobody knows; who asked for something to be done must be told so."""
    if isinstance(failure, ApiError | NotSentError) or again or not isinstance(failure, LinkError):
        return failure
    return OutcomeUnknownError(failure.message, fix="look at how it stands before asking again")


T = TypeVar("T")


async def _polled(look: Callable[[], Any], is_done: Callable[[T], bool], timeout_s: float) -> T:
    loop = asyncio.get_running_loop()
    until_s = loop.time() + timeout_s
    for pause_s in pauses_s(FIRST_PAUSE_S, LAST_PAUSE_S):
        found: T = await look()
        if is_done(found):
            return found
        if loop.time() + pause_s > until_s:
            raise NotYetError(f"not within {timeout_s:g} s", fix="ask again later")
        await asyncio.sleep(pause_s)
    raise AssertionError("the pauses never end")


def _body(order: BaseModel | Mapping[str, object]) -> bytes:
    if isinstance(order, BaseModel):
        return order.model_dump_json(by_alias=True, exclude_none=True).encode()
    return json.dumps(order).encode()


def _query(query: BaseModel | Mapping[str, str] | None) -> dict[str, str]:
    if isinstance(query, BaseModel):
        given = query.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
        return {name: str(value) for name, value in given.items()}
    return dict(query or {})


def _why(reason: str | None) -> dict[str, str]:
    return {} if reason is None else {"reason": reason}


def _after(last_id: str | None) -> dict[str, str]:
    return {} if last_id is None else {"after": last_id}

"""Tells terminals and apps what became of payments, over Socket.IO at `/nfc-ws`.

A terminal gets signed notices of its own payments, a user the steps of a transaction that they
subscribed to. Nothing here is the truth: a lost message costs a question, never a payment, since
whoever connects or subscribes is given the current state.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import socketio
import structlog
from aiohttp import web
from socketio.exceptions import ConnectionRefusedError as Refused
from socketio.packet import Packet
from sqlalchemy import bindparam, select

from taprail_common.clock import rfc3339
from taprail_common.crash import crash
from taprail_common.errors import TapRailError
from taprail_common.ids import is_payment_id
from taprail_common.payment_state import PaymentState
from taprail_common.signing import Domain, sign
from taprail_gateway.api.context import Services
from taprail_gateway.estimate import SettlementEstimate
from taprail_gateway.event_pump import EventPump, News
from taprail_gateway.ledger import schema
from taprail_gateway.payment_view import (
    PAYMENT_COLUMNS,
    PAYMENTS_WITH_MERCHANT,
    PaymentView,
    concerns,
    load_payment,
    notice,
)
from taprail_gateway.push_auth import Listener, PushAuth

SOCKET_PATH: Final = "nfc-ws"
MAX_SOCKETS: Final = 5_000
MAX_SUBSCRIPTIONS: Final = 100
"""Of one socket; an app follows a handful of payments."""

MAX_SYNC_IDS: Final = 100
_MAX_MESSAGE_BYTES: Final = 32 * 1024
"""A sync of 100 request ids is under 7 kB."""

_TOLD_TO_TERMINALS: Final = frozenset(
    {
        PaymentState.SENT,
        PaymentState.COMPLETED,
        PaymentState.FAILED,
        PaymentState.CONFIRMATION_FAILED,
    }
)
_p = schema.payments.c
_OF_TERMINAL: Final = (
    select(*PAYMENT_COLUMNS)
    .select_from(PAYMENTS_WITH_MERCHANT)
    .where(
        _p.requester == bindparam("terminal"),
        _p.request_id.in_(bindparam("ids", expanding=True)),
    )
)

_log = structlog.get_logger("push")


class _TextPacket(Packet):  # type: ignore[misc]  # the library is not typed
    """A packet without binary parts.

    The library gathers in memory as many parts as a packet announces, which may be ten billion; no
    message of ours has any.
    """

    def decode(self, encoded_packet: str) -> int:
        announced: int = super().decode(encoded_packet)
        if announced:
            raise ValueError("a message with binary parts")
        return announced


class Push:
    """The Socket.IO server. `attach` to the HTTP application, then `start`."""

    def __init__(self, services: Services, estimate: SettlementEstimate) -> None:
        self._services = services
        self._estimate = estimate
        self._auth = PushAuth(services)
        self._listeners: dict[str, Listener] = {}
        self._subscriptions: dict[str, set[str]] = {}
        self._server = socketio.AsyncServer(
            async_mode="aiohttp",
            max_http_buffer_size=_MAX_MESSAGE_BYTES,
            serializer=_TextPacket,
        )
        self._pump = EventPump(services.ledger, services.wakeups, self.tell)
        self._tasks: set[asyncio.Task[None]] = set()
        for event, handler in (
            ("connect", self._connect),
            ("disconnect", self._disconnect),
            ("ping", self._ping),
            ("subscribe:transaction", self._subscribe),
            ("unsubscribe:transaction", self._unsubscribe),
            ("terminal:sync", self._sync),
        ):
            self._server.on(event, handler)

    def attach(self, app: web.Application) -> None:
        """Serve at `/nfc-ws` of this application."""
        self._server.attach(app, socketio_path=SOCKET_PATH)

    def start(self) -> None:
        """Begin to tell what happens from now on."""
        self._spawn(self._pump.run())

    async def stop(self) -> None:
        """Tell everybody that the gateway closes, and close the sockets."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        body = {"message": "The gateway is closing", "timestamp": self._now()}
        await self._server.emit("system:shutdown", body)
        for sid in list(self._listeners):
            await self._server.disconnect(sid)
        await self._server.shutdown()

    async def tell(self, news: Sequence[News]) -> None:
        """Emit to whoever listens; takes the durations of completed payments into the estimate."""
        completed = [each for each in news if each.state == PaymentState.COMPLETED]
        if completed:
            crash("push.before_emit")
        self._estimate.settled([each.at_ms - each.payment.created_at_ms for each in completed])
        for each in news:
            await self._tell_terminal(each)
            await self._tell_subscribers(each)

    # --- terminals ----------------------------------------------------------------------------

    async def to_terminal(self, terminal_id: str, event: str, body: Mapping[str, object]) -> None:
        """Tell a terminal something, signed: `{body, signature}`, as a notice is.

        The signature is of Domain.COMMAND about the event's name, so that none passes for another;
        the body names the terminal. A terminal that is away is told nothing.
        """
        said = json.dumps({**body, "terminalId": terminal_id}, separators=(",", ":")).encode()
        signature = sign(self._services.key, Domain.COMMAND, said, about=event.encode())
        envelope = {"body": said.decode(), "signature": signature}
        await self._server.emit(event, envelope, to=f"terminal:{terminal_id}")

    async def _tell_terminal(self, news: News) -> None:
        room = f"terminal:{news.payment.terminal_id}"
        if (
            news.state in _TOLD_TO_TERMINALS
            and news.payment.is_by_terminal
            and self._is_heard(room)
        ):
            await self._send_notice(news.payment, news.state, news.at_ms, room)

    async def _send_notice(self, payment: PaymentView, state: str, at_ms: int, to: str) -> None:
        body = notice(payment, state, at_ms).to_json()
        signature = sign(self._services.key, Domain.NOTICE, body)
        envelope = {"body": body.decode(), "signature": signature}
        await self._server.emit("payment:verdict", envelope, to=to)

    async def _sync(self, sid: str, data: object = None) -> dict[str, object]:
        """`terminal:sync {requestIds}`: the current state of these, and which are not payments."""
        terminal_id = self._listeners[sid].terminal_id
        ids = data.get("requestIds") if isinstance(data, dict) else None
        if terminal_id is None or not isinstance(ids, list) or not _are_ids(ids):
            return {"error": f"a terminal gives up to {MAX_SYNC_IDS} requestIds"}
        rows = await self._services.ledger.read(
            lambda connection: connection.execute(
                _OF_TERMINAL, {"terminal": terminal_id, "ids": ids}
            ).all()
        )
        payments = {row.request_id: PaymentView(**row._mapping) for row in rows}
        now_ms = self._services.clock.now_ms()
        for payment in payments.values():
            await self._send_notice(payment, payment.state, now_ms, sid)
        return {"known": list(payments), "unknown": [i for i in ids if i not in payments]}

    # --- users --------------------------------------------------------------------------------

    async def _tell_subscribers(self, news: News) -> None:
        room = f"transaction:{news.payment.id}"
        if not self._is_heard(room):
            return
        await self._server.emit("transaction:update", self._update(news.payment, news.state), room)
        final = self._final(news.payment, news.state)
        if final is not None:
            await self._server.emit(*final, room)

    def _update(self, payment: PaymentView, state: str) -> dict[str, object]:
        return {
            "transactionId": payment.id,
            "status": state,
            "txHash": payment.tx_hash,
            "amount": payment.amount_units,
            "timestamp": self._now(),
        }

    def _final(self, payment: PaymentView, state: str) -> tuple[str, dict[str, object]] | None:
        same: dict[str, object] = {
            "transactionId": payment.id,
            "status": state,
            "timestamp": self._now(),
        }
        if state == PaymentState.COMPLETED and payment.completed_at_ms is not None:
            return "transaction:completed", {
                **same,
                "txHash": payment.tx_hash,
                "amount": payment.amount_units,
                "explorerUrl": self._services.explorer_link(payment.tx_hash),
                "completedAt": rfc3339(payment.completed_at_ms),
            }
        if state == PaymentState.FAILED:
            failed_at = self._now()
            return "transaction:failed", {
                **same,
                "reason": payment.failure_reason,
                "failedAt": failed_at,
            }
        return None

    async def _subscribe(self, sid: str, data: object = None) -> None:
        """`subscribe:transaction`: from now on, beginning with the current state."""
        wanted = _transaction_id(data)
        payment = await self._payment_for(sid, wanted)
        mine = self._subscriptions[sid]
        if payment is None or len(mine) >= MAX_SUBSCRIPTIONS:
            why = "Transaction not found" if payment is None else "Too many subscriptions"
            body = {"message": why, "event": "subscribe:transaction", "transactionId": wanted}
            await self._server.emit("error", body, to=sid)
            return
        mine.add(payment.id)
        await self._server.enter_room(sid, f"transaction:{payment.id}")
        await self._server.emit("transaction:update", self._update(payment, payment.state), to=sid)

    async def _unsubscribe(self, sid: str, data: object = None) -> None:
        wanted = _transaction_id(data)
        if wanted in self._subscriptions[sid]:
            self._subscriptions[sid].discard(wanted)
            await self._server.leave_room(sid, f"transaction:{wanted}")

    async def _payment_for(self, sid: str, wanted: str) -> PaymentView | None:
        if not is_payment_id(wanted):
            return None
        payment = await self._services.ledger.read(
            lambda connection: load_payment(connection, wanted)
        )
        listener = self._listeners[sid]
        if payment is None or not concerns(payment, listener.terminal_id, listener.user):
            return None
        return payment

    # --- sockets ------------------------------------------------------------------------------

    async def _connect(self, sid: str, environ: Mapping[str, Any], auth: object = None) -> None:
        if len(self._listeners) >= MAX_SOCKETS:
            raise Refused("Too many connections")
        try:
            listener = await self._auth.identify(auth, environ)
        except TapRailError as exc:  # the ledger cannot tell right now
            raise Refused("Try again later") from exc
        self._listeners[sid] = listener
        self._subscriptions[sid] = set()
        if listener.terminal_id is not None:
            # Before its first sync, or a notice in between would reach nobody.
            await self._server.enter_room(sid, f"terminal:{listener.terminal_id}")
            return
        # A user hears of the connection first, and only then of anything else.
        self._spawn(self._welcome(sid, listener))

    async def _welcome(self, sid: str, listener: Listener) -> None:
        if listener.user is None:
            return
        await self._server.enter_room(sid, f"user:{listener.user.id}")
        body = {
            "message": "Connected to NFC Payment WebSocket",
            "userId": listener.user.id,
            "timestamp": self._now(),
        }
        await self._server.emit("connected", body, to=sid)

    async def _disconnect(self, sid: str, _reason: object = None) -> None:
        self._listeners.pop(sid, None)
        self._subscriptions.pop(sid, None)

    async def _ping(self, sid: str, _data: object = None) -> None:
        user = self._listeners[sid].user
        body = {"timestamp": self._now(), "userId": None if user is None else user.id}
        await self._server.emit("pong", body, to=sid)

    def _is_heard(self, room: str) -> bool:
        return next(self._server.manager.get_participants("/", room), None) is not None

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        with suppress(asyncio.CancelledError):
            error = task.exception()
            if error is not None:
                _log.error("push.task_failed", exc_info=error)

    def _now(self) -> str:
        return rfc3339(self._services.clock.now_ms())


def _transaction_id(data: object) -> str:
    wanted = data.get("transactionId") if isinstance(data, dict) else data
    return wanted[:80] if isinstance(wanted, str) else ""


def _are_ids(ids: list[object]) -> bool:
    return len(ids) <= MAX_SYNC_IDS and all(
        isinstance(each, str) and len(each) <= 64 and each.isascii() for each in ids
    )

"""Tells terminals and apps what became of payments, over Socket.IO at `/nfc-ws`.

A terminal gets signed notices of its own payments, a user the steps of a transaction or of a card
that they subscribed to, and how their balance moves. Nothing here is the truth: a lost message
costs a question, never a payment, since whoever subscribes is given the current state, and whoever
comes back with a cursor what they have missed.

Nothing is told twice to one socket: what was read for a newcomer is left out of what follows
(`push_rooms`), and several gateways on one ledger tell their own sockets only (`push_shared`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import structlog
from aiohttp import web
from socketio.exceptions import ConnectionRefusedError as Refused

from taprail_common.charge_wire import ANSWER_EVENT, OPEN_EVENT
from taprail_common.clock import rfc3339
from taprail_common.crash import crash
from taprail_common.errors import TapRailError
from taprail_common.payment_state import PaymentState
from taprail_gateway import push_history
from taprail_gateway.api.context import Services
from taprail_gateway.estimate import SettlementEstimate
from taprail_gateway.event_pump import EventPump, News
from taprail_gateway.ledger.alerts import Alert
from taprail_gateway.push_auth import Listener, PushAuth, payee_room, payer_room
from taprail_gateway.push_charges import ChargeNews
from taprail_gateway.push_cursor import Cursor
from taprail_gateway.push_history import Past
from taprail_gateway.push_rooms import Message, Rooms
from taprail_gateway.push_server import PushServer
from taprail_gateway.push_settings import PushSettings, shared_rooms
from taprail_gateway.push_terminals import Terminals
from taprail_gateway.push_topics import TOPICS, Topic
from taprail_gateway.push_watch import Watch
from taprail_gateway.push_words import Words

SOCKET_PATH: Final = "nfc-ws"
MAX_SUBSCRIPTIONS: Final = 100
"""Of one socket; an app follows a handful of payments."""

MAX_OF_ONE: Final = 50
"""Sockets of one user or terminal: beyond it the newest takes the place of the oldest."""

_ALERT_EVERY_S: Final = 30.0
"""Everybody hears of one alert of a level in so long; operators hear of each."""

_log = structlog.get_logger("push")


@dataclass(frozen=True, slots=True)
class Presence:
    """Who is connected to this gateway."""

    connections: int
    users: list[str]


@dataclass(frozen=True, slots=True)
class Told:
    """What listeners were told: all steps up to `seq`, and how many sockets were closed because
    they were too slow for it."""

    seq: int
    behind: int


class Push:
    """The Socket.IO server. `attach` to the HTTP application, then `start`."""

    def __init__(
        self,
        services: Services,
        estimate: SettlementEstimate,
        settings: PushSettings | None = None,
        origins: Sequence[str] = (),
    ) -> None:
        """`origins` are web sites whose pages may connect; without any, only the gateway's own."""
        self._services = services
        self._estimate = estimate
        self._auth = PushAuth(services)
        self._words = Words(self._now, services.explorer_link)
        self._pump = EventPump(services.ledger, services.wakeups, self.tell)
        self._shared = shared_rooms(
            settings or PushSettings(), services.gateway_id, self._pump.look
        )
        self._server = PushServer(self._shared, origins)
        self._terminals = Terminals(services, self._server)
        self._watch = Watch(
            services.ledger,
            terminals=self._terminals_here,
            on_alert=self._tell_alert,
            on_shut_out=self.shut_out,
            on_look=self._close_expired,
        )
        self._rooms = Rooms()
        self._listeners: dict[str, Listener] = {}
        self._of: dict[str, dict[str, None]] = {}  # whose sockets, the oldest first
        self._resumes = asyncio.Semaphore(1)
        self._quiet_until_s: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server.on("connect", self._connect)
        self._server.on("disconnect", self._disconnect)
        self._on("ping", self._ping)
        self._charges = ChargeNews(services, self._terminals.command_here, self.to_till)
        self._on(
            "terminal:sync", lambda sid, who, data: self._terminals.sync(sid, who.terminal_id, data)
        )
        self._on(OPEN_EVENT, self._charges.open)
        self._on(ANSWER_EVENT, self._charges.answer)
        for topic in TOPICS:
            self._on(f"subscribe:{topic.kind}", partial(self._subscribe, topic))
            self._on(f"unsubscribe:{topic.kind}", partial(self._unsubscribe, topic))

    def attach(self, app: web.Application) -> None:
        """Serve at `/nfc-ws` of this application."""
        self._server.attach(app, socketio_path=SOCKET_PATH)

    def start(self) -> None:
        """Begin to tell what happens from now on."""
        self._spawn(self._pump.run())
        self._spawn(self._watch.run())
        self._spawn(self._charges.run())
        if self._shared is not None:
            self._server.begin()
            for bell in (self._services.wakeups.events, self._services.wakeups.charges):
                self._spawn(self._shared.pass_on(bell.listen()))

    async def stop(self) -> None:
        """Tell everybody that the gateway closes, and close the sockets."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._shared is not None:
            await self._shared.close()
        body = {"message": "The gateway is closing", "timestamp": self._now()}
        self._server.send_to(list(self._listeners), "system:shutdown", body)
        await self._server.close_all()

    async def to_terminal(self, terminal_id: str, event: str, body: Mapping[str, object]) -> None:
        """Tell a terminal something, signed: `{body, signature}`, as a notice is.

        The signature is of Domain.COMMAND about the event's name, so that none passes for another;
        the body names the terminal. A terminal that is away is told nothing.
        """
        await self._terminals.command(terminal_id, event, body)

    def to_till(self, user_id: str, event: str, body: Mapping[str, object]) -> None:
        """Tell a user something, on the sockets here on which they act as more than a customer."""
        mine = {sid: self._listeners[sid].user for sid in self._of.get(f"user:{user_id}", ())}
        sids = [
            sid for sid, user in mine.items() if user and (user.is_merchant or user.is_operator)
        ]
        self._server.send_to(sids, event, body)

    def shut_out(self, whose: str, why: str) -> None:
        """Close all sockets of a terminal or a user (`Listener.room`) at once."""
        for sid in list(self._of.get(whose, ())):
            self._server.hang_up(sid, why)

    def presence(self) -> Presence:
        """Who is connected now."""
        users = {each.user.id for each in self._listeners.values() if each.user is not None}
        return Presence(len(self._listeners), sorted(users))

    def told(self) -> Told:
        """How far the telling is."""
        return Told(self._pump.place.seen, self._server.behind)

    async def tell(self, news: Sequence[News]) -> None:
        """Tell whoever listens; takes the durations of completed payments into the estimate."""
        completed = [each for each in news if each.state == PaymentState.COMPLETED]
        if completed:
            crash("push.before_emit")
        self._estimate.settled([each.at_ms - each.payment.created_at_ms for each in completed])
        # The users first, and all in one go: the pump counts these steps as told already.
        for each in news:
            self._tell_users(each)
        self._charges.moved(each.payment.refund_of or each.payment.id for each in news)
        for each in news:
            await self._terminals.tell(each)

    # --- users --------------------------------------------------------------------------------

    def _tell_users(self, news: News) -> None:
        payment = news.payment
        for topic in TOPICS:
            self._tell_room(topic.room_of(payment), partial(topic.words, self._words, news))
        for purse in (payer_room(payment.user_id), payee_room(payment.merchant_user_id)):
            self._tell_room(purse, partial(self._words.of_balance, news, purse))

    def _tell_room(self, room: str, words: Callable[[], list[Message]]) -> None:
        messages = words() if self._rooms.is_heard(room) else []
        if messages:
            self._send(self._rooms.tell(room, messages), messages)

    def _send(self, sids: Sequence[str], messages: Sequence[Message]) -> None:
        for message in messages if sids else ():
            self._server.send_to(sids, message.event, message.data)

    async def _subscribe(self, topic: Topic, sid: str, who: Listener, data: object) -> None:
        """`subscribe:…`: from now on, beginning with the current state or with what was missed."""
        wanted, cursor = topic.wanted(data), _cursor_of(data) or who.cursor
        if self._rooms.count(sid) > MAX_SUBSCRIPTIONS:
            self._refuse(sid, f"subscribe:{topic.kind}", "Too many subscriptions", topic.said(data))
            return
        room = f"{topic.kind}:{wanted}"
        self._rooms.enter(sid, room)  # before the read, or what happens meanwhile would be lost
        try:
            past = await self._services.ledger.read(partial(topic.read, wanted, who))
        except BaseException:
            self._rooms.leave(sid, room)
            raise
        if past is None:
            self._rooms.leave(sid, room)
            self._refuse(sid, f"subscribe:{topic.kind}", topic.not_found, topic.said(data))
            return
        place = str(self._pump.place)
        missed = past.since(cursor)
        told = [topic.words(self._words, step) for step in missed or past.steps[-1:]]
        if not told:
            told = [topic.nothing_yet(self._words, wanted)]
        self._catch_up(sid, [room], past, _at(told, place, None if not missed else cursor))

    def _catch_up(
        self, sid: str, rooms: Sequence[str], past: Past, messages: list[Message]
    ) -> None:
        """Tell what was read, then what has happened since, and from now on all that happens."""
        known = [step.seq for step in past.steps]
        to_come = [seq for seq in known if not self._pump.has_told(seq)]
        for room in rooms:
            held = self._rooms.begin(sid, room, known, to_come)
            if held is None:
                self._server.hang_up(sid, "behind")
                return
            messages += held
        self._send([sid], messages)

    async def _unsubscribe(self, topic: Topic, sid: str, _who: Listener, data: object) -> None:
        self._rooms.leave(sid, f"{topic.kind}:{topic.wanted(data)}")

    def _refuse(self, sid: str, event: str, why: str, about: Mapping[str, object]) -> None:
        self._server.send_to([sid], "error", {"message": why, "event": event, **about})

    def _tell_alert(self, alert: Alert) -> None:
        """Operators hear of each alert; everybody, in general words, of what is wrong at large."""
        operators = [sid for sid, who in self._listeners.items() if who.is_operator]
        details = self._words.alert_for_operators(alert)
        self._server.send_to(operators, "system:alert", details)
        others = [sid for sid, who in self._listeners.items() if not who.is_operator]
        now_s = self._services.clock.monotonic_s()
        if others and not alert.needs_review and now_s >= self._quiet_until_s.get(alert.level, 0.0):
            self._quiet_until_s[alert.level] = now_s + _ALERT_EVERY_S
            self._server.send_to(others, "system:alert", self._words.alert_for_all(alert.level))

    # --- sockets ------------------------------------------------------------------------------

    async def _connect(self, sid: str, environ: Mapping[str, Any], auth: object = None) -> None:
        try:
            who = await self._auth.identify(auth, environ)
            await self._pump.begin()
            for purse in who.purses:
                self._rooms.enter(sid, purse)
            past = await self._missed(who)
        except BaseException as exc:
            self._rooms.forget(sid)
            if isinstance(exc, TapRailError):  # the ledger cannot tell right now
                raise Refused("Try again later") from exc
            raise
        if not self._server.is_open(sid):  # the library tells nobody who leaves at this moment
            self._rooms.forget(sid)
            raise Refused("The socket was closed")
        self._listeners[sid] = who
        self._server.identified(sid)
        self._make_room(sid, who)
        if who.user is None:
            # Before its first sync, or a notice in between would reach nobody.
            await self._server.enter_room(sid, who.room)
        else:
            # A user hears of the connection first, which the library is yet to confirm.
            self._spawn(self._welcome(sid, who, who.user.id, past))

    async def _missed(self, who: Listener) -> Past:
        if who.user is None or who.cursor is None:
            return Past([], is_whole=False)
        async with self._resumes:  # it looks through much: one at a time
            return await self._services.ledger.read(
                partial(push_history.of_user, user=who.user, cursor=who.cursor)
            )

    async def _welcome(self, sid: str, who: Listener, user_id: str, past: Past) -> None:
        place = str(self._pump.place)
        missed = past.since(who.cursor)
        body = {
            "message": "Connected to NFC Payment WebSocket",
            "userId": user_id,
            "timestamp": self._now(),
            "cursor": str(who.cursor) if missed else place,
            "resumed": bool(missed) or past.is_whole,
        }
        self._server.send_to([sid], "connected", body)
        told = [
            messages
            for step in missed
            for purse in who.purses
            if (messages := self._words.of_balance(step, purse))
        ]
        self._catch_up(sid, who.purses, past, _at(told, place, who.cursor))

    def _close_expired(self) -> None:
        """A socket lives no longer than the token that opened it."""
        now_s = self._services.clock.now_ms() / 1000
        for sid, who in list(self._listeners.items()):
            if who.until_s is not None and who.until_s <= now_s:
                self._refuse(sid, "connect", "The token has expired", {})
                self._server.hang_up(sid, "its token has expired")

    def _make_room(self, sid: str, who: Listener) -> None:
        mine = self._of.setdefault(who.room, {})
        mine[sid] = None
        if len(mine) > MAX_OF_ONE:
            self._server.hang_up(next(iter(mine)), "too many sockets of one")

    async def _disconnect(self, sid: str, _reason: object = None) -> None:
        self._rooms.forget(sid)
        who = self._listeners.pop(sid, None)
        if who is not None:
            mine = self._of[who.room]
            del mine[sid]
            if not mine:
                del self._of[who.room]

    async def _ping(self, sid: str, who: Listener, _data: object) -> None:
        body = {"timestamp": self._now(), "userId": None if who.user is None else who.user.id}
        self._server.send_to([sid], "pong", body)

    def _heed_ring(self) -> None:
        """Another gateway has written something."""
        self._pump.look()
        self._charges.wake()

    def _terminals_here(self) -> set[str]:
        return {each.terminal_id for each in self._listeners.values() if each.terminal_id}

    def _on(self, event: str, work: Callable[[str, Listener, object], Awaitable[object]]) -> None:
        """Answer an event of somebody identified; what goes wrong is told to them."""

        async def handle(sid: str, data: object = None, *_: object) -> object:
            who = self._listeners.get(sid)
            if who is None:
                return None
            try:
                return await work(sid, who, data)
            except TapRailError:  # the ledger cannot tell right now
                self._refuse(sid, event, "Try again later", {})
            except Exception:  # noqa: BLE001 - the library would keep it to itself
                _log.exception("push.failed", push_event=event)
                self._refuse(sid, event, "Something went wrong here; try again later", {})
            return None

        self._server.on(event, handle)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
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


def _cursor_of(data: object) -> Cursor | None:
    return Cursor.parse(data.get("cursor")) if isinstance(data, dict) else None


def _at(told: Sequence[list[Message]], place: str, before: Cursor | None) -> list[Message]:
    """Steps that were read, each with a place from which nothing is missed: the last one is up to
    date, the others leave whoever is cut off among them where they were."""
    last = len(told) - 1
    return [
        replace(message, data={**message.data, "cursor": place if at == last else str(before)})
        for at, messages in enumerate(told)
        for message in messages
    ]

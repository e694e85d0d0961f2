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
from dataclasses import dataclass
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
from taprail_gateway.fleet import FleetNews
from taprail_gateway.ledger.alerts import Alert
from taprail_gateway.push_auth import Listener, PushAuth, payee_room, payer_room
from taprail_gateway.push_charges import ChargeNews
from taprail_gateway.push_cursor import Cursor
from taprail_gateway.push_history import Past
from taprail_gateway.push_presence import Presence, Present
from taprail_gateway.push_rooms import Message, Rooms
from taprail_gateway.push_server import PushServer
from taprail_gateway.push_settings import PushSettings, shared_line
from taprail_gateway.push_terminals import (
    MAX_SYNC_IDS,
    Terminals,
    asked_ids,
    room_of,
    was_told,
)
from taprail_gateway.push_topics import TOPICS, Topic
from taprail_gateway.push_watch import Watch
from taprail_gateway.push_words import Words, worded

SOCKET_PATH: Final = "nfc-ws"
MAX_SUBSCRIPTIONS: Final = 100
"""Of one socket; an app follows a handful of payments."""

MAX_OF_ONE: Final = 50
"""Sockets of one user or terminal: beyond it the newest takes the place of the oldest."""

_ALERT_EVERY_S: Final = 30.0
"""Everybody hears of one alert of a level in so long; operators hear of each."""

_log = structlog.get_logger("push")


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
        self._server = PushServer(origins)
        self._terminals = Terminals(services)
        self._present = Present()
        self._watch = Watch(
            services.ledger,
            services.wakeups.access.listen(),
            terminals=self._present.terminals,
            on_alert=self._tell_alert,
            on_shut_out=self.shut_out,
            on_look=self._close_expired,
        )
        self._rooms = Rooms()
        self._told_since: dict[str, Cursor] = {}  # terminals' sockets that were told all since
        self._resumes = asyncio.Semaphore(1)
        self._quiet_until_s: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server.on("connect", self._connect)
        self._server.on("disconnect", self._disconnect)
        self._on("ping", self._ping)
        self._charges = ChargeNews(services, self._to_terminal_here, self.to_till)
        self._fleet = FleetNews(services, self._present.terminals, self._to_terminal_here)
        self._shared = shared_line(
            settings or PushSettings(), services.gateway_id, self._heed_ring, self._say
        )
        self._on("terminal:sync", self._sync)
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
        for each in (self._pump, self._watch, self._charges, self._fleet):
            self._spawn(each.run())
        if self._shared is not None:
            self._spawn(self._shared.run())
            wakeups = self._services.wakeups
            for bell in (wakeups.events, wakeups.charges, wakeups.access):
                self._spawn(self._shared.pass_on(bell.listen()))

    async def stop(self) -> None:
        """Tell everybody that the gateway closes, and close the sockets."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        body = {"message": "The gateway is closing", "timestamp": self._now()}
        self._server.send_to(self._present.where(lambda _: True), "system:shutdown", body)
        await self._server.close_all()

    async def to_terminal(self, terminal_id: str, event: str, body: Mapping[str, object]) -> None:
        """Tell a terminal something, signed: `{body, signature}`, at whichever gateway it is.

        The signature is of Domain.COMMAND about the event's name, so that none passes for another;
        the body names the terminal. A terminal that is away is told nothing.
        """
        envelope = self._terminals.command(terminal_id, event, body)
        self._say(terminal_id, event, envelope)
        if self._shared is not None:
            await self._shared.say(terminal_id, event, envelope)

    async def _to_terminal_here(
        self, terminal_id: str, event: str, body: Mapping[str, object]
    ) -> None:
        """The same for what every gateway finds in the ledger: each tells its own sockets."""
        if self._present.of(room_of(terminal_id)):
            self._say(terminal_id, event, self._terminals.command(terminal_id, event, body))

    def _say(self, terminal_id: str, event: str, envelope: Mapping[str, object]) -> None:
        self._server.send_to(self._present.of(room_of(terminal_id)), event, envelope)

    def to_till(self, user_id: str, event: str, body: Mapping[str, object]) -> None:
        """Tell a user something, on the sockets here on which they act as more than a customer."""
        mine = {sid: self._present.get(sid) for sid in self._present.of(f"user:{user_id}")}
        self._server.send_to([sid for sid, who in mine.items() if who and who.is_till], event, body)

    def shut_out(self, whose: str, why: str) -> None:
        """Close all sockets of a terminal, a user or a token (`Listener.shut_out_as`) at once."""
        self._services.directory.look_again(whose)
        for sid in self._present.of(whose):
            self._server.hang_up(sid, why)

    def presence(self) -> Presence:
        """Who is connected now."""
        return self._present.now()

    def told(self) -> Told:
        """How far the telling is."""
        return Told(self._pump.place.seen, self._server.behind)

    async def tell(self, news: Sequence[News]) -> None:
        """Tell whoever listens; takes the durations of completed payments into the estimate."""
        completed = [each for each in news if each.state == PaymentState.COMPLETED]
        if completed:
            crash("push.before_emit")
        self._estimate.settled([each.at_ms - each.payment.created_at_ms for each in completed])
        for each in news:  # all in one go: the pump counts these steps as told already
            self._tell_one(each)
        self._charges.moved(each.payment.refund_of or each.payment.id for each in news)

    def _tell_one(self, news: News) -> None:
        payment = news.payment
        for topic in TOPICS:
            self._tell_room(topic.room_of(payment), partial(topic.words, self._words, news))
        for purse in (payer_room(payment.user_id), payee_room(payment.merchant_user_id)):
            self._tell_room(purse, partial(self._words.of_balance, news, purse))
        self._tell_room(room_of(payment.terminal_id), partial(self._terminals.words, news))

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
        steps = past.since(cursor) or past.steps[-1:]
        told = worded(steps, partial(topic.words, self._words), place, str(cursor))
        if not told:
            told = topic.nothing_yet(self._words, wanted, place)
        self._catch_up(sid, [room], past, told)

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
        operators = self._present.where(lambda who: who.is_operator)
        details = self._words.alert_for_operators(alert)
        self._server.send_to(operators, "system:alert", details)
        others = self._present.where(lambda who: not who.is_operator)
        now_s = self._services.clock.monotonic_s()
        if others and not alert.needs_review and now_s >= self._quiet_until_s.get(alert.level, 0.0):
            self._quiet_until_s[alert.level] = now_s + _ALERT_EVERY_S
            self._server.send_to(others, "system:alert", self._words.alert_for_all(alert.level))

    # --- sockets ------------------------------------------------------------------------------

    async def _connect(self, sid: str, environ: Mapping[str, Any], auth: object = None) -> None:
        try:
            who = await self._auth.identify(auth, environ)
            await self._pump.begin()
            for room in who.rooms:
                self._rooms.enter(sid, room)
            past = await self._missed(who)
        except BaseException as exc:
            self._rooms.forget(sid)
            if isinstance(exc, TapRailError):  # the ledger cannot tell right now
                raise Refused("Try again later") from exc
            raise
        if not self._server.is_open(sid):  # the library tells nobody who leaves at this moment
            self._rooms.forget(sid)
            raise Refused("The socket was closed")
        mine = self._present.add(sid, who)
        self._server.identified(sid)
        if len(mine) > MAX_OF_ONE:
            self._server.hang_up(mine[0], "too many sockets of one")
        # They hear of the connection first, which the library is yet to confirm.
        self._spawn(self._welcome(sid, who, past))

    async def _missed(self, who: Listener) -> Past:
        if who.cursor is None:
            return Past([], is_whole=False)
        async with self._resumes:  # it looks through much: one at a time
            return await self._services.ledger.read(partial(push_history.of_listener, who=who))

    async def _welcome(self, sid: str, who: Listener, past: Past) -> None:
        place = str(self._pump.place)
        past = past.up_to(self._pump.place)  # else they would be told it again by the next place
        missed = past.since(who.cursor)
        is_resumed = bool(missed) or past.is_whole
        if who.user is not None:
            body = {
                "message": "Connected to NFC Payment WebSocket",
                "userId": who.user.id,
                "timestamp": self._now(),
                "cursor": str(who.cursor) if missed else place,
                "resumed": is_resumed,
            }
            self._server.send_to([sid], "connected", body)
        elif who.cursor is not None and is_resumed:
            self._told_since[sid] = who.cursor
        told = worded(missed, partial(self._all_words, who), place, str(who.cursor))
        self._catch_up(sid, who.rooms, past, told)

    def _all_words(self, who: Listener, news: News) -> list[Message]:
        """What somebody hears of a step without having asked for it."""
        if who.user is None:
            return self._terminals.words(news)
        return [word for purse in who.rooms for word in self._words.of_balance(news, purse)]

    def _close_expired(self) -> None:
        """A socket lives no longer than the token that opened it, and that token's secret."""
        tokens, now_s = self._services.tokens, self._services.clock.now_ms() / 1000
        tokens.look()
        for sid in self._present.where(lambda who: not who.may_stay(tokens, now_s)):
            self._refuse(sid, "connect", "The token has expired", {})
            self._server.hang_up(sid, "its token has expired")

    async def _disconnect(self, sid: str, _reason: object = None) -> None:
        self._rooms.forget(sid)
        self._told_since.pop(sid, None)
        self._present.remove(sid)

    async def _ping(self, sid: str, who: Listener, _data: object) -> None:
        body = {"timestamp": self._now(), "userId": None if who.user is None else who.user.id}
        self._server.send_to([sid], "pong", body)

    async def _sync(self, sid: str, who: Listener, data: object) -> dict[str, object]:
        """`terminal:sync {requestIds}`: how these stand, and which are no payments.

        Left out is what was told already, to whoever came back with a cursor.
        """
        ids, standings = asked_ids(data), await self._terminals.standings(who.terminal_id, data)
        if ids is None or standings is None:
            return {"error": f"a terminal gives up to {MAX_SYNC_IDS} requestIds"}
        since = self._told_since.get(sid)
        for each in standings:
            if since is None or not was_told(each, since):
                to_come = [seq for seq in each.steps if not self._pump.has_told(seq)]
                self._rooms.knows(sid, who.room, to_come)
                self._send([sid], [self._terminals.standing_notice(each)])
        known = [each.payment.request_id for each in standings]
        return {"known": known, "unknown": [each for each in ids if each not in known]}

    def _heed_ring(self) -> None:
        """Another gateway has written something."""
        self._pump.look()
        self._charges.wake()
        self._watch.wake()

    def _on(self, event: str, work: Callable[[str, Listener, object], Awaitable[object]]) -> None:
        """Answer an event of somebody identified; what goes wrong is told to them."""

        async def handle(sid: str, data: object = None, *_: object) -> object:
            who = self._present.get(sid)
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

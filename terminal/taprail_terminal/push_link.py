"""News from the gateway over Socket.IO: what became of payments, and what tills ask for.

Answers for staying connected, with a fresh signature each time, and for believing only what the
gateway has signed for this terminal. Nothing here is the truth about money that must not be missed:
after each connect the gateway is asked about everything that is still open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import aiohttp
import socketio
import structlog
from nacl.signing import VerifyKey
from socketio.exceptions import SocketIOError

from taprail_common.charge_wire import (
    ANSWER_EVENT,
    CANCEL_EVENT,
    OPEN_EVENT,
    REQUEST_EVENT,
    TEXT_EVENT,
    ChargeAnswer,
    ChargeCancel,
    ChargeRequest,
    DisplayText,
)
from taprail_common.clock import Clock
from taprail_common.errors import InputError, LinkError, PartError, SignatureError
from taprail_common.fleet_wire import DIAGNOSE_EVENT, Diagnose
from taprail_common.signing import Domain, gateway_id, verify
from taprail_common.terminal_settings import CONFIG_EVENT, ConfigCalled
from taprail_common.wire import PaymentNotice, SignedEnvelope, parse
from taprail_terminal.gateway_link import retry_pauses_s
from taprail_terminal.identity import Identity
from taprail_terminal.outbox import Evidence, OutboxRow, RequestState
from taprail_terminal.till import Till
from taprail_terminal.tls_pins import Pins

SOCKET_PATH: Final = "nfc-ws"
NOTICE_EVENT: Final = "payment:verdict"
SYNC_EVENT: Final = "terminal:sync"
SYNC_BATCH: Final = 100
CONNECT_LIMIT_S: Final = 5.0
SYNC_LIMIT_S: Final = 5.0
GOODBYE_LIMIT_S: Final = 0.5
"""A terminal that is told to stop must be gone well before its supervisor kills it."""
_MAX_MESSAGE_BYTES: Final = 64 * 1024

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BelievedNotice:
    """A notice that is the gateway's and about this terminal, with its evidence."""

    notice: PaymentNotice
    evidence: Evidence


OnNotice = Callable[[BelievedNotice], Awaitable[None]]
OpenRequests = Callable[[], Awaitable[list[OutboxRow]]]


def believe_notice(key: VerifyKey, terminal_id: str, data: object) -> BelievedNotice:
    """The notice in an event's data; raises InputError, SignatureError or LinkError."""
    evidence = _signed_body(key, Domain.NOTICE, NOTICE_EVENT, data)
    notice = parse(PaymentNotice, evidence.body)
    if notice.terminal_id != terminal_id:
        raise LinkError("the notice is for another terminal")
    return BelievedNotice(notice, evidence)


def _signed_body(
    key: VerifyKey, domain: Domain, event: str, data: object, *, about: bytes = b""
) -> Evidence:
    try:
        envelope = SignedEnvelope.model_validate(data)
        body = envelope.body.encode()
    except ValueError as exc:
        raise InputError(event, "is not a signed envelope") from exc
    verify(key, domain, body, envelope.signature, about=about)
    return Evidence(body, envelope.signature)


OfFleet = ConfigCalled | Diagnose
Command = ChargeRequest | ChargeCancel | DisplayText | OfFleet
_COMMANDS: Final[dict[str, type[Command]]] = {
    REQUEST_EVENT: ChargeRequest,
    CANCEL_EVENT: ChargeCancel,
    TEXT_EVENT: DisplayText,
    CONFIG_EVENT: ConfigCalled,
    DIAGNOSE_EVENT: Diagnose,
}


def believe_command(key: VerifyKey, terminal_id: str, event: str, data: object) -> Command:
    """What is asked for in an event's data; raises InputError, SignatureError or LinkError."""
    body = _signed_body(key, Domain.COMMAND, event, data, about=event.encode()).body
    command = parse(_COMMANDS[event], body)
    if command.terminal_id != terminal_id:
        raise LinkError("the command is for another terminal")
    return command


class PushLink:
    """Keeps one Socket.IO connection to the gateway and hands on what it says."""

    def __init__(
        self,
        url: str,
        gateway_key: VerifyKey,
        identity: Identity,
        clock: Clock,
        *,
        on_notice: OnNotice,
        open_requests: OpenRequests,
        till: Till,
        pins: Pins | None = None,
        on_gone: Callable[[], None] | None = None,
    ) -> None:
        self._on_gone = on_gone
        self._url = url
        self._pins = pins
        self._key = gateway_key
        self._identity = identity
        self._clock = clock
        self._on_notice = on_notice
        self._open_requests = open_requests
        self._till = till
        till.speak_through(self.say)
        self._client: Any = None
        self._cursor: str | None = None  # of the last notice that was taken in
        self._saying: set[asyncio.Task[None]] = set()
        self.connected = False
        self.on_fleet: Callable[[OfFleet], None] | None = None
        """What takes the commands that are about the terminal itself."""

    def say(self, answer: ChargeAnswer) -> None:
        """Tell the gateway about a charge, if it listens; it asks at the next connect anyway."""
        if self.connected:
            task = asyncio.create_task(self._say(self._client, answer))
            self._saying.add(task)
            task.add_done_callback(self._saying.discard)

    async def run(self) -> None:
        """Connect, listen, and connect again, until cancelled."""
        pauses_s = retry_pauses_s()
        while True:
            try:
                # A session of ours, because the library forgets its own when it is cancelled.
                async with self._session() as session, asyncio.timeout(None) as limit:
                    await self._listen(session, limit)
                pauses_s = retry_pauses_s()
            except (SocketIOError, TimeoutError, LinkError, OSError) as exc:
                _log.debug("push connection failed", reason=str(exc)[:200])
            except PartError as exc:
                # What is open could not be read: asked about at the next connect.
                _log.error("open payments could not be asked about", reason=str(exc))
            finally:
                self._note_gone()
            _heed_cancellation()
            await asyncio.sleep(next(pauses_s))

    def _note_gone(self) -> None:
        """A line that has ended is the first sign that the gateway is away."""
        if self.connected and self._on_gone is not None:
            self._on_gone()
        self.connected = False

    def _session(self) -> aiohttp.ClientSession:
        checks = None if self._pins is None else self._pins.checks
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=checks or True))

    async def _listen(self, session: aiohttp.ClientSession, limit: asyncio.Timeout) -> None:
        # The library's own reconnection would sign once and show the same nonce again.
        client = socketio.AsyncClient(
            reconnection=False,
            handle_sigint=False,
            http_session=session,
            websocket_extra_options={"max_msg_size": _MAX_MESSAGE_BYTES},
        )
        client.on(NOTICE_EVENT, self._on_event)
        for event in _COMMANDS:
            client.on(event, partial(self._on_command, client, event))
        now = asyncio.get_running_loop().time()
        limit.reschedule(now + CONNECT_LIMIT_S)
        try:
            await client.connect(
                self._url,
                auth=self._who(),
                transports=["websocket"],
                socketio_path=SOCKET_PATH,
            )
            _heed_cancellation()
            limit.reschedule(None)
            self._client, self.connected = client, True
            # First, since somebody stands there with a card.
            await client.emit(OPEN_EVENT, {"chargeId": self._till.asked_id})
            await self._sync(client)
            await client.wait()
        finally:
            # The library waits for the far end, which may be going down at the same moment.
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_LIMIT_S):
                    await client.disconnect()

    def _who(self) -> dict[str, object]:
        """A fresh proof, and the place to go on from: what came meanwhile is told first."""
        proof = self._identity.connect(gateway_id(self._key), self._clock.now_ms())
        return proof if self._cursor is None else {**proof, "cursor": self._cursor}

    async def _sync(self, client: Any) -> None:
        """Ask for the state of everything open; the answers come as notices.

        Of what has no verdict as well: its payment may settle before the verdict is fetched again,
        and what was pushed before this connection nobody pushes twice.
        """
        rows = await self._open_requests()
        for at in range(0, len(rows), SYNC_BATCH):
            batch = rows[at : at + SYNC_BATCH]
            asked = {"requestIds": [row.request_id for row in batch]}
            answer = await client.call(SYNC_EVENT, asked, timeout=SYNC_LIMIT_S)
            unknown = answer.get("unknown") if isinstance(answer, dict) else None
            lost = [row for row in batch if _is_approved(row) and row.request_id in (unknown or ())]
            if lost:
                _log.error("the gateway does not know approved payments", count=len(lost))

    async def _on_event(self, data: object = None) -> None:
        try:
            believed = believe_notice(self._key, self._identity.terminal_id, data)
        except (InputError, SignatureError, LinkError) as exc:
            _log.warning("a notice was not believed", reason=str(exc))
            return
        await self._on_notice(believed)
        self._cursor = believed.notice.cursor or self._cursor

    async def _on_command(self, client: Any, event: str, data: object = None) -> None:
        try:
            command = believe_command(self._key, self._identity.terminal_id, event, data)
        except (InputError, SignatureError, LinkError) as exc:
            _log.warning("a command was not believed", command=event, reason=str(exc))
            return
        match command:
            case ChargeRequest():
                answer = self._till.on_request(command)
                if answer is not None:
                    await self._say(client, answer)
            case ChargeCancel():
                self._till.on_cancel(command)
            case DisplayText():
                self._till.on_text(command)
            case ConfigCalled() | Diagnose():
                if self.on_fleet is not None:
                    self.on_fleet(command)

    async def _say(self, client: Any, answer: ChargeAnswer) -> None:
        with suppress(SocketIOError):  # gone meanwhile: the next connect asks again
            body = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
            await client.emit(ANSWER_EVENT, body)


def _is_approved(row: OutboxRow) -> bool:
    return row.state is RequestState.APPROVED


def _heed_cancellation() -> None:
    """Be cancelled after all: the library swallows a cancellation amid its goodbye, and a terminal
    that went on connecting would never stop."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError

"""Tells terminals what tills ask of them, and tills what became of it, up to the settled payment.

The ledger is the queue, as for payments: whoever changes a charge rings a bell, and every gateway
looks for what changed lately and tells it to the sockets that it has. A terminal that was away asks
for its open charge as soon as it is back, so nothing here has to be remembered over a restart: what
changed just before is told once more, which changes nothing, since a charge goes by its id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Final

import structlog
from pydantic import ValidationError
from sqlalchemy import Connection, select

from taprail_common.api.charges import ChargeStatus
from taprail_common.charge_wire import (
    CANCEL_EVENT,
    REQUEST_EVENT,
    TEXT_EVENT,
    ChargeAnswer,
    ChargeReply,
)
from taprail_common.clock import rfc3339
from taprail_common.errors import InputError
from taprail_common.ids import check_identifier
from taprail_gateway.api.context import Services
from taprail_gateway.charge_view import Link, charge_body
from taprail_gateway.charges import Charge, Objection
from taprail_gateway.ledger import charges, schema
from taprail_gateway.ledger.charges import TerminalText
from taprail_gateway.push_auth import Listener
from taprail_gateway.wakeups import Listener as Ear

UPDATE_EVENT: Final = "charge:update"

_LOOK_EVERY_MS: Final = 1_000
"""The longest that news waits when the bell was rung at another gateway."""

_LATE_MS: Final = 10_000
"""How much later than its time a change may become visible: other gateways' clocks differ, and
their transactions take a while."""

_RETRY_S: Final = 1.0

_MOST_MOVED: Final = 5_000
"""Payments noted at most for a look; what goes beyond it a till learns when it asks."""

_PAGE: Final = 500

# What a terminal is told when a charge comes to these; of all others it knows itself.
_ENDED_ELSEWHERE: Final = frozenset({ChargeStatus.CANCELLED, ChargeStatus.EXPIRED})

_log = structlog.get_logger("push")

ToTerminal = Callable[[str, str, Mapping[str, object]], Awaitable[None]]
ToUser = Callable[[str, str, Mapping[str, object]], None]
_Users = dict[str, str | None]


class ChargeNews:
    """One task, `run`, and the answers to what terminals say."""

    def __init__(self, services: Services, to_terminal: ToTerminal, to_user: ToUser) -> None:
        self._services = services
        self._to_terminal = to_terminal
        self._to_user = to_user
        self._bell = services.wakeups.charges.listen()
        self._money = Ear()
        self._told: dict[tuple[str, object], int] = {}  # what is known, and when it changed
        self._moved: set[str] = set()  # payments, of which some were charged for

    async def run(self) -> None:
        """Until cancelled: a failure is logged, and the next look is a second later."""
        await asyncio.gather(
            self._follow(self._bell, self.look), self._follow(self._money, self._tell_of_money)
        )

    async def _follow(self, bell: Ear, look: Callable[[], Awaitable[int | None]]) -> None:
        while True:
            wait_ms: int | None = _LOOK_EVERY_MS
            try:
                wait_ms = await look()
            except Exception:  # noqa: BLE001 - a supervised loop: nobody else would hear of it
                _log.exception("charges.behind")
                await asyncio.sleep(_RETRY_S)
            await bell.wait(wait_ms)

    def wake(self) -> None:
        """Look now: another gateway knows of something new."""
        self._bell.ring()

    def moved(self, payment_ids: Iterable[str]) -> None:
        """Something happened to these payments: tills hear of those that they charged for."""
        self._moved.update(islice(payment_ids, _MOST_MOVED - len(self._moved)))
        self._money.ring()

    async def look(self) -> int:
        """End what is over and tell what changed; ms until there may be more to do."""
        ledger, now_ms = self._services.ledger, self._services.clock.now_ms()
        next_ms = await ledger.read(charges.next_deadline_ms)
        if next_ms is not None and next_ms < now_ms:
            await ledger.write(partial(charges.expire, now_ms=now_ms))
            next_ms = await ledger.read(charges.next_deadline_ms)
        changed, texts, users = await ledger.read(partial(_news, since_ms=now_ms - _LATE_MS))
        for charge in changed:
            if self._is_news((charge.id, charge.status), charge.changed_at_ms):
                await self._tell(charge, users[charge.merchant_id])
        for text in texts:
            if self._is_news((text.terminal_id, text.set_at_ms), text.set_at_ms):
                await self._show(text)
        self._forget(now_ms - 2 * _LATE_MS)
        return _LOOK_EVERY_MS if next_ms is None else max(1, min(_LOOK_EVERY_MS, next_ms - now_ms))

    async def open(self, _sid: str, who: Listener, data: object) -> dict[str, object]:
        """`charge:open {chargeId}`: what a terminal is to take, and whether what it has is over."""
        terminal_id, named = who.terminal_id, _named(data)
        if terminal_id is None:
            return {"error": "this is for terminals"}
        mine, had, text = await self._services.ledger.read(
            partial(_place_of, terminal_id=terminal_id, named=named)
        )
        if named is not None and (mine is None or mine.id != named):
            reason = Objection.UNKNOWN if had is None else had.status
            await self._to_terminal(
                terminal_id, CANCEL_EVENT, {"chargeId": named, "reason": str(reason)}
            )
        if mine is not None:
            await self._request(mine)
        if text is not None:
            await self._show(text)
        return {"open": None if mine is None else mine.id}

    async def answer(self, _sid: str, who: Listener, data: object) -> None:
        """`charge:answer`: a terminal says whether it takes a charge of its own."""
        if who.terminal_id is None:
            return
        try:
            said = ChargeAnswer.model_validate(data)
        except ValidationError:
            _log.warning("charges.bad_answer", terminal=who.terminal_id)
            return
        work = partial(_heed, terminal_id=who.terminal_id, said=said)
        if await self._services.ledger.read(partial(_is_open, who.terminal_id, said.charge_id)):
            await self._services.ledger.write(partial(work, at_ms=self._services.clock.now_ms()))
            self._services.wakeups.charges.ring()

    async def _tell(self, charge: Charge, owner: str | None) -> None:
        if charge.status is ChargeStatus.WAITING:
            await self._request(charge)
        if charge.status in _ENDED_ELSEWHERE:
            body = {"chargeId": charge.id, "reason": charge.status.value}
            await self._to_terminal(charge.terminal_id, CANCEL_EVENT, body)
        if not charge.is_open:
            self._services.wakeups.callbacks.ring()
        link = self._services.explorer_link
        whole = partial(charge_body, charge=charge, explorer_link=link)
        told = await self._services.ledger.read(whole)
        self._tell_tills(charge, owner, told, charge.changed_at_ms)

    async def _tell_of_money(self) -> None:
        """What became of the payments that charges came to, as they are now."""
        some = list(islice(self._moved, _PAGE))
        if not some:
            return
        now_ms, link = self._services.clock.now_ms(), self._services.explorer_link
        self._moved.difference_update(some)  # before the read: what moves meanwhile moves again
        found = await self._services.ledger.read(partial(_settled, payment_ids=some, link=link))
        for charge, owner, body in found:
            self._tell_tills(charge, owner, body, now_ms)
        if self._moved:
            self._money.ring()

    def _tell_tills(
        self, charge: Charge, owner: str | None, body: Mapping[str, object], at_ms: int
    ) -> None:
        at = {"timestamp": rfc3339(at_ms)}
        for user in sorted({charge.user_id, owner or charge.user_id}):
            self._to_user(user, UPDATE_EVENT, {**body, **at})

    async def _request(self, charge: Charge) -> None:
        body = {
            "chargeId": charge.id,
            "amount": charge.amount_units,
            "currency": charge.currency,
            "deadline": rfc3339(charge.deadline_ms),
        }
        await self._to_terminal(charge.terminal_id, REQUEST_EVENT, body)

    async def _show(self, text: TerminalText) -> None:
        body = {"text": text.text, "at": rfc3339(text.set_at_ms)}
        await self._to_terminal(text.terminal_id, TEXT_EVENT, body)

    def _is_news(self, what: tuple[str, object], at_ms: int) -> bool:
        is_known = what in self._told
        self._told[what] = at_ms
        return not is_known

    def _forget(self, before_ms: int) -> None:
        for what in [what for what, at_ms in self._told.items() if at_ms < before_ms]:
            del self._told[what]


def _news(
    connection: Connection, *, since_ms: int
) -> tuple[list[Charge], list[TerminalText], _Users]:
    changed = charges.changed_since(connection, since_ms)
    return changed, charges.texts_since(connection, since_ms), _owners(connection, changed)


def _settled(
    connection: Connection, *, payment_ids: list[str], link: Link
) -> list[tuple[Charge, str | None, dict[str, object]]]:
    found = charges.of_payments(connection, payment_ids)
    owners = _owners(connection, found)
    return [(each, owners[each.merchant_id], charge_body(connection, each, link)) for each in found]


def _owners(connection: Connection, of: Iterable[Charge]) -> _Users:
    m, merchants = schema.merchants.c, {each.merchant_id for each in of}
    owners = connection.execute(select(m.id, m.user_id).where(m.id.in_(merchants))).all()
    return {row[0]: row[1] for row in owners}


def _place_of(
    connection: Connection, *, terminal_id: str, named: str | None
) -> tuple[Charge | None, Charge | None, TerminalText | None]:
    """What a terminal is to take, what became of the one that it names, and what it shows."""
    had = None if named is None else charges.find(connection, terminal_id, named)
    mine, text = charges.open_of(connection, terminal_id), charges.text_of(connection, terminal_id)
    return mine, had, text


def _is_open(terminal_id: str, charge_id: str, connection: Connection) -> bool:
    found = charges.find(connection, terminal_id, charge_id)
    return found is not None and found.is_open


def _heed(connection: Connection, *, terminal_id: str, said: ChargeAnswer, at_ms: int) -> None:
    """Write down what a terminal says of an open charge."""
    ended = partial(charges.end, connection, terminal_id, said.charge_id)
    match said.answer:
        case ChargeReply.ARMED:
            charges.arm(connection, terminal_id, said.charge_id, at_ms)
        case ChargeReply.BUSY:
            ended(ChargeStatus.REFUSED, at_ms, charges.TerminalBusyError.code)
        case ChargeReply.CANCELLED:
            ended(ChargeStatus.CANCELLED, at_ms, "at_the_terminal")
        case ChargeReply.REFUSED if said.reason_code == Objection.EXPIRED:
            ended(ChargeStatus.EXPIRED, at_ms)
        case ChargeReply.REFUSED:
            ended(ChargeStatus.REFUSED, at_ms, said.reason_code)
        case ChargeReply.TAPPED:
            return  # the request itself says the rest


def _named(data: object) -> str | None:
    named = data.get("chargeId") if isinstance(data, dict) else None
    try:
        return check_identifier("chargeId", named) if isinstance(named, str) else None
    except InputError:
        return None

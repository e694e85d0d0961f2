"""What terminals are told: signed notices of their own payments, and what to do.

Each notice carries its place in the order of events within the signature, so a terminal that was
away can be told what it missed, once and in order. By its own request ids it may also ask how its
payments stand, which needs no place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Connection, bindparam, select

from taprail_common.signing import Domain, sign
from taprail_gateway.api.context import Services
from taprail_gateway.event_pump import News
from taprail_gateway.ledger import schema
from taprail_gateway.payment_view import (
    PAYMENT_COLUMNS,
    PAYMENTS_WITH_MERCHANT,
    PaymentView,
    notice,
)
from taprail_gateway.push_cursor import Cursor
from taprail_gateway.push_history import TOLD_TO_TERMINALS
from taprail_gateway.push_rooms import Message

MAX_SYNC_IDS: Final = 100
NOTICE_EVENT: Final = "payment:verdict"

_p, _e = schema.payments.c, schema.payment_events.c
_OF_TERMINAL: Final = (
    select(*PAYMENT_COLUMNS)
    .select_from(PAYMENTS_WITH_MERCHANT)
    .where(
        _p.requester == bindparam("terminal"),
        _p.request_id.in_(bindparam("ids", expanding=True)),
    )
)
_STEPS: Final = (
    select(_e.payment_id, _e.seq)
    .where(_e.payment_id.in_(bindparam("ids", expanding=True)))
    .order_by(_e.seq)
)


def room_of(terminal_id: str) -> str:
    """Where a terminal's sockets are."""
    return f"terminal:{terminal_id}"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a payment stands, and the numbers of the steps that led there."""

    payment: PaymentView
    steps: list[int]


class Terminals:
    """Puts news and commands into words that terminals believe."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def command(self, terminal_id: str, event: str, body: Mapping[str, object]) -> dict[str, str]:
        """A command as it travels; see `Push.to_terminal`."""
        said = json.dumps({**body, "terminalId": terminal_id}, separators=(",", ":")).encode()
        signature = sign(self._services.key, Domain.COMMAND, said, about=event.encode())
        return {"body": said.decode(), "signature": signature}

    def words(self, news: News) -> list[Message]:
        """What the terminal whose payment it is hears of a step, with the place after it."""
        if not (news.state in TOLD_TO_TERMINALS and news.payment.is_by_terminal):
            return []
        return [self._notice(news.seq, news.payment, news.state, news.at_ms, news.cursor)]

    async def standings(self, terminal_id: str | None, data: object) -> list[Standing] | None:
        """How the payments of `{requestIds}` stand, in the order of their latest steps; None for
        what no terminal may ask."""
        ids = asked_ids(data)
        if terminal_id is None or ids is None:
            return None
        return await self._services.ledger.read(partial(_standings, terminal=terminal_id, ids=ids))

    def standing_notice(self, standing: Standing) -> Message:
        """The same as a notice, without a place: what came before may be yet to be told."""
        payment, now_ms = standing.payment, self._services.clock.now_ms()
        return self._notice(standing.steps[-1], payment, payment.state, now_ms, None)

    def _notice(
        self, seq: int, payment: PaymentView, state: str, at_ms: int, cursor: str | None
    ) -> Message:
        body = notice(payment, state, at_ms, cursor).to_json()
        signature = sign(self._services.key, Domain.NOTICE, body)
        return Message(seq, NOTICE_EVENT, {"body": body.decode(), "signature": signature})


def asked_ids(data: object) -> list[str] | None:
    """The request ids of a sync; None for what is none."""
    ids = data.get("requestIds") if isinstance(data, dict) else None
    if not isinstance(ids, list) or len(ids) > MAX_SYNC_IDS:
        return None
    are_ids = all(isinstance(each, str) and len(each) <= 64 and each.isascii() for each in ids)
    return ids if are_ids else None


def was_told(standing: Standing, since: Cursor) -> bool:
    """Whether a terminal that was told all since a place knows of how a payment stands."""
    is_new = not since.covers(standing.steps[-1])
    return is_new and standing.payment.state in TOLD_TO_TERMINALS


def _standings(connection: Connection, *, terminal: str, ids: list[str]) -> list[Standing]:
    rows = connection.execute(_OF_TERMINAL, {"terminal": terminal, "ids": ids})
    payments = [PaymentView(**row._mapping) for row in rows]
    steps: dict[str, list[int]] = {payment.id: [] for payment in payments}
    for payment_id, seq in connection.execute(_STEPS, {"ids": list(steps)}):
        steps[payment_id].append(seq)
    found = [Standing(payment, steps[payment.id]) for payment in payments]
    return sorted(found, key=lambda each: each.steps)

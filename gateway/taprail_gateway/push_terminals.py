"""What terminals are told: signed notices of their own payments, and what to do.

A terminal that was away asks for what it missed by its own request ids, so it needs no cursor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from sqlalchemy import bindparam, select

from taprail_common.payment_state import PaymentState
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
from taprail_gateway.push_server import PushServer

MAX_SYNC_IDS: Final = 100

_TOLD: Final = frozenset(
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


def room_of(terminal_id: str) -> str:
    """Where a terminal's sockets are."""
    return f"terminal:{terminal_id}"


class Terminals:
    """Speaks to terminals over the server; their rooms are the library's, which may be shared."""

    def __init__(self, services: Services, server: PushServer) -> None:
        self._services = services
        self._server = server

    async def command_here(self, terminal_id: str, event: str, body: Mapping[str, object]) -> None:
        """The same for what every gateway finds in the ledger: each tells its own sockets."""
        await self.command(terminal_id, event, body, is_shared=False)

    async def command(
        self, terminal_id: str, event: str, body: Mapping[str, object], *, is_shared: bool = True
    ) -> None:
        """See `Push.to_terminal`."""
        said = json.dumps({**body, "terminalId": terminal_id}, separators=(",", ":")).encode()
        signature = sign(self._services.key, Domain.COMMAND, said, about=event.encode())
        envelope = {"body": said.decode(), "signature": signature}
        room = room_of(terminal_id)
        await self._server.emit(event, envelope, to=room, ignore_queue=not is_shared)

    async def tell(self, news: News) -> None:
        """A notice to the terminal whose payment it is, if it listens here."""
        room = room_of(news.payment.terminal_id)
        if news.state in _TOLD and news.payment.is_by_terminal and self._server.is_heard(room):
            await self._notify(news.payment, news.state, news.at_ms, room)

    async def sync(self, sid: str, terminal_id: str | None, data: object) -> dict[str, object]:
        """`terminal:sync {requestIds}`: the current state of these, and which are not payments."""
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
            await self._notify(payment, payment.state, now_ms, sid)
        return {"known": list(payments), "unknown": [i for i in ids if i not in payments]}

    async def _notify(self, payment: PaymentView, state: str, at_ms: int, to: str) -> None:
        body = notice(payment, state, at_ms).to_json()
        signature = sign(self._services.key, Domain.NOTICE, body)
        envelope = {"body": body.decode(), "signature": signature}
        # Not for the other gateways: each reads the same table, and tells its own sockets.
        await self._server.emit("payment:verdict", envelope, to=to, ignore_queue=True)


def _are_ids(ids: list[object]) -> bool:
    return len(ids) <= MAX_SYNC_IDS and all(
        isinstance(each, str) and len(each) <= 64 and each.isascii() for each in ids
    )

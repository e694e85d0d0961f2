"""Who may open a socket: a terminal by a fresh signature, a user by a token.

A terminal signs the gateway's id, its own, a time and a nonce, anew at each connect. Each nonce is
taken once within the time that its timestamp is good for. A refused terminal is told the gateway's
time, signed, so that it can tell a wrong clock from a wrong gateway.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from socketio.exceptions import ConnectionRefusedError as Refused
from sqlalchemy import bindparam, select

from taprail_common.clock import rfc3339
from taprail_common.errors import InputError, SignatureError
from taprail_common.ids import check_identifier
from taprail_common.signing import Domain, sign
from taprail_common.wire import CLOCK_SKEW_MS
from taprail_gateway.api.context import Services
from taprail_gateway.api.identify import is_fresh
from taprail_gateway.directory import User
from taprail_gateway.ledger import schema
from taprail_gateway.push_cursor import Cursor
from taprail_gateway.tokens import Claims, Tokens

_NONCE: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_MAX_NONCES: Final = 20_000
"""Connects within a minute, far more than terminals there are; beyond it, connects are refused."""

_STATUS: Final = select(schema.terminal_status).where(schema.terminals.c.id == bindparam("id"))


def payer_room(user_id: str) -> str:
    """Who hears of the money that a user pays."""
    return f"payer:{user_id}"


def payee_room(user_id: str | None) -> str:
    """Who hears of the money that a user is paid."""
    return f"payee:{user_id}"


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is at the other end of a socket: exactly one of the two.

    The cursor is the place that they were at when they were connected last; the claims are those of
    the token that opened the socket.
    """

    terminal_id: str | None = None
    user: User | None = None
    cursor: Cursor | None = None
    claims: Claims | None = None

    @property
    def room(self) -> str:
        """Where all sockets of the same one are."""
        return f"terminal:{self.terminal_id}" if self.user is None else f"user:{self.user.id}"

    @property
    def shut_out_as(self) -> list[str]:
        """By which names the socket can be closed: that of the one, and that of their token."""
        token_id = None if self.claims is None else self.claims.token_id
        return [self.room] if token_id is None else [self.room, f"token:{token_id}"]

    @property
    def rooms(self) -> list[str]:
        """Where they are told without asking: a terminal of its payments, a user of money that they
        pay, and of money that they are paid."""
        if self.user is None:
            return [self.room]
        may = {payer_room(self.user.id): self.user.is_customer}
        may |= {payee_room(self.user.id): self.user.is_merchant}
        return [room for room, is_allowed in may.items() if is_allowed]

    @property
    def is_operator(self) -> bool:
        return self.user is not None and self.user.is_operator

    def may_stay(self, tokens: Tokens, now_s: float) -> bool:
        """Whether what opened the socket still holds; a terminal's signature does."""
        return self.claims is None or tokens.holds(self.claims, now_s)

    @property
    def is_till(self) -> bool:
        """Whether they act as more than a customer."""
        return self.user is not None and (self.user.is_merchant or self.user.is_operator)


class PushAuth:
    """Decides about connects; belongs to one event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._nonces: dict[str, int] = {}  # nonce → when it may be forgotten, oldest first

    async def identify(self, auth: object, environ: Mapping[str, Any]) -> Listener:
        """Who connects; raises socketio's ConnectionRefusedError."""
        given = auth if isinstance(auth, dict) else {}
        cursor = Cursor.parse(given.get("cursor"))
        if "terminalId" in given:
            return Listener(terminal_id=await self._terminal(given), cursor=cursor)
        token = given.get("token") or _bearer(environ)
        if not isinstance(token, str) or not token:
            raise Refused("No authentication token provided")
        try:
            claims = self._services.tokens.check(token)
            user = await self._services.directory.bearer(claims)
        except SignatureError as exc:
            raise Refused("Authentication failed") from exc
        if user is None or user.is_frozen:
            raise Refused("Authentication failed")
        return Listener(user=user, cursor=cursor, claims=claims)

    async def _terminal(self, given: Mapping[str, object]) -> str:
        terminal_id, timestamp, nonce, signature = (
            str(given.get(name, ""))[:128]
            for name in ("terminalId", "timestamp", "nonce", "signature")
        )
        text = "\n".join((self._services.gateway_id, terminal_id, timestamp, nonce))
        # JSON may hold half a surrogate pair, which has no encoding; nobody can have signed it.
        signed = text.encode(errors="replace")
        now_ms = self._services.clock.now_ms()
        if not (
            _NONCE.fullmatch(nonce)
            and is_fresh(timestamp, now_ms)
            and await self._is_signed(terminal_id, signed, signature)
            and self._take_nonce(f"{terminal_id}/{nonce}", now_ms)
        ):
            raise self._refused(signed, now_ms)
        return terminal_id

    async def _is_signed(self, terminal_id: str, signed: bytes, signature: str) -> bool:
        try:
            check_identifier("terminalId", terminal_id)
            has_signed = self._services.directory.has_signed
            if not await has_signed(terminal_id, Domain.CONNECT, signed, signature):
                return False
        except (InputError, SignatureError):
            return False
        status = await self._services.ledger.read(
            lambda connection: connection.scalar(_STATUS, {"id": terminal_id})
        )
        return status == "active"

    def _take_nonce(self, nonce: str, now_ms: int) -> bool:
        while self._nonces and next(iter(self._nonces.values())) < now_ms:
            del self._nonces[next(iter(self._nonces))]
        if nonce in self._nonces or len(self._nonces) >= _MAX_NONCES:
            return False
        # A timestamp may be ahead by the skew, and is then good until it is behind by the skew.
        self._nonces[nonce] = now_ms + 2 * CLOCK_SKEW_MS
        return True

    def _refused(self, signed: bytes, now_ms: int) -> Refused:
        gateway_time = rfc3339(now_ms)
        signature = sign(self._services.key, Domain.ANSWER, gateway_time.encode(), about=signed)
        return Refused(
            "Authentication failed", {"gatewayTime": gateway_time, "signature": signature}
        )


def _bearer(environ: Mapping[str, Any]) -> str:
    scheme, _, token = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""

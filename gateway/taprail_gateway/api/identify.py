"""Who sends a request: a terminal by its device signature, or a user by a bearer token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from taprail_common.errors import SignatureError
from taprail_common.ids import check_identifier
from taprail_common.signing import Domain
from taprail_common.wire import (
    CLOCK_SKEW_MS,
    SIGNATURE_HEADER,
    TERMINAL_HEADER,
    TIMESTAMP_HEADER,
)
from taprail_gateway.api.context import SERVICES, Services
from taprail_gateway.api.errors import HttpError, unauthenticated
from taprail_gateway.api.rates import Kind
from taprail_gateway.directory import User
from taprail_gateway.tokens import Scope

PAYMENT_PATH: Final = "/api/payment/process-async"

_TIMESTAMP_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Query:
    """A signed question of a terminal; `signed` is what the answer's signature is about."""

    terminal_id: str
    signed: bytes


def is_terminal(request: web.Request) -> bool:
    """Whether the sender claims to be a terminal."""
    return TERMINAL_HEADER in request.headers


async def signed_body(
    request: web.Request, body: bytes, domain: Domain = Domain.PAYMENT_REQUEST
) -> tuple[str, str]:
    """The terminal that signed this body, and its signature; raises HttpError (401)."""
    terminal_id = request.headers[TERMINAL_HEADER]
    signature = await _check(request.app[SERVICES], request, terminal_id, domain, body)
    return terminal_id, signature


async def signed_query(request: web.Request) -> Query:
    """The terminal that signed this GET, freshly; raises HttpError (401)."""
    services = request.app[SERVICES]
    terminal_id = request.headers.get(TERMINAL_HEADER, "")
    timestamp = request.headers.get(TIMESTAMP_HEADER, "")
    # Bytes of a header or path that are no UTF-8 arrive as surrogates; nobody can have signed them.
    text = f"{request.method} {request.path}\n{terminal_id}\n{timestamp}"
    signed = text.encode(errors="replace")
    await _check(services, request, terminal_id, Domain.QUERY, signed)
    if not is_fresh(timestamp, services.clock.now_ms()):
        raise unauthenticated("timestamp", "the timestamp is not of now", TIMESTAMP_HEADER)
    return Query(terminal_id, signed)


async def token_user(request: web.Request) -> User:
    """The user that the bearer token names; raises HttpError (401, or 403 for one frozen)."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise unauthenticated("token_missing", "No authentication token provided", "Authorization")
    user = await user_of_token(request.app[SERVICES], token.strip())
    if user is None:
        raise unauthenticated("token_invalid", "the token names no user", "Authorization")
    if user.is_frozen:
        raise HttpError(403, "user_frozen", "the user is frozen", field="Authorization")
    _count(request, f"user:{user.id}", Kind.PAYMENT)
    return user


async def acting_as(request: web.Request, *scopes: Scope) -> User:
    """The same, if they act as one of these; raises HttpError (401 or 403)."""
    user = await token_user(request)
    if user.scopes.isdisjoint(scopes):
        words = " or ".join(scopes)
        raise HttpError(403, "scope", f"the token is not for a {words}", field="Authorization")
    return user


async def user_of_token(services: Services, token: str) -> User | None:
    """The user named by a token; None for no such user. Raises SignatureError."""
    return await services.directory.bearer(services.tokens.check(token))


def is_fresh(timestamp: str, now_ms: int) -> bool:
    """Whether a timestamp (Unix milliseconds as text) is within the allowed clock skew."""
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= _TIMESTAMP_DIGITS):
        return False
    return abs(int(timestamp) - now_ms) <= CLOCK_SKEW_MS


async def _check(
    services: Services, request: web.Request, terminal_id: str, domain: Domain, signed: bytes
) -> str:
    signature = request.headers.get(SIGNATURE_HEADER)
    if signature is None:
        raise unauthenticated("signature_missing", "a signature is missing", SIGNATURE_HEADER)
    check_identifier(TERMINAL_HEADER, terminal_id)
    try:
        if not await services.directory.has_signed(terminal_id, domain, signed, signature):
            raise unauthenticated("terminal_unknown", "no such terminal", TERMINAL_HEADER)
    except SignatureError as exc:
        raise unauthenticated("bad_signature", exc.message, SIGNATURE_HEADER) from exc
    _count(request, terminal_id, Kind.TERMINAL_PAYMENT)
    return signature


def _count(request: web.Request, who: str, payments: Kind) -> None:
    kind = payments if request.path == PAYMENT_PATH else Kind.OTHER
    request.app[SERVICES].rates.take(who, kind)

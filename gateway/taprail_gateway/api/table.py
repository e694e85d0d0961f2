"""One row for each address: who may ask, what is sent, what is answered. `openapi` shows the same.

What a row says is what happens: the row's models read the query and the body, its scopes decide who
may ask, its model writes the answer. Handlers that answer with bytes of their own (verdicts, signed
answers) identify whoever asks themselves, and name their models for the documentation.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from taprail_common.api.base import Answer, Empty
from taprail_common.errors import InputError
from taprail_common.wire import input_error
from taprail_gateway.api.bodies import parse_body, read_body
from taprail_gateway.api.context import SERVICES, Services
from taprail_gateway.api.identify import acting_as, is_terminal, signed_query
from taprail_gateway.directory import User
from taprail_gateway.ledger.actions import By
from taprail_gateway.tokens import Scope

B = TypeVar("B", bound=BaseModel)
Q = TypeVar("Q", bound=BaseModel)

ANYBODY: Final = frozenset(Scope)
"""Any user, as whatever they act."""

OPERATORS: Final = frozenset({Scope.OPERATOR})

MAX_QUERY_CHARACTERS: Final = 2_048


@dataclass(frozen=True, slots=True)
class Call(Generic[B, Q]):
    """A request that was read and let in; `user` is unset for a terminal."""

    request: web.Request
    services: Services
    body: B
    query: Q
    user: User | None

    @property
    def id(self) -> str:
        """What the address names."""
        return self.request.match_info["id"]

    @property
    def bearer(self) -> User:
        """The user; a terminal gets no further than here."""
        if self.user is None:
            raise AssertionError("this address is for users")
        return self.user

    def by(self, reason: str | None = None) -> By:
        """Who does something, now, for the record; raises InputError for a bad reason."""
        return By(f"user:{self.bearer.id}", self.services.clock.now_ms(), reason)


@dataclass(frozen=True, slots=True)
class Route(Generic[B, Q]):
    """An address and all that is to be known of it."""

    method: str
    path: str
    about: str
    handle: Callable[[Call[B, Q]], Awaitable[Answer | web.StreamResponse]]
    answer: type[BaseModel]
    also: tuple[type[BaseModel], ...] = ()
    """What may be answered instead, by another status."""
    scopes: frozenset[Scope] = ANYBODY
    terminals: bool = False
    """Whether a terminal may ask too, by a signature."""
    body: type[B] = field(default=Empty)  # type: ignore[assignment]  # the type's own default
    query: type[Q] = field(default=Empty)  # type: ignore[assignment]
    refusals: Mapping[int, str] = field(default_factory=dict)
    """Beside those that any address has."""
    csv: bool = False
    headers: tuple[str, ...] = ()
    """That may be sent beside those of who asks; each holds an identifier."""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Let whoever asks in, read what was sent, and answer."""
        user = await self._identify(request)
        query = _query(self.query, request)
        body = await self._body(request)
        services = request.app[SERVICES]
        answer = await self.handle(Call(request, services, body, query, user))
        return answer if isinstance(answer, web.StreamResponse) else _response(answer)

    @property
    def has_body(self) -> bool:
        return self.body is not Empty

    async def _body(self, request: web.Request) -> B:
        # Where nothing has to be said, nothing has to be sent.
        if not self.has_body or not (request.body_exists or self.must_say):
            return self.body()
        return parse_body(self.body, await read_body(request))

    @property
    def must_say(self) -> bool:
        """Whether a body is asked for, and not only allowed."""
        return any(field.is_required() for field in self.body.model_fields.values())

    async def _identify(self, request: web.Request) -> User | None:
        if self.terminals and is_terminal(request):
            await signed_query(request)
            return None
        return await acting_as(request, *self.scopes)


@dataclass(frozen=True, slots=True)
class Plain:
    """An address whose handler does all of it itself; the models are for the documentation."""

    method: str
    path: str
    about: str
    serve: Callable[[web.Request], Awaitable[web.StreamResponse]]
    answers: Mapping[int, Any]
    """Models by status."""
    bodies: tuple[type[BaseModel], ...] = ()
    """What may be sent, one of these."""
    is_open: bool = False
    """For anybody, without a token."""
    terminals: bool = True
    users: bool = True
    headers: tuple[str, ...] = ()


def _query(model: type[Q], request: web.Request) -> Q:
    """The query by its model; raises InputError naming what is wrong, unknown or there twice."""
    if len(request.query_string) > MAX_QUERY_CHARACTERS:
        raise InputError("query", "is too long")
    given = list(request.query.items())
    for name, _ in given:
        if sum(other == name for other, _ in given) > 1:
            raise InputError(name[:64], "stands there twice")
    try:
        # All of it is text: numbers and truths are read from it here, and only here.
        return model.model_validate_strings(dict(given), by_alias=True, by_name=False)
    except ValidationError as exc:
        raise input_error(exc) from None


def _response(answer: Answer) -> web.Response:
    body = json.dumps(answer.model_dump(mode="json", by_alias=True)).encode()
    return web.Response(body=body, status=answer.http_status, content_type="application/json")

"""Users, merchants and terminals: added by operators, seen by those whose they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection

from taprail_common.api.base import Empty
from taprail_common.api.office import (
    MerchantAdded,
    MerchantAnswer,
    MerchantChange,
    MerchantList,
    NewMerchant,
    NewTerminal,
    NewUser,
    PageQuery,
    TerminalAdded,
    TerminalAnswer,
    TerminalChange,
    TerminalList,
    UserAdded,
    UserAnswer,
    UserChange,
    UserList,
)
from taprail_gateway import registry, terminal_life, user_life
from taprail_gateway.api.errors import HttpError, not_found
from taprail_gateway.api.fleet import with_health
from taprail_gateway.api.table import OPERATORS, Call, Route
from taprail_gateway.ledger import actions, directory_list
from taprail_gateway.ledger.directory_list import MERCHANTS, TERMINALS, USERS, Kind, Looker, Row
from taprail_gateway.tokens import Scope

SELLERS: Final = frozenset({Scope.MERCHANT, Scope.OPERATOR})


def looker_of(call: Call[Any, Any]) -> Looker:
    """Who looks, and as what."""
    user = call.bearer
    return Looker(user.id, user.is_customer, user.is_merchant, user.is_operator)


async def one_of(call: Call[Any, Any], kind: Kind, row_id: str) -> Row:
    """A row that the caller may see; raises HttpError (404)."""
    row = await call.services.ledger.read(
        partial(directory_list.one, kind=kind, looker=looker_of(call), row_id=row_id)
    )
    if row is None:
        raise not_found(f"there is no such {kind.id.table.name[:-1]}")
    return row


async def page_of(call: Call[Empty, PageQuery], kind: Kind) -> list[Row]:
    """A page of what the caller may see."""
    query, looker = call.query, looker_of(call)
    return await call.services.ledger.read(
        partial(directory_list.page, kind=kind, looker=looker, after=query.after, limit=query.limit)
    )


async def on_record(
    call: Call[Any, Any],
    action: str,
    subject: str,
    work: Callable[[Connection], object],
    *,
    before: object = None,
    after: object = None,
) -> None:
    """Do something and write down who did it, in one commit."""
    by = call.by(getattr(call.body, "reason", None))

    def both(connection: Connection) -> None:
        work(connection)
        actions.note(connection, action, subject, by, before=before, after=after)

    await call.services.ledger.write(both)


# --- users ----------------------------------------------------------------------------------------


async def users(call: Call[Empty, PageQuery]) -> UserList:
    """GET /api/users: operators see all, others themselves."""
    return UserList.model_validate({"users": await page_of(call, USERS)})


async def user(call: Call[Empty, Empty]) -> UserAnswer:
    """GET /api/users/{id}."""
    return UserAnswer.model_validate({"user": await one_of(call, USERS, call.id)})


async def add_user(call: Call[NewUser, Empty]) -> UserAdded:
    """POST /api/users."""
    new, now_ms = call.body, call.services.clock.now_ms()
    add = partial(
        registry.add_user, user_id=new.id, name=new.name or new.id, role=new.role, now_ms=now_ms
    )
    await on_record(call, "add-user", new.id, add, after=new.role)
    return UserAdded.model_validate({"user": await one_of(call, USERS, new.id)})


async def change_user(call: Call[UserChange, Empty]) -> UserAnswer:
    """PATCH /api/users/{id}: from the next tap and the next request on."""
    set_status = partial(
        user_life.set_status,
        user_id=call.id,
        status=call.body.status,
        by=call.by(call.body.reason),
    )
    await call.services.ledger.write(set_status)
    call.services.directory.forget(call.id)
    call.services.wakeups.access.ring()
    return UserAnswer.model_validate({"user": await one_of(call, USERS, call.id)})


# --- merchants ------------------------------------------------------------------------------------


async def merchants(call: Call[Empty, PageQuery]) -> MerchantList:
    """GET /api/merchants."""
    return MerchantList.model_validate({"merchants": await page_of(call, MERCHANTS)})


async def merchant(call: Call[Empty, Empty]) -> MerchantAnswer:
    """GET /api/merchants/{id}."""
    return MerchantAnswer.model_validate({"merchant": await one_of(call, MERCHANTS, call.id)})


async def add_merchant(call: Call[NewMerchant, Empty]) -> MerchantAdded:
    """POST /api/merchants."""
    new = call.body
    add = partial(
        registry.add_merchant,
        merchant_id=new.id,
        name=new.name or new.id,
        account=new.account,
        now_ms=call.services.clock.now_ms(),
        user_id=new.user_id,
    )
    await on_record(call, "add-merchant", new.id, add, after=new.account.lower())
    return MerchantAdded.model_validate({"merchant": await one_of(call, MERCHANTS, new.id)})


async def change_merchant(call: Call[MerchantChange, Empty]) -> MerchantAnswer:
    """PATCH /api/merchants/{id}: from the next tap on."""
    status = call.body.status
    before = (await one_of(call, MERCHANTS, call.id))["status"]
    change = partial(registry.set_merchant_status, merchant_id=call.id, status=status)
    await on_record(call, "merchant-status", call.id, change, before=before, after=status)
    return MerchantAnswer.model_validate({"merchant": await one_of(call, MERCHANTS, call.id)})


# --- terminals ------------------------------------------------------------------------------------


async def terminals(call: Call[Empty, PageQuery]) -> TerminalList:
    """GET /api/terminals."""
    return TerminalList.model_validate(
        {"terminals": await with_health(call.services, await page_of(call, TERMINALS))}
    )


async def terminal(call: Call[Empty, Empty]) -> TerminalAnswer:
    """GET /api/terminals/{id}."""
    [row] = await with_health(call.services, [await one_of(call, TERMINALS, call.id)])
    return TerminalAnswer.model_validate({"terminal": row})


async def add_terminal(call: Call[NewTerminal, Empty]) -> TerminalAdded:
    """POST /api/terminals."""
    new = call.body
    add = partial(
        registry.add_terminal,
        terminal_id=new.id,
        merchant_id=new.merchant_id,
        public_key=new.public_key,
        now_ms=call.services.clock.now_ms(),
        name=new.name or "",
    )
    await on_record(call, "add-terminal", new.id, add, after=new.public_key.lower())
    return TerminalAdded.model_validate({"terminal": await one_of(call, TERMINALS, new.id)})


async def change_terminal(call: Call[TerminalChange, Empty]) -> TerminalAnswer:
    """PATCH /api/terminals/{id}: from its next tap on. A merchant may freeze or revoke a terminal
    of their own; only operators thaw one, since it may be them who froze it."""
    await one_of(call, TERMINALS, call.id)
    status = call.body.status
    if status == "active" and not call.bearer.is_operator:
        raise HttpError(403, "scope", "only operators may do this", field="Authorization")
    set_status = partial(
        terminal_life.set_status,
        terminal_id=call.id,
        status=status,
        by=call.by(call.body.reason),
    )
    await call.services.ledger.write(set_status)
    call.services.wakeups.access.ring()
    return TerminalAnswer.model_validate({"terminal": await one_of(call, TERMINALS, call.id)})


_TAKEN: Final = {404: "what it refers to does not exist", 409: "the id is taken"}
_NO_SUCH: Final = {404: "there is none that is the caller's"}

ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route("GET", "/api/users", "Users: oneself, or all", users, UserList, query=PageQuery),
    Route(
        "POST",
        "/api/users",
        "Add a user",
        add_user,
        UserAdded,
        scopes=OPERATORS,
        body=NewUser,
        refusals=_TAKEN,
    ),
    Route("GET", "/api/users/{id}", "A user", user, UserAnswer, refusals=_NO_SUCH),
    Route(
        "PATCH",
        "/api/users/{id}",
        "Freeze a user, or let them in again",
        change_user,
        UserAnswer,
        scopes=OPERATORS,
        body=UserChange,
        refusals=_NO_SUCH,
    ),
    Route(
        "GET",
        "/api/merchants",
        "Merchants: one's own, or all",
        merchants,
        MerchantList,
        scopes=SELLERS,
        query=PageQuery,
    ),
    Route(
        "POST",
        "/api/merchants",
        "Add a merchant",
        add_merchant,
        MerchantAdded,
        scopes=OPERATORS,
        body=NewMerchant,
        refusals=_TAKEN,
    ),
    Route(
        "GET",
        "/api/merchants/{id}",
        "A merchant",
        merchant,
        MerchantAnswer,
        scopes=SELLERS,
        refusals=_NO_SUCH,
    ),
    Route(
        "PATCH",
        "/api/merchants/{id}",
        "Close a merchant's account, or open it again",
        change_merchant,
        MerchantAnswer,
        scopes=OPERATORS,
        body=MerchantChange,
        refusals=_NO_SUCH,
    ),
    Route(
        "GET",
        "/api/terminals",
        "Terminals: of one's own merchants, or all",
        terminals,
        TerminalList,
        scopes=SELLERS,
        query=PageQuery,
    ),
    Route(
        "POST",
        "/api/terminals",
        "Add a terminal by its key",
        add_terminal,
        TerminalAdded,
        scopes=OPERATORS,
        body=NewTerminal,
        refusals=_TAKEN,
    ),
    Route(
        "GET",
        "/api/terminals/{id}",
        "A terminal",
        terminal,
        TerminalAnswer,
        scopes=SELLERS,
        refusals=_NO_SUCH,
    ),
    Route(
        "PATCH",
        "/api/terminals/{id}",
        "Freeze a terminal, thaw it, or revoke it for good",
        change_terminal,
        TerminalAnswer,
        scopes=SELLERS,
        body=TerminalChange,
        refusals={**_NO_SUCH, 409: "it was revoked for good"},
    ),
)

"""Cards: issued and limited by operators, seen and frozen by those whose they are.

The keys of a card never leave by here: it is personalised with `taprail admin card`.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic.alias_generators import to_camel
from sqlalchemy import Connection

from taprail_common.api.base import Empty
from taprail_common.api.office import (
    CardAnswer,
    CardChange,
    CardIssued,
    CardList,
    NewCard,
    PageQuery,
)
from taprail_common.errors import InputError
from taprail_gateway import registry
from taprail_gateway.api.errors import HttpError
from taprail_gateway.api.people import one_of, page_of
from taprail_gateway.api.table import ANYBODY, OPERATORS, Call, Route
from taprail_gateway.ledger import actions
from taprail_gateway.ledger.directory_list import CARDS, Row
from taprail_gateway.registry import CardOrder
from taprail_gateway.tokens import Scope

_OWNERS: Final = ANYBODY - {Scope.MERCHANT}


async def cards(call: Call[Empty, PageQuery]) -> CardList:
    """GET /api/cards."""
    return CardList.model_validate({"cards": await page_of(call, CARDS)})


async def card(call: Call[Empty, Empty]) -> CardAnswer:
    """GET /api/cards/{id}."""
    return CardAnswer.model_validate({"card": await one_of(call, CARDS, call.id)})


async def issue(call: Call[NewCard, Empty]) -> CardIssued:
    """POST /api/cards."""
    order, by = _order(call.body), call.by()

    def work(connection: Connection) -> str:
        issued = registry.issue_card(connection, call.services.custody, order, by.at_ms)
        note = {"user": order.user_id, "account": issued.account}
        actions.note(connection, "issue-card", issued.card_uuid, by, after=note)
        return issued.card_uuid

    try:
        card_uuid = await call.services.ledger.write(work)
    except InputError as exc:  # it speaks of fields by their names inside
        message = exc.message.removeprefix(f"{exc.field}: ")
        raise InputError(to_camel(exc.field), message) from None
    return CardIssued.model_validate({"card": await one_of(call, CARDS, card_uuid)})


async def change(call: Call[CardChange, Empty]) -> CardAnswer:
    """PATCH /api/cards/{id}: from the next tap on."""
    wanted, before = call.body, await one_of(call, CARDS, call.id)
    if not wanted.model_fields_set - {"reason"}:
        raise InputError("body", "names nothing to be changed")
    _check_allowed(call, wanted)
    by = call.by(wanted.reason)

    def work(connection: Connection) -> None:
        if wanted.status is not None:
            registry.set_card_status(connection, call.id, wanted.status)
        if wanted.single_limit is not None or wanted.daily_limit is not None:
            registry.set_card_limits(
                connection,
                call.id,
                single_limit_units=wanted.single_limit,
                daily_limit_units=wanted.daily_limit,
            )
        for action, was, becomes in _changes(before, wanted):
            actions.note(connection, action, call.id, by, before=was, after=becomes)

    await call.services.ledger.write(work)
    return CardAnswer.model_validate({"card": await one_of(call, CARDS, call.id)})


def _check_allowed(call: Call[CardChange, Empty], wanted: CardChange) -> None:
    """A lost card is to be frozen at once, by whoever owns it; all else is for operators."""
    given = {name for name in wanted.model_fields_set if getattr(wanted, name) is not None}
    only_freezes = given - {"reason"} == {"status"} and wanted.status == "frozen"
    if not (call.bearer.is_operator or only_freezes):
        raise HttpError(403, "scope", "only operators may do this", field="Authorization")


def _changes(before: Row, wanted: CardChange) -> list[tuple[str, object, object]]:
    names = {
        "card-status": ("status", wanted.status),
        "card-single-limit": ("single_limit_units", wanted.single_limit),
        "card-daily-limit": ("daily_limit_units", wanted.daily_limit),
    }
    return [
        (action, before[column], value)
        for action, (column, value) in names.items()
        if value is not None
    ]


def _order(new: NewCard) -> CardOrder:
    given: dict[str, Any] = {
        "single_limit_units": new.single_limit,
        "daily_limit_units": new.daily_limit,
    }
    return CardOrder(
        user_id=new.user_id,
        uid=bytes.fromhex(new.uid or ""),
        address=new.address,
        name=new.name or "",
        profile=new.profile,
        time_zone=new.time_zone,
        card_uuid=new.card_uuid,
        **{name: units for name, units in given.items() if units is not None},
    )


ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route(
        "GET",
        "/api/cards",
        "Cards: one's own, or all",
        cards,
        CardList,
        scopes=_OWNERS,
        query=PageQuery,
    ),
    Route(
        "POST",
        "/api/cards",
        "Issue a card",
        issue,
        CardIssued,
        scopes=OPERATORS,
        body=NewCard,
        refusals={404: "there is no such user", 409: "this card was issued before"},
    ),
    Route(
        "GET",
        "/api/cards/{id}",
        "A card, its limits and its balance",
        card,
        CardAnswer,
        scopes=_OWNERS,
        refusals={404: "there is none that is the caller's"},
    ),
    Route(
        "PATCH",
        "/api/cards/{id}",
        "Freeze a card, thaw it, or set its limits",
        change,
        CardAnswer,
        scopes=_OWNERS,
        body=CardChange,
        refusals={404: "there is none that is the caller's", 409: "it was replaced for good"},
    ),
)

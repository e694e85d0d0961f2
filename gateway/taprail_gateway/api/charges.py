"""`/api/terminals/{id}/charges`: a till asks a terminal to take an amount, and may take it back.

What is asked is in the ledger before anybody is told; the push does the telling. The answer to a
new charge waits a moment for the terminal's word, so that a till usually learns at once whether a
card is asked for.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final, Literal

from sqlalchemy import Connection

from taprail_common.api.base import IDEMPOTENCY_HEADER, Answer
from taprail_common.api.charges import (
    CancelAnswer,
    ChargeAnswer,
    ChargeBody,
    ChargeMade,
    ChargeOrder,
    ChargeStatus,
    DisplayAnswer,
    DisplayOrder,
)
from taprail_common.errors import InputError
from taprail_common.ids import check_identifier
from taprail_gateway.api.errors import HttpError
from taprail_gateway.api.table import Call, Plain, Route
from taprail_gateway.charge_view import charge_body
from taprail_gateway.charges import Asked, Charge
from taprail_gateway.ledger import charges
from taprail_gateway.ledger.charges import Place, TerminalText
from taprail_gateway.tokens import Scope

ANSWERED_WITHIN_S: Final = 1.5
"""A terminal that is connected answers within a few round trips; nobody waits for one that is not,
it finds the charge when it connects."""

_TILLS: Final = frozenset({Scope.MERCHANT, Scope.OPERATOR})
_PATH: Final = "/api/terminals/{id}/charges"


async def make(call: Call[ChargeOrder, Any]) -> Answer:
    """POST …/charges: arm the terminal."""
    place, order = await _place(call), call.body
    if order.currency != call.services.rules.currency:
        raise InputError("currency", f"only {call.services.rules.currency} is taken here")
    key = call.request.headers.get(IDEMPOTENCY_HEADER)
    work = partial(
        charges.make,
        at=place,
        asked=Asked(order.amount, order.currency, order.reference, order.deadline_seconds),
        user_id=call.bearer.id,
        key=None if key is None else check_identifier(IDEMPOTENCY_HEADER, key),
        now_ms=call.services.clock.now_ms(),
    )
    try:
        charge, is_new = await call.services.ledger.write(work)
    except (charges.TerminalBusyError, charges.ReusedError, charges.TerminalClosedError) as exc:
        raise HttpError(409, exc.code, exc.message) from exc
    charge = await _answered(call, charge)
    if charge.reason_code == charges.TerminalBusyError.code:
        raise HttpError(409, charge.reason_code, "the terminal is in the middle of something")
    return (ChargeMade if is_new else ChargeAnswer)(charge=await _body(call, charge))


async def show(call: Call[Any, Any]) -> Answer:
    """GET …/charges/{chargeId}."""
    return ChargeAnswer(charge=await _body(call, await _charge(call)))


async def cancel(call: Call[Any, Any]) -> Answer:
    """POST …/charges/{chargeId}/cancel: the ledger says whether it came before the tap."""
    before = await _charge(call)
    work = partial(
        charges.end,
        terminal_id=before.terminal_id,
        charge_id=before.id,
        status=ChargeStatus.CANCELLED,
        at_ms=call.services.clock.now_ms(),
    )
    await call.services.ledger.write(work)
    call.services.wakeups.charges.ring()
    charge = await _charge(call)
    return CancelAnswer(charge=await _body(call, charge), won=_WON[charge.status])


_WON: Final[dict[ChargeStatus, Literal["cancel", "tap", "deadline", "terminal"]]] = {
    ChargeStatus.CANCELLED: "cancel",
    ChargeStatus.APPROVED: "tap",
    ChargeStatus.DECLINED: "tap",
    ChargeStatus.EXPIRED: "deadline",
    ChargeStatus.REFUSED: "terminal",
}


async def display(call: Call[DisplayOrder, Any]) -> Answer:
    """POST …/display: words for the time in which there is nothing to pay."""
    place, services = await _place(call), call.services
    text = TerminalText(place.terminal_id, call.body.text, services.clock.now_ms())
    await services.ledger.write(partial(charges.set_text, text=text))
    services.wakeups.charges.ring()
    return DisplayAnswer(terminal_id=place.terminal_id, text=text.text)


async def _place(call: Call[Any, Any]) -> Place:
    """The terminal that the address names, if it is the caller's; else it is nobody's: 404."""
    found = await call.services.ledger.read(
        partial(charges.place, terminal_id=check_identifier("id", call.id))
    )
    user = call.bearer
    if found is None or not (user.is_operator or (user.is_merchant and found.user_id == user.id)):
        raise HttpError(404, "terminal_unknown", "Terminal not found")
    return found


async def _charge(call: Call[Any, Any]) -> Charge:
    place = await _place(call)
    charge_id = check_identifier("chargeId", call.request.match_info["chargeId"])
    found = await call.services.ledger.read(
        partial(charges.find, terminal_id=place.terminal_id, charge_id=charge_id)
    )
    if found is None:
        raise HttpError(404, "charge_unknown", "Charge not found")
    return found


async def _answered(call: Call[Any, Any], charge: Charge) -> Charge:
    """Ring, and wait a moment for the terminal's word."""
    services = call.services
    bell = services.wakeups.charges.listen()
    services.wakeups.charges.ring()

    def find(connection: Connection) -> Charge | None:
        return charges.find(connection, charge.terminal_id, charge.id)

    loop = asyncio.get_running_loop()
    until_s = loop.time() + ANSWERED_WITHIN_S
    while charge.status is ChargeStatus.WAITING and (left_s := until_s - loop.time()) > 0:
        await bell.wait(left_s * 1000)
        found = await services.ledger.read(find)
        charge = charge if found is None else found
    return charge


async def _body(call: Call[Any, Any], charge: Charge) -> ChargeBody:
    link = call.services.explorer_link
    body = partial(charge_body, charge=charge, explorer_link=link)
    return ChargeBody.model_validate(await call.services.ledger.read(body))


ROUTES: Final[tuple[Route[Any, Any] | Plain, ...]] = (
    Route(
        "POST",
        _PATH,
        "Ask a terminal to take an amount",
        make,
        ChargeMade,
        also=(ChargeAnswer,),  # it was asked for before
        scopes=_TILLS,
        body=ChargeOrder,
        headers=(IDEMPOTENCY_HEADER,),
        refusals={
            404: "There is no such terminal, or it is another merchant's.",
            409: "The terminal is busy or revoked, or the key was used for another charge.",
        },
    ),
    Route(
        "GET",
        _PATH + "/{chargeId}",
        "What became of a charge",
        show,
        ChargeAnswer,
        scopes=_TILLS,
        refusals={404: "There is no such terminal or charge, or it is another merchant's."},
    ),
    Route(
        "POST",
        _PATH + "/{chargeId}/cancel",
        "Take a charge back, if no tap came first",
        cancel,
        CancelAnswer,
        scopes=_TILLS,
        refusals={404: "There is no such terminal or charge, or it is another merchant's."},
    ),
    Route(
        "POST",
        "/api/terminals/{id}/display",
        "Set what a terminal shows while there is nothing to pay",
        display,
        DisplayAnswer,
        scopes=_TILLS,
        body=DisplayOrder,
        refusals={404: "There is no such terminal, or it is another merchant's."},
    ),
)

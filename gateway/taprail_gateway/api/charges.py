"""`/api/terminals/{id}/charges`: a till asks a terminal to take an amount, and may take it back.

What is asked is in the ledger before anybody is told; the push does the telling. The answer to a
new charge waits a moment for the terminal's word, so that a till usually learns at once whether a
card is asked for.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from sqlalchemy import Connection

from taprail_common.charge_wire import MAX_CHARGE_S, MAX_TEXT_CHARACTERS
from taprail_common.errors import InputError
from taprail_common.ids import check_identifier
from taprail_common.wire import AmountUnits, Identifier
from taprail_gateway.api.errors import HttpError
from taprail_gateway.api.messages import Answer, Request, Transaction, Written
from taprail_gateway.api.table import Call, Plain, Route
from taprail_gateway.charge_view import charge_body
from taprail_gateway.charges import Asked, Charge, ChargeStatus
from taprail_gateway.ledger import charges
from taprail_gateway.ledger.charges import Place, TerminalText
from taprail_gateway.tokens import Scope

IDEMPOTENCY_HEADER: Final = "Idempotency-Key"

ANSWERED_WITHIN_S: Final = 1.5
"""A terminal that is connected answers within a few round trips; nobody waits for one that is not,
it finds the charge when it connects."""

_TILLS: Final = frozenset({Scope.MERCHANT, Scope.OPERATOR})
_PATH: Final = "/api/terminals/{id}/charges"


def _printable(text: str) -> str:
    # Neither control characters nor marks that turn the writing direction.
    if not text.isprintable():
        raise ValueError("has characters that cannot be shown")
    return text


class ChargeOrder(Request):
    """What a till asks for."""

    amount: AmountUnits
    currency: Annotated[str, Field(pattern=r"^[A-Z0-9]{2,12}$")]
    reference: Annotated[Identifier, Field(description="The till's own name for the sale.")]
    deadline_seconds: Annotated[int, Field(ge=1, le=MAX_CHARGE_S)] = 60


class DisplayOrder(Request):
    """What a terminal is to show while there is nothing to pay."""

    text: Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS), AfterValidator(_printable)]


class ChargeBody(BaseModel):
    """A charge."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True
    )

    charge_id: str
    terminal_id: str
    merchant_id: str
    reference: str
    amount: int
    currency: str
    status: ChargeStatus
    reason_code: Annotated[str | None, Field(description="Why it came to no payment.")]
    transaction_id: str | None
    created_at: Written
    deadline: Written
    armed_at: Written | None
    ended_at: Written | None
    payment: Annotated[Transaction | None, Field(description="What it came to, as it is now.")]


class ChargeAnswer(Answer):
    """A charge as it is now."""

    charge: ChargeBody


class ChargeMade(ChargeAnswer):
    """A new charge."""

    http_status: ClassVar[int] = 201


class CancelAnswer(ChargeAnswer):
    """Who came first; only one of them does."""

    won: Annotated[
        Literal["cancel", "tap", "deadline", "terminal"],
        Field(description="`tap`: there was a verdict already; if approved, `charge.payment`."),
    ]


class DisplayAnswer(Answer):
    """What the terminal shows now, or as soon as it connects."""

    terminal_id: str
    text: str


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

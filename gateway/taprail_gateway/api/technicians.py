"""`/api/terminals/technicians` and `/changes`: whose key may change a terminal, and what was done.

A revoked terminal is answered as well: somebody has to be able to put it right, and what was done
to it belongs on record all the same.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from aiohttp import web

from taprail_common.api.base import Problem
from taprail_common.ids import check_identifier
from taprail_common.signing import Domain, sign
from taprail_common.technicians import (
    ABOUT_ROSTER,
    CHANGES_PATH,
    ROSTER_PATH,
    Changes,
    ChangesKept,
    Roster,
)
from taprail_common.wire import TERMINAL_HEADER
from taprail_gateway import technicians
from taprail_gateway.api.bodies import parse_body, read_body
from taprail_gateway.api.context import SERVICES
from taprail_gateway.api.errors import HttpError, unauthenticated
from taprail_gateway.api.identify import is_terminal, signed_body, signed_query
from taprail_gateway.api.signed import signed_answer
from taprail_gateway.api.table import Plain
from taprail_gateway.ledger.actions import By
from taprail_gateway.technicians import TooManyChangesError

_AN_HOUR_S: Final = 3600


async def roster(request: web.Request) -> web.Response:
    """GET /api/terminals/technicians: signed to be kept, so it says itself whose it is and when it
    was made; the terminal takes no older one."""
    services = request.app[SERVICES]
    query = await signed_query(request)
    found = await services.ledger.read(technicians.roster)
    told = Roster(
        gateway_id=services.gateway_id,
        terminal_id=query.terminal_id,
        issued_at=services.clock.now_ms(),
        technicians=found,
    )
    body = told.model_dump_json(by_alias=True).encode()
    return signed_answer(body, sign(services.key, Domain.COMMAND, body, about=ABOUT_ROSTER))


async def changes(request: web.Request) -> web.Response:
    """POST /api/terminals/changes: may be told again, and is kept once."""
    services = request.app[SERVICES]
    if not is_terminal(request):
        raise unauthenticated("signature_missing", "only a terminal may tell", TERMINAL_HEADER)
    check_identifier(TERMINAL_HEADER, request.headers[TERMINAL_HEADER])
    body = await read_body(request)
    terminal_id, _ = await signed_body(request, body, Domain.CHANGES)
    told = parse_body(Changes, body)
    by = By(f"terminal:{terminal_id}", services.clock.now_ms())
    work = partial(technicians.keep, terminal_id=terminal_id, told=told, by=by)
    try:
        up_to = await services.ledger.write(work)
    except TooManyChangesError as exc:
        later = {"Retry-After": str(_AN_HOUR_S)}
        raise HttpError(429, exc.code, exc.message, headers=later) from exc
    kept = ChangesKept(journal=told.journal, up_to=up_to).model_dump_json(by_alias=True).encode()
    return signed_answer(kept, sign(services.key, Domain.ANSWER, kept, about=body))


ROUTES: Final = (
    Plain(
        "GET",
        ROSTER_PATH,
        "Whose keys may change a terminal, signed to be kept",
        roster,
        {200: Roster},
        users=False,
    ),
    Plain(
        "POST",
        CHANGES_PATH,
        "Tell what technicians have changed at a terminal",
        changes,
        {200: ChangesKept, 429: Problem},
        bodies=(Changes,),
        users=False,
    ),
)

"""`POST /api/terminals/key`: a terminal announces the key that it goes over to."""

from __future__ import annotations

import json
from functools import partial
from typing import Final

from aiohttp import web

from taprail_common.api.base import Problem
from taprail_common.errors import InputError
from taprail_common.fleet_wire import KEY_PATH, KeyNoted, NextKey
from taprail_common.ids import check_identifier
from taprail_common.signing import Domain, sign
from taprail_common.wire import CLOCK_SKEW_MS, TERMINAL_HEADER, to_ms
from taprail_gateway import terminal_keys
from taprail_gateway.api.bodies import parse_body, read_body
from taprail_gateway.api.context import SERVICES
from taprail_gateway.api.errors import unauthenticated
from taprail_gateway.api.identify import is_terminal, signed_body
from taprail_gateway.api.signed import signed_answer
from taprail_gateway.api.table import Plain
from taprail_gateway.ledger.actions import By


async def announce(request: web.Request) -> web.Response:
    """POST /api/terminals/key."""
    services = request.app[SERVICES]
    if not is_terminal(request):
        raise unauthenticated("signature_missing", "only a terminal may ask", TERMINAL_HEADER)
    check_identifier(TERMINAL_HEADER, request.headers[TERMINAL_HEADER])
    body = await read_body(request)
    terminal_id, _ = await signed_body(request, body, Domain.NEXT_KEY)
    asked, now_ms = parse_body(NextKey, body), services.clock.now_ms()
    if asked.terminal_id != terminal_id:
        raise InputError("terminalId", "is not the one that signed")
    if abs(to_ms(asked.at) - now_ms) > CLOCK_SKEW_MS:
        raise InputError("at", "is not now")
    asked.check()
    by = By(f"terminal:{terminal_id}", now_ms)
    work = partial(
        terminal_keys.announce, terminal_id=terminal_id, public_key=asked.public_key, by=by
    )
    await services.ledger.write(work)
    services.directory.forget_terminal(terminal_id)
    told = json.dumps({"terminalId": terminal_id, "publicKey": asked.public_key}).encode()
    signature = sign(services.key, Domain.ANSWER, told, about=body)
    return signed_answer(told, signature)


ROUTES: Final = (
    Plain(
        "POST",
        KEY_PATH,
        "Announce the key that a terminal goes over to",
        announce,
        {200: KeyNoted, 409: Problem},
        bodies=(NextKey,),
        users=False,
    ),
)

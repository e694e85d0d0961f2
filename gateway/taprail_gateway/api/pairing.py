"""`POST /api/terminals/pair`: a device that knows a one-use code becomes a terminal.

Anybody may ask, as often as the limits allow for their address; whoever does not know a code learns
nothing here, not even whether there is one. The proof is checked against the hash of the code in
the ledger, so no secret travels; a whole code is taken too, for those who trust their line.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Final

from aiohttp import web

from taprail_common.api.base import Problem
from taprail_common.pairing import (
    PAIR_PATH,
    PROOF_HEADER,
    Code,
    PairAnswer,
    PairRequest,
    answer_proof,
    is_same,
    request_proof,
)
from taprail_common.signing import fingerprint, parse_public_key, public_key_text
from taprail_gateway import pairing
from taprail_gateway.api.bodies import parse_body, read_body
from taprail_gateway.api.context import SERVICES, SOCKETS, Services
from taprail_gateway.api.errors import HttpError
from taprail_gateway.api.rates import Kind
from taprail_gateway.api.table import Plain
from taprail_gateway.pairing import Open

_NAME: Final = 4


async def pair(request: web.Request) -> web.Response:
    """POST /api/terminals/pair."""
    services = request.app[SERVICES]
    services.rates.take(f"address:{request.remote}", Kind.PAIRING)
    asked = parse_body(PairRequest, await read_body(request))
    name = asked.code[:_NAME].upper() if asked.proof else Code.parse(asked.code).name
    now_ms = services.clock.now_ms()
    code = await services.ledger.write(partial(pairing.spend, name=name, now_ms=now_ms))
    if code is None:
        raise _refused()
    if not await _knows(asked, code):
        await services.ledger.write(partial(pairing.refuse, code=code, now_ms=now_ms))
        raise _refused()
    bind = partial(pairing.bind, code=code, public_key=asked.public_key, now_ms=now_ms)
    if not await services.ledger.write(bind):
        raise _refused()
    services.directory.forget_terminal(code.terminal_id)
    if SOCKETS in request.app:
        request.app[SOCKETS].shut_out(f"terminal:{code.terminal_id}", "paired anew")
    return _answer(services, asked, code)


async def _knows(asked: PairRequest, code: Open) -> bool:
    """Whether the device knows the code. To stretch a whole one costs memory, but no code may be
    tried more than five times."""
    if asked.proof is not None:
        return is_same(request_proof(code.proof_key, asked), asked.proof)
    given = await asyncio.to_thread(Code.parse(asked.code).key)
    return is_same(code.proof_key.hex(), given.hex())


def _answer(services: Services, asked: PairRequest, code: Open) -> web.Response:
    gateway_key = services.key.verify_key
    answer = PairAnswer(
        terminal_id=code.terminal_id,
        merchant_id=code.merchant_id,
        currency=services.rules.currency,
        decimals=services.rules.decimals,
        gateway_id=services.gateway_id,
        gateway_public_key=public_key_text(gateway_key),
        fingerprint=fingerprint(parse_public_key(asked.public_key)),
        gateway_fingerprint=fingerprint(gateway_key),
        tls_pins=services.tls_pins,
    )
    body = json.dumps(answer.model_dump(mode="json", by_alias=True)).encode()
    proof = answer_proof(code.proof_key, asked, body)
    return web.Response(body=body, headers={PROOF_HEADER: proof}, content_type="application/json")


def _refused() -> HttpError:
    return HttpError(
        403, "pairing_refused", "this code is not, or no longer, good: have a new one made"
    )


ROUTES: Final = (
    Plain(
        "POST",
        PAIR_PATH,
        "Pair a terminal by a one-use code",
        pair,
        {200: PairAnswer, 400: Problem, 403: Problem, 429: Problem},
        bodies=(PairRequest,),
        is_open=True,
    ),
)

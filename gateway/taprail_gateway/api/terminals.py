"""`/api/terminals`: what a terminal asks about itself."""

from __future__ import annotations

import json
from typing import Final

from aiohttp import web
from sqlalchemy import bindparam, select

from taprail_common.clock import rfc3339
from taprail_common.signing import Domain, sign
from taprail_common.wire import SIGNATURE_HEADER
from taprail_gateway.api.context import SERVICES
from taprail_gateway.api.identify import signed_query
from taprail_gateway.ledger import schema

_t, _m = schema.terminals.c, schema.merchants.c
_TERMINAL: Final = (
    select(_t.status, _t.merchant_id, _m.name)
    .join_from(schema.terminals, schema.merchants, _t.merchant_id == _m.id)
    .where(_t.id == bindparam("terminal_id"))
)


async def hello(request: web.Request) -> web.Response:
    """GET /api/terminals/hello: proves to a terminal that this is its gateway and says who it is
    here. A revoked terminal is told so."""
    services = request.app[SERVICES]
    query = await signed_query(request)
    status, merchant_id, merchant_name = await services.ledger.read(
        lambda connection: connection.execute(_TERMINAL, {"terminal_id": query.terminal_id}).one()
    )
    answer = {
        "gatewayId": services.gateway_id,
        "gatewayTime": rfc3339(services.clock.now_ms()),
        "terminalId": query.terminal_id,
        "status": status,
        "merchantId": merchant_id,
        "merchantName": merchant_name,
        "currency": services.rules.currency,
        "decimals": services.rules.decimals,
    }
    body = json.dumps(answer).encode()
    signature = sign(services.key, Domain.ANSWER, body, about=query.signed)
    return web.Response(
        body=body, headers={SIGNATURE_HEADER: signature}, content_type="application/json"
    )

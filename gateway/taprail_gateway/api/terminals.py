"""`/api/terminals`: what a terminal asks about itself."""

from __future__ import annotations

import json
from typing import Final

from aiohttp import web
from sqlalchemy import Connection, bindparam, select

from taprail_common.api.base import Problem
from taprail_common.api.gateway import Hello
from taprail_common.clock import rfc3339
from taprail_common.eip3009 import TokenDomain
from taprail_common.offline_wire import POLICY_PATH, OfflinePolicy
from taprail_common.signing import Domain, sign
from taprail_common.technicians import revision as roster_revision
from taprail_common.wire import SigningTerms
from taprail_gateway import technicians, verdict_keys
from taprail_gateway.api.context import SERVICES
from taprail_gateway.api.errors import not_found
from taprail_gateway.api.identify import signed_query
from taprail_gateway.api.signed import signed_answer
from taprail_gateway.api.table import Plain
from taprail_gateway.ledger import offline, schema
from taprail_gateway.offline_policy import Seller, Terms, issue, revision

_t, _m = schema.terminals.c, schema.merchants.c
_TERMINAL: Final = (
    select(schema.terminal_status, _t.merchant_id, _m.name, _m.account)
    .join_from(schema.terminals, schema.merchants, _t.merchant_id == _m.id)
    .where(_t.id == bindparam("terminal_id"))
)


async def hello(request: web.Request) -> web.Response:
    """GET /api/terminals/hello: proves to a terminal that this is its gateway and says who it is
    here, with the terms that cards sign under. A revoked terminal is told so."""
    services = request.app[SERVICES]
    query = await signed_query(request)
    now_ms = services.clock.now_ms()
    (status, merchant_id, merchant_name, payee), held = await services.ledger.read(
        lambda connection: (
            connection.execute(_TERMINAL, {"terminal_id": query.terminal_id}).one(),
            _offline(connection, query.terminal_id, now_ms),
        )
    )
    answer = {
        "gatewayId": services.gateway_id,
        "gatewayTime": rfc3339(now_ms),
        "terminalId": query.terminal_id,
        "status": status,
        "merchantId": merchant_id,
        "merchantName": merchant_name,
        "currency": services.rules.currency,
        "decimals": services.rules.decimals,
        "pinAboveUnits": services.pins.ask_above_units,
        "signing": _signing_terms(services.token_domain, payee).model_dump(by_alias=True),
        "offlineRevision": None if held is None else revision(*held),
    }
    told, people = await services.ledger.read(
        lambda connection: (
            verdict_keys.told_to_terminals(connection),
            technicians.roster(connection),
        )
    )
    answer["techniciansRevision"] = roster_revision(people)
    answer["tlsPins"] = list(services.tls_pins)
    answer["successions"] = [each.model_dump() for each in told]
    body = json.dumps(answer).encode()
    signature = sign(services.key, Domain.ANSWER, body, about=query.signed)
    return signed_answer(body, signature)


async def offline_policy(request: web.Request) -> web.Response:
    """GET /api/terminals/offline-policy: what a terminal may take without asking, signed to be
    kept; the signature is no answer to this question, so it says itself when it was made."""
    services = request.app[SERVICES]
    query = await signed_query(request)
    now_ms = services.clock.now_ms()
    (status, merchant_id, _, payee), found = await services.ledger.read(
        lambda connection: (
            connection.execute(_TERMINAL, {"terminal_id": query.terminal_id}).one(),
            _offline(connection, query.terminal_id, now_ms),
        )
    )
    seller = Seller(
        query.terminal_id,
        merchant_id,
        services.rules.currency,
        _signing_terms(services.token_domain, payee),
        services.pins.ask_above_units,
    )
    policy = None if found is None or status != "active" else issue(seller, *found, now_ms)
    if policy is None:
        raise not_found("this terminal may take nothing offline")
    body = policy.to_json()
    signature = sign(services.key, Domain.OFFLINE_POLICY, body)
    return signed_answer(body, signature)


def _offline(
    connection: Connection, terminal_id: str, now_ms: int
) -> tuple[Terms, list[str]] | None:
    """The policy that holds and the accounts of frozen cards; None without one, or when there are
    more of these than it can name."""
    terms = offline.policy(connection, terminal_id)
    frozen = None if terms is None else offline.frozen_accounts(connection, now_ms)
    return None if terms is None or frozen is None else (terms, frozen)


def _signing_terms(token: TokenDomain, payee: str) -> SigningTerms:
    """What the terminal must know before the tap of a card that signs."""
    return SigningTerms(
        chain_id=token.chain_id,
        token=token.address,
        token_name=token.name,
        token_version=token.version,
        payee=payee,
    )


ROUTES: Final = (
    Plain(
        "GET",
        "/api/terminals/hello",
        "Who a terminal is here, and the gateway's proof that it is its gateway",
        hello,
        {200: Hello},
        users=False,
    ),
    Plain(
        "GET",
        POLICY_PATH,
        "What a terminal may take without asking, signed to be kept",
        offline_policy,
        {200: OfflinePolicy, 404: Problem},
        users=False,
    ),
)

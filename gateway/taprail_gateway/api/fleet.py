"""`/api/terminals/…`: what terminals tell of themselves, and how an operator asks one.

A heartbeat is kept in memory and written later, with others. All that a terminal says is signed by
its key, and so is each answer, about what was said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from aiohttp import web

from taprail_common.api.base import Answer, Empty, Problem, Told
from taprail_common.api.fleet import DiagnosisAnswer
from taprail_common.errors import InputError
from taprail_common.fleet_wire import (
    DIAGNOSIS_PATH,
    HEARTBEAT_PATH,
    DiagnosisNoted,
    DiagnosisReport,
    Heartbeat,
    HeartbeatNoted,
)
from taprail_common.ids import check_identifier
from taprail_common.signing import Domain, sign
from taprail_common.terminal_settings import CONFIG_PATH, ConfigNoted, ConfigReport, PushedConfig
from taprail_common.wire import CLOCK_SKEW_MS, TERMINAL_HEADER, to_ms
from taprail_gateway.api.bodies import parse_body, read_body
from taprail_gateway.api.context import SERVICES, Services
from taprail_gateway.api.errors import HttpError, not_found, unauthenticated
from taprail_gateway.api.identify import is_terminal, signed_body, signed_query
from taprail_gateway.api.signed import signed_answer
from taprail_gateway.api.table import OPERATORS, Call, Plain, Route
from taprail_gateway.diagnosis import WORDS, Stage, stage
from taprail_gateway.fleet_view import diagnosis_body, health_body
from taprail_gateway.heartbeats import Beat
from taprail_gateway.ledger import fleet
from taprail_gateway.ledger.directory_list import Row
from taprail_gateway.ledger.fleet import Diagnosis, DiagnosisRunsError

_LOOK_EVERY_MS: Final = 500
"""A report may come to another gateway, whose bell is not heard here."""

_STATUSES: Final = {Stage.AWAY: 409, Stage.LATE: 504}

S = TypeVar("S", Heartbeat, ConfigReport, DiagnosisReport)


async def heartbeat(request: web.Request) -> web.Response:
    """POST /api/terminals/heartbeat."""
    services = request.app[SERVICES]
    said, body, _ = await _said(request, Heartbeat, Domain.HEARTBEAT)
    read = partial(fleet.standing, terminal_id=said.terminal_id)
    status, wanted_version = await services.ledger.read(read)
    if status != "active":
        raise HttpError(403, "terminal_revoked", "this terminal was revoked")
    values = said.model_dump(exclude={"at"})
    services.heartbeats.hear(Beat(**values, heard_at_ms=services.clock.now_ms()))
    told = HeartbeatNoted(terminal_id=said.terminal_id, config_version=wanted_version)
    return _answer(services, told, body)


async def wanted_config(request: web.Request) -> web.Response:
    """GET /api/terminals/config: signed to be carried out by this terminal; that it is the newest
    is what the answer to its heartbeat has told."""
    services = request.app[SERVICES]
    query = await signed_query(request)
    wanted = await services.ledger.read(partial(fleet.wanted, terminal_id=query.terminal_id))
    if wanted is None:
        raise not_found("nothing is wanted of this terminal's settings")
    body = PushedConfig(
        terminal_id=query.terminal_id,
        version=wanted.version,
        settings=wanted.settings,
        set_at=wanted.set_at_ms,
    ).to_json()
    signature = sign(services.key, Domain.CONFIG, body)
    return signed_answer(body, signature)


async def config_report(request: web.Request) -> web.Response:
    """POST /api/terminals/config: what a terminal made of it, and what runs."""
    services = request.app[SERVICES]
    said, body, _ = await _said(request, ConfigReport, Domain.CONFIG_REPORT)
    keep = partial(fleet.report, said=said, now_ms=services.clock.now_ms())
    await services.ledger.write(keep)
    told = ConfigNoted(terminal_id=said.terminal_id, version=said.version)
    return _answer(services, told, body)


async def diagnosis_report(request: web.Request) -> web.Response:
    """POST /api/terminals/diagnosis: what a terminal has found, kept as it was signed."""
    services = request.app[SERVICES]
    said, body, signature = await _said(request, DiagnosisReport, Domain.DIAGNOSIS)
    keep = partial(
        fleet.answer,
        terminal_id=said.terminal_id,
        diagnosis_id=said.diagnosis_id,
        body=body.decode(),
        signature=signature,
        now_ms=services.clock.now_ms(),
    )
    if not await services.ledger.write(keep):
        raise HttpError(409, "not_asked", "this is not the diagnosis that was asked for")
    services.wakeups.fleet.ring()
    told = DiagnosisNoted(terminal_id=said.terminal_id, diagnosis_id=said.diagnosis_id)
    return _answer(services, told, body)


async def diagnose(call: Call[Empty, Empty]) -> Answer:
    """GET /api/terminals/{id}/diagnosis: have the terminal look at itself, now."""
    services, terminal_id = call.services, check_identifier("id", call.id)
    bell = services.wakeups.fleet.listen()
    try:
        asked = await services.ledger.write(
            partial(fleet.ask, terminal_id=terminal_id, by=call.by())
        )
    except DiagnosisRunsError as exc:
        raise HttpError(409, exc.code, exc.message) from exc
    services.wakeups.fleet.ring()
    found = asked
    while (at := stage(found, services.clock.now_ms())) is Stage.WAITING:
        await bell.wait(_LOOK_EVERY_MS)
        found = await _look(services, asked)
    if at is not Stage.ANSWERED:
        now_ms = services.clock.now_ms()
        await services.ledger.write(partial(fleet.give_up, asked=asked, now_ms=now_ms))
        raise HttpError(_STATUSES[at], at.value, WORDS[at])
    return diagnosis_body(found)


async def with_health(services: Services, rows: Sequence[Row]) -> list[Row]:
    """Terminals, and how each is: what this gateway has heard, or what was written of it."""
    ids = [row["id"] for row in rows]
    found = await services.ledger.read(partial(fleet.health_of, terminal_ids=ids))
    now_ms = services.clock.now_ms()
    told: list[Row] = []
    for row in rows:
        health, heard = found[row["id"]], services.heartbeats.last(row["id"])
        written_ms = 0 if health.beat is None else health.beat.heard_at_ms
        if heard is not None and heard.heard_at_ms > written_ms:
            health = replace(health, beat=heard)
        told.append({**row, "health": health_body(health, now_ms)})
    return told


async def _look(services: Services, asked: Diagnosis) -> Diagnosis:
    """How the diagnosis is now; as it was when somebody's next one has taken its place."""
    found = await services.ledger.read(partial(fleet.diagnosis_of, terminal_id=asked.terminal_id))
    return found if found is not None and found.id == asked.id else asked


async def _said(request: web.Request, model: type[S], domain: Domain) -> tuple[S, bytes, str]:
    """What a terminal says of itself, freshly; its bytes, and the signature."""
    if not is_terminal(request):
        raise unauthenticated("signature_missing", "only a terminal may ask", TERMINAL_HEADER)
    check_identifier(TERMINAL_HEADER, request.headers[TERMINAL_HEADER])
    body = await read_body(request)
    terminal_id, signature = await signed_body(request, body, domain)
    said = parse_body(model, body)
    if said.terminal_id != terminal_id:
        raise InputError("terminalId", "is not the one that signed")
    if abs(to_ms(said.at) - request.app[SERVICES].clock.now_ms()) > CLOCK_SKEW_MS:
        raise InputError("at", "is not now")
    return said, body, signature


def _answer(services: Services, told: Told, about: bytes) -> web.Response:
    body = told.model_dump_json(by_alias=True).encode()
    signature = sign(services.key, Domain.ANSWER, body, about=about)
    return signed_answer(body, signature)


ROUTES: Final[tuple[Route[Any, Any] | Plain, ...]] = (
    Plain(
        "POST",
        HEARTBEAT_PATH,
        "Tell how a terminal is; the answer says which configuration is wanted",
        heartbeat,
        {200: HeartbeatNoted},
        bodies=(Heartbeat,),
        users=False,
    ),
    Plain(
        "GET",
        CONFIG_PATH,
        "What is wanted of a terminal's settings, signed to be carried out",
        wanted_config,
        {200: PushedConfig, 404: Problem},
        users=False,
    ),
    Plain(
        "POST",
        CONFIG_PATH,
        "Tell what a terminal made of it",
        config_report,
        {200: ConfigNoted},
        bodies=(ConfigReport,),
        users=False,
    ),
    Plain(
        "POST",
        DIAGNOSIS_PATH,
        "Tell what a terminal has found when it was asked",
        diagnosis_report,
        {200: DiagnosisNoted, 409: Problem},
        bodies=(DiagnosisReport,),
        users=False,
    ),
    Route(
        "GET",
        "/api/terminals/{id}/diagnosis",
        "Have a terminal look at all of its parts, now",
        diagnose,
        DiagnosisAnswer,
        scopes=OPERATORS,
        refusals={
            404: "There is no such terminal.",
            409: "It is away (`terminal_offline`), asked already (`terminal_busy`) or revoked.",
            504: "It has not answered within half a minute (`timed_out`).",
        },
    ),
)

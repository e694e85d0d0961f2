"""The fleet over HTTP and push, against a real gateway: heartbeats, settings, diagnoses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey
from pydantic import BaseModel

from taprail_common.errors import LinkError
from taprail_common.fleet_wire import (
    DIAGNOSE_EVENT,
    DIAGNOSIS_PATH,
    HEARTBEAT_PATH,
    DiagnosisCheck,
    DiagnosisReport,
    Heartbeat,
    HeartbeatNoted,
)
from taprail_common.signing import Domain, verify
from taprail_common.terminal_settings import (
    CONFIG_EVENT,
    CONFIG_PATH,
    ConfigReport,
    PushedConfig,
)
from taprail_common.wire import from_ms
from taprail_gateway import registry
from taprail_gateway.heartbeats import SILENT_AFTER_MS
from taprail_gateway.ledger import fleet, schema_fleet
from taprail_gateway.ledger.actions import By
from taprail_terminal.gateway_link import Expected, GatewayLink
from taprail_terminal.identity import Identity
from tests.support.charge_till import Counter
from tests.support.gateway_fixtures import MERCHANT, TERMINAL, TestGateway, running_gateway
from tests.support.office_desk import Desk
from tests.support.push_clients import connected, eventually, terminal_auth

PATH = f"/api/terminals/{TERMINAL}"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


@asynccontextmanager
async def linked(gateway: TestGateway) -> AsyncIterator[GatewayLink]:
    link = GatewayLink(
        Expected(gateway.url, gateway.public_key, MERCHANT, "TUSD", 6),
        Identity(TERMINAL, gateway.terminal_key),
        gateway.clock,
    )
    await link.open()
    yield link
    await link.close()


def beat(gateway: TestGateway, **changes: Any) -> Heartbeat:
    given = {
        "terminal_id": TERMINAL,
        "at": from_ms(gateway.now_ms()),
        "version": "0.1.0",
        "phase": "idle",
        "reader_ok": True,
        "reader": "PN532 1.6",
        "unresolved": 1,
        "unsettled": 2,
        "uptime_s": 5,
        "config_version": 0,
    }
    return Heartbeat.model_validate({**given, **changes})


def bytes_of(message: BaseModel) -> bytes:
    return message.model_dump_json(by_alias=True).encode()


def want(gateway: TestGateway, **changes: Any) -> int:
    by = By("cli:olga", gateway.now_ms())
    settings = {name.replace("__", "."): value for name, value in changes.items()}
    work = partial(fleet.want, terminal_id=TERMINAL, changes=settings, by=by)
    return gateway.ledger.write_now(work).version


async def health(gateway: TestGateway, user: str = "olga") -> Any:
    return (await Desk(gateway, user).get(PATH))["terminal"]["health"]


async def test_a_heartbeat_is_shown_at_once_written_soon_and_silence_is_seen(
    gateway: TestGateway,
) -> None:
    olga = Desk(gateway, "olga")  # whose token is of now
    never = await health(gateway)
    assert (never["lastHeardAt"], never["isSilent"], never["config"]["state"]) == (
        None,
        True,
        "none",
    )
    async with linked(gateway) as link:
        said = bytes_of(beat(gateway))
        noted = await link.tell(HEARTBEAT_PATH, said, Domain.HEARTBEAT)
        assert json.loads(noted) == {"terminalId": TERMINAL, "configVersion": 0}
        shown = await health(gateway, "bob")
        assert (shown["isSilent"], shown["unconfirmed"], shown["readerOk"]) == (False, 3, True)
        await eventually(lambda: gateway.rows(schema_fleet.terminal_beats) == 1)
        gateway.services.wakeups.fleet.ring()
        await link.tell(HEARTBEAT_PATH, bytes_of(beat(gateway, uptime_s=9)), Domain.HEARTBEAT)
        assert gateway.services.heartbeats.due() == []  # nothing new: not worth a write
        # Another gateway, or a command, knows of it what was written.
        stored = gateway.ledger.read_now(partial(fleet.health_of, terminal_ids=[TERMINAL]))
        written = stored[TERMINAL].beat
        assert written is not None
        assert written.uptime_s == 5
        gateway.clock.ahead_ms = SILENT_AFTER_MS + 1_000
        [listed] = (await olga.get("/api/terminals"))["terminals"]
        assert listed["health"]["isSilent"] is True
        gateway.ledger.write_now(lambda db: registry.revoke_terminal(db, TERMINAL))
        with pytest.raises(LinkError, match="403"):
            await link.tell(HEARTBEAT_PATH, bytes_of(beat(gateway)), Domain.HEARTBEAT)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"terminal_id": "till-9"}, "terminalId"),
        ({"at": from_ms(1_700_000_000_000)}, "at"),
    ],
)
async def test_nobody_speaks_for_another_terminal_or_of_another_time(
    gateway: TestGateway, changes: dict[str, Any], field: str
) -> None:
    body = bytes_of(beat(gateway, **changes))
    identity = Identity(TERMINAL, gateway.terminal_key)
    headers = identity.request_headers(identity.sign_body(Domain.HEARTBEAT, body))
    async with gateway.http.post(HEARTBEAT_PATH, data=body, headers=headers) as response:
        assert (response.status, (await response.json())["field"]) == (400, field)
    forged = Identity(TERMINAL, SigningKey.generate())
    headers = forged.request_headers(forged.sign_body(Domain.HEARTBEAT, body))
    async with gateway.http.post(HEARTBEAT_PATH, data=body, headers=headers) as response:
        assert response.status == 401
    assert gateway.services.heartbeats.due() == []


async def test_a_terminal_is_called_for_its_settings_fetches_and_reports_them(
    gateway: TestGateway,
) -> None:
    async with linked(gateway) as link, connected(gateway, terminal_auth(gateway)) as heard:
        with pytest.raises(LinkError, match="404"):
            await link.fetch(CONFIG_PATH)
        counter = Counter(heard, gateway)
        assert want(gateway, reader__port="/dev/ttyUSB1") == 1
        gateway.services.wakeups.fleet.ring()
        assert (await counter.next(CONFIG_EVENT))["version"] == 1
        noted = await link.tell(HEARTBEAT_PATH, bytes_of(beat(gateway)), Domain.HEARTBEAT)
        assert HeartbeatNoted.model_validate_json(noted).config_version == 1
        evidence = await link.fetch(CONFIG_PATH)
        verify(gateway.public_key, Domain.CONFIG, evidence.body, evidence.signature)
        pushed = PushedConfig.model_validate_json(evidence.body)
        assert (pushed.terminal_id, pushed.settings) == (
            TERMINAL,
            {"reader.port": "/dev/ttyUSB1"},
        )
        assert (await health(gateway))["config"]["state"] == "waiting"
        report = ConfigReport(
            terminal_id=TERMINAL,
            at=from_ms(gateway.now_ms()),
            version=1,
            outcome="refused",
            reason="no such port",
            applied_version=0,
            settings={"reader.port": "/dev/serial0"},
        )
        await link.tell(CONFIG_PATH, bytes_of(report), Domain.CONFIG_REPORT)
    config = (await health(gateway))["config"]
    assert config == {
        "wantedVersion": 1,
        "appliedVersion": 0,
        "state": "refused",
        "reason": "no such port",
    }


def found(gateway: TestGateway, diagnosis_id: str) -> bytes:
    check = DiagnosisCheck(name="reader", ok=False, detail="silent", what_to_do="wires", ms=7)
    return bytes_of(
        DiagnosisReport(
            terminal_id=TERMINAL,
            diagnosis_id=diagnosis_id,
            at=from_ms(gateway.now_ms()),
            version="0.1.0",
            checks=(check,),
        )
    )


async def test_an_operator_asks_and_the_terminal_answers(gateway: TestGateway) -> None:
    olga = Desk(gateway, "olga")
    assert (await Desk(gateway, "bob")("GET", f"{PATH}/diagnosis"))[0] == 403
    assert (await olga("GET", "/api/terminals/till-9/diagnosis"))[0] == 404
    async with linked(gateway) as link, connected(gateway, terminal_auth(gateway)) as heard:
        asking = asyncio.create_task(olga("GET", f"{PATH}/diagnosis"))
        asked = await Counter(heard, gateway).next(DIAGNOSE_EVENT)
        status, body = await olga("GET", f"{PATH}/diagnosis")
        assert (status, body["reasonCode"]) == (409, "terminal_busy")
        with pytest.raises(LinkError, match="409"):
            await link.tell(DIAGNOSIS_PATH, found(gateway, "diag_other"), Domain.DIAGNOSIS)
        report = found(gateway, asked["diagnosisId"])
        await link.tell(DIAGNOSIS_PATH, report, Domain.DIAGNOSIS)
        status, answer = await asking
    assert status == 200
    assert (answer["terminalId"], answer["ok"]) == (TERMINAL, False)
    assert answer["checks"] == [
        {"name": "reader", "ok": False, "detail": "silent", "whatToDo": "wires", "ms": 7}
    ]


async def test_a_terminal_that_is_away_and_one_that_is_late_are_told_apart(
    gateway: TestGateway,
) -> None:
    olga = Desk(gateway, "olga")

    async def asks_until(ahead_ms: int, told: bool) -> tuple[int, Any]:
        asking = asyncio.create_task(olga("GET", f"{PATH}/diagnosis"))
        await eventually(lambda: _is_open(gateway, told=told))
        gateway.clock.ahead_ms += ahead_ms
        return await asking

    status, body = await asks_until(5_000, told=False)
    assert (status, body["reasonCode"]) == (409, "terminal_offline")
    async with connected(gateway, terminal_auth(gateway)) as heard:
        status, body = await asks_until(30_000, told=True)
        assert (status, body["reasonCode"]) == (504, "timed_out")
        late = await Counter(heard, gateway).next(DIAGNOSE_EVENT)
    async with linked(gateway) as link:  # what comes late is kept, for `terminal show`
        await link.tell(DIAGNOSIS_PATH, found(gateway, late["diagnosisId"]), Domain.DIAGNOSIS)


def _is_open(gateway: TestGateway, *, told: bool) -> bool:
    asked = gateway.ledger.read_now(partial(fleet.diagnosis_of, terminal_id=TERMINAL))
    if asked is None or asked.deadline_ms <= gateway.now_ms():
        return False
    return not told or asked.told_at_ms is not None

"""The agent as a process before a real gateway: over TLS from its pairing on, changed from afar,
and looked at from afar."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from taprail_common.pairing import Code
from taprail_common.signing import fingerprint
from taprail_gateway import pairing as codes
from taprail_gateway.admin import app as admin_app
from taprail_gateway.ledger import fleet
from taprail_gateway.ledger.actions import By
from taprail_gateway.pairing import Wanted
from taprail_gateway.tls import pin_of
from taprail_hwsim.pn532 import Pn532Simulator
from taprail_terminal.cli import app as terminal_app
from taprail_terminal.config import load_config
from taprail_terminal.console.selftest import CHECK_NAMES
from taprail_terminal.identity import Identity
from taprail_terminal.tls_known import known_pins
from tests.support.gateway_fixtures import TERMINAL, TestGateway, running_gateway
from tests.support.office_desk import Desk
from tests.support.push_clients import eventually
from tests.support.terminal_fixtures import AgentProcess, agent
from tests.support.tls_fixtures import make, shown

CODE = Code.parse("K7QF-4MX9-FT2W")

_TOML = """
[terminal]
state_dir = "state"
gateway_url = "{url}"
mode = "fixed"
fixed_amount = "2.50"
[reader]
port = "{port}"
[lights]
driver = "none"
[display]
driver = "none"
"""


@pytest.fixture
def reader() -> Iterator[Pn532Simulator]:
    with Pn532Simulator() as simulator:
        yield simulator


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


async def typed(*arguments: str) -> Any:
    """What `taprail terminal … --json` answers."""
    done = await asyncio.to_thread(CliRunner().invoke, terminal_app, [*arguments, "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


async def paired(gateway: TestGateway, url: str, port: str, folder: Path) -> Path:
    """A terminal's configuration, after its pairing by the command that a person types."""
    by, key = By("cli:olga", gateway.now_ms()), CODE.key()
    gateway.ledger.write_now(lambda db: codes.offer(db, CODE, key, Wanted(TERMINAL), by))
    file = folder / "terminal.toml"
    file.write_text(_TOML.format(url=url, port=port))
    answer = await typed("pair", "--config", str(file), "k7qf 4mx9 ft2w")
    device = Identity.load(TERMINAL, folder / "state" / "device.key")
    shown_there = fingerprint(gateway.public_key)
    assert (answer["fingerprint"], answer["gatewayFingerprint"]) == (
        device.fingerprint,
        shown_there,
    )
    return file


async def sells(running: AgentProcess, reader: Pn532Simulator, gateway: TestGateway) -> None:
    await running.until_status(lambda status: bool(status["armed"]))
    uid = f"04AABBCCDDEE{gateway.now_ms() % 256:02X}"
    reader.put(gateway.card(uid=uid).chip)
    await running.watcher.until("verdict", outcome="approved")
    reader.lift()
    await running.watcher.until("card_removed")


async def connected(gateway: TestGateway) -> None:
    await eventually(lambda: TERMINAL in gateway.push._present.terminals())


async def test_an_agent_pairs_sells_and_follows_a_new_certificate_over_tls(
    gateway: TestGateway, reader: Pn532Simulator, tmp_path: Path
) -> None:
    files = [str(tmp_path / name) for name in ("now.pem", "now.key")]
    made = CliRunner().invoke(admin_app, ["tls", "make", *files, "--json"])
    now, then = json.loads(made.stdout)["pin"], make(tmp_path, "then")
    assert now == pin_of(tmp_path / "now.pem")
    async with shown(gateway, tmp_path, "now", (now, then)) as url:
        config = await paired(gateway, url, reader.path, tmp_path)
        port = int(url.rpartition(":")[2])
        state = load_config(config).terminal.state_dir
        assert known_pins(state) == (now, then)
        async with agent(config) as running:
            await connected(gateway)  # its socket, by the same certificate
            await sells(running, reader, gateway)
    async with shown(gateway, tmp_path, "then", (then,), port), agent(config) as running:
        await connected(gateway)
        await sells(running, reader, gateway)
        await eventually(lambda: known_pins(state) == (then,))


def health(gateway: TestGateway) -> fleet.Health:
    return gateway.ledger.read_now(partial(fleet.health_of, terminal_ids=[TERMINAL]))[TERMINAL]


async def test_an_agent_is_changed_and_looked_at_from_afar(
    gateway: TestGateway, reader: Pn532Simulator, tmp_path: Path
) -> None:
    config = await paired(gateway, gateway.url, reader.path, tmp_path)
    async with agent(config) as running:
        await connected(gateway)
        await running.until_status(lambda status: bool(status["armed"]))
        status, answer = await Desk(gateway, "olga")("GET", f"/api/terminals/{TERMINAL}/diagnosis")
        assert status == 200, answer
        checks = {each["name"]: each for each in answer["checks"]}
        assert tuple(checks) == CHECK_NAMES
        assert checks["reader"]["ok"], checks
        assert checks["gateway"]["ok"], checks
        by = By("cli:olga", gateway.now_ms())
        changes = {"terminal.fixed_amount": "4.00", "log.level": "warning"}
        gateway.ledger.write_now(partial(fleet.want, terminal_id=TERMINAL, changes=changes, by=by))
        # It is called by its socket, starts anew with it, and reports by itself.
        await eventually(lambda: _is_applied(gateway))
        assert load_config(config).fixed_units == 4_000_000
    beat = health(gateway).beat
    assert beat is not None
    assert beat.reader_ok


def _is_applied(gateway: TestGateway) -> bool:
    reported = health(gateway).reported
    return reported is not None and (reported.version, reported.outcome) == (1, "applied")

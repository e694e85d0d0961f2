"""A device that is nobody's terminal yet: paired over its console, forgotten by a factory reset,
and paired again, by the agent's own process with nothing but its cable."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from taprail_common.errors import ConfigError
from taprail_common.pairing import Code
from taprail_common.signing import public_key_text
from taprail_gateway import pairing as codes
from taprail_gateway import technicians
from taprail_gateway.ledger.actions import By
from taprail_gateway.pairing import Wanted
from taprail_hwsim.pn532 import Pn532Simulator
from taprail_terminal.console.unpaired import configured
from tests.support.console_client import ConsoleClient
from tests.support.gateway_fixtures import MERCHANT, TestGateway, running_gateway
from tests.support.terminal_fixtures import EVENT_LIMIT_S, TAPRAIL

CODE = Code.parse("K7QF-4MX9-FT2W")
KEY = CODE.key()
TECHNICIAN = SigningKey.generate()

FORGOTTEN = {
    *("outbox.db", "device.json", "paired.json", "technicians.json"),
    *("gateway.json", "tls_pins.json", "factory-reset"),
}

TOML = """
[terminal]
state_dir = "state"
gateway_url = "{url}"

[reader]
port = "{port}"

[lights]
driver = "none"

[display]
driver = "none"
"""


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


def prepare(gateway: TestGateway, terminal_id: str) -> None:
    """What an operator does beforehand: a code for the terminal, and a key for the technician."""
    by, wanted = By("cli:olga", gateway.now_ms()), Wanted(terminal_id, MERCHANT)
    public = public_key_text(TECHNICIAN.verify_key)
    gateway.ledger.write_now(lambda db: codes.offer(db, CODE, KEY, wanted, by))
    gateway.ledger.write_now(lambda db: technicians.issue(db, "ana", public, by))


async def said(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), EVENT_LIMIT_S * 2)
    return line.decode()


async def test_a_device_is_paired_over_its_console_reset_and_paired_again(
    gateway: TestGateway, tmp_path: Path
) -> None:
    prepare(gateway, "till-9")
    state, socket = tmp_path / "state", tmp_path / "state" / "console.sock"
    config = tmp_path / "terminal.toml"
    with Pn532Simulator() as reader:
        config.write_text(TOML.format(url=gateway.url, port=reader.path))
        process = await asyncio.create_subprocess_exec(
            *(TAPRAIL, "terminal", "run", "--config", str(config)),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ},
        )
        try:
            assert "unpaired" in await said(process)
            client = await ConsoleClient.open_patiently(socket)
            assert "not paired" in (await client.ask("status"))["text"]
            assert "not paired" in (await client.ask("queue list"))["text"]
            assert "must be 12 letters" in (await client.ask("pair", "no"))["text"]
            paired = await client.ask("pair", CODE.text)
            assert paired["data"]["terminalId"] == "till-9", paired
            client.close()

            assert '"ready"' in await said(process)
            key = (state / "device.key").read_bytes()
            client = await ConsoleClient.open_patiently(socket)
            fingerprint = await client.ask("key fingerprint")
            assert fingerprint["data"]["fingerprint"] == paired["data"]["fingerprint"]
            first = await client.give(TECHNICIAN, "factory-reset")
            assert first["exitCode"] == 0, first
            code = first["data"]["code"]
            assert (await client.give(TECHNICIAN, "factory-reset", code))["exitCode"] == 0

            assert "unpaired" in await said(process)
            left = {path.name for path in state.iterdir()}
            assert {"device.key", "journal.db"} <= left
            assert not left & FORGOTTEN
            assert (state / "device.key").read_bytes() != key
        finally:
            process.terminate()
            await process.wait()


@pytest.mark.parametrize(
    "more",
    ['id = "till-1"', 'idd = "till-1"', 'merchant_id = "cafe"\ncurrency = "USDC"', "decimals = 9"],
)
def test_a_configuration_that_is_wrong_is_no_device_that_waits(tmp_path: Path, more: str) -> None:
    config = tmp_path / "terminal.toml"
    config.write_text(f'[terminal]\nstate_dir = "state"\ngateway_url = "http://x"\n{more}\n')
    with pytest.raises(ConfigError):
        configured(config, {})
    config.write_text('[terminal]\nstate_dir = "state"\ngateway_url = "http://x"\n')
    assert configured(config, {})[1] is False

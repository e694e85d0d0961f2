"""The gateway as a program on a real chain: it starts, settles a tap, tells it, and stops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from nacl.signing import SigningKey
from typer.testing import CliRunner

from taprail_common.clock import SystemClock, rfc3339
from taprail_common.ids import new_id
from taprail_common.signing import Domain, public_key_text, sign
from taprail_common.wire import SIGNATURE_HEADER, TERMINAL_HEADER, TIMESTAMP_HEADER
from taprail_gateway.admin import app
from taprail_hwsim.anvil import AnvilOptions
from taprail_hwsim.cards.ntag424 import Ntag424
from taprail_hwsim.dev_chain import DevChain

pytestmark = pytest.mark.chain

PROGRAM = [sys.executable, "-c", "from taprail_common.cli import main; main()"]
UID = "04AABBCCDDEE01"
MERCHANT_ACCOUNT = "0x" + "ca" * 20
SETTLED_WITHIN_S = 30


@pytest.fixture
async def chain() -> AsyncIterator[DevChain]:
    async with DevChain(AnvilOptions(block_time_s=1)) as running:
        running.deploy_token(symbol="TUSD")
        yield running


class Site:
    """One merchant with one terminal and one funded card, all made by the operator's commands."""

    def __init__(self, folder: Path, chain: DevChain) -> None:
        self.config = folder / "gateway.toml"
        self.config.write_text(
            f'[gateway]\nport = 0\n[chain]\nrpc_urls = ["{chain.rpc_url}"]\n'
            f'chain_id = {chain.chain_id}\ntoken = "{chain.token_address}"\n'
        )
        self.key = SigningKey.generate()
        chain.fund(self.admin("init")["lane"], 10**18)
        self.admin("user", "add", "alice")
        self.admin("merchant", "add", "kiosk", "--account", MERCHANT_ACCOUNT)
        public_key = public_key_text(self.key.verify_key)
        self.admin("terminal", "add", "t1", "--merchant", "kiosk", "--public-key", public_key)
        keys_file = folder / "keys.json"
        issued = self.admin(
            *("card", "issue", "--uid", UID, "--user", "alice", "--show-keys", str(keys_file)),
            *("--single-limit", "50.00", "--daily-limit", "200.00"),
        )
        chain.mint(issued["account"], 100_000_000)
        keys = json.loads(keys_file.read_text())
        self.card = Ntag424(
            bytes.fromhex(UID),
            bytes.fromhex(keys["sdmMetaReadKey"]),
            bytes.fromhex(keys["sdmFileReadKey"]),
        )

    def admin(self, *arguments: str) -> Any:
        result = CliRunner().invoke(app, ["--config", str(self.config), *arguments, "--json"])
        assert result.exit_code == 0, (result.output, result.exception)
        return json.loads(result.stdout)

    @contextmanager
    def gateway(self) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
        """The program and what it said when it was ready."""
        process = subprocess.Popen(
            [*PROGRAM, "gateway", "run", "--config", str(self.config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            yield process, json.loads(line)
        finally:
            process.kill()
            process.communicate()

    def request(self, counter: int, amount_units: int) -> bytes:
        now_ms = SystemClock().now_ms()
        picc, mac = self.card.sun_proof(counter)
        return json.dumps(
            {
                "requestId": new_id("req"),
                "terminalId": "t1",
                "merchantId": "kiosk",
                "amount": amount_units,
                "currency": "TUSD",
                "tappedAt": rfc3339(now_ms),
                "acceptUntil": rfc3339(now_ms + 15_000),
                "proof": {"profile": "sun", "piccData": picc, "mac": mac},
            }
        ).encode()

    async def post(self, url: str, body: bytes) -> dict[str, Any]:
        headers = {
            TERMINAL_HEADER: "t1",
            SIGNATURE_HEADER: sign(self.key, Domain.PAYMENT_REQUEST, body),
            "Content-Type": "application/json",
        }
        address = f"{url}/api/payment/process-async"
        async with (
            aiohttp.ClientSession() as http,
            http.post(address, data=body, headers=headers) as response,
        ):
            answer: dict[str, Any] = await response.json()
            return answer

    async def status(self, url: str, path: str) -> dict[str, Any]:
        timestamp = str(SystemClock().now_ms())
        signed = f"GET {path}\nt1\n{timestamp}".encode()
        headers = {
            TERMINAL_HEADER: "t1",
            TIMESTAMP_HEADER: timestamp,
            SIGNATURE_HEADER: sign(self.key, Domain.QUERY, signed),
        }
        async with (
            aiohttp.ClientSession() as http,
            http.get(url + path, headers=headers) as response,
        ):
            answer: dict[str, Any] = await response.json()
            return dict(answer["transaction"])


async def completed(site: Site, url: str, path: str) -> None:
    """Return when the payment is."""
    async with asyncio.timeout(SETTLED_WITHIN_S):
        while (await site.status(url, path))["status"] != "completed":  # noqa: ASYNC110 - a process
            await asyncio.sleep(0.1)


async def accepted(site: Site, url: str, counter: int, amount_units: int) -> dict[str, Any]:
    """An acceptance; the first one waits until the gateway has seen the card's balance."""
    async with asyncio.timeout(SETTLED_WITHIN_S):
        for tap in range(counter, counter + 1000):
            answer = await site.post(url, site.request(tap, amount_units))
            if answer["success"]:
                return answer
            assert answer["reasonCode"] == "insufficient_balance", answer
            await asyncio.sleep(0.1)
    raise AssertionError("never accepted")


async def test_a_tap_settles_on_chain_and_the_gateway_stops_cleanly(
    tmp_path: Path, chain: DevChain
) -> None:
    site = await asyncio.to_thread(Site, tmp_path, chain)  # it asks the node for the token
    with site.gateway() as (process, ready):
        answer = await accepted(site, ready["url"], 1, 3_000_000)
        await completed(site, ready["url"], answer["statusUrl"])
        shown = site.admin("payment", "show", answer["transactionId"])
        assert [event["state"] for event in shown["events"]] == [
            "pending",
            "processing",
            "sent",
            "completed",
        ]
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 15) == 0
    assert chain.balance_of(MERCHANT_ACCOUNT) == 3_000_000
    assert site.admin("check") == {
        "ok": True,
        "problems": [],
        "completedUnits": {"kiosk": 3_000_000},
    }


async def test_the_master_key_is_exchanged_while_payments_go_on(
    tmp_path: Path, chain: DevChain
) -> None:
    site = await asyncio.to_thread(Site, tmp_path, chain)  # it asks the node for the token

    async def pay(url: str, counter: int) -> None:
        answer = await accepted(site, url, counter, 1_000_000)
        await completed(site, url, answer["statusUrl"])

    with site.gateway() as (_, ready):
        await pay(ready["url"], 1)
        changed = await asyncio.to_thread(site.admin, "key", "rotate")
        assert changed["left"] == 0
        await pay(ready["url"], 1001)
        await asyncio.to_thread(site.admin, "key", "retire")
        await pay(ready["url"], 2001)
    with site.gateway() as (_, ready):
        await pay(ready["url"], 3001)
    assert chain.balance_of(MERCHANT_ACCOUNT) == 4_000_000


async def test_a_second_gateway_a_taken_port_and_another_token_are_refused(
    tmp_path: Path, chain: DevChain
) -> None:
    site = await asyncio.to_thread(Site, tmp_path, chain)  # it asks the node for the token

    def refused(**environment: str) -> str:
        result = subprocess.run(
            [*PROGRAM, "gateway", "run", "--config", str(site.config)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, **environment},
        )
        assert result.returncode == 2
        return result.stderr.strip().splitlines()[-1]

    with site.gateway():
        assert "another gateway" in refused()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} of 127.0.0.1 is in use" in refused(TAPRAIL_SET_GATEWAY__PORT=port)
    other = chain.deploy_token(symbol="OTHER")
    assert "belongs to token" in refused(TAPRAIL_SET_CHAIN__TOKEN=other)
    nothing = "0x" + "12" * 20
    assert "no contract at the token" in refused(TAPRAIL_SET_CHAIN__TOKEN=nothing)

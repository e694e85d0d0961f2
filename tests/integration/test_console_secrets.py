"""One run of a terminal with everything in it that nobody may see: cards, a PIN, keys, passwords.
None of it is in any answer of the console, in the log, or in a bundle."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from nacl.signing import SigningKey

from taprail_common.clock import SystemClock
from taprail_common.logs import configure_logs
from taprail_common.service import SERVICE_MANAGER
from taprail_common.signing import public_key_text
from taprail_hwsim.cards import Card, Ntag21x, Ntag424
from taprail_hwsim.pn532 import Pn532Simulator
from taprail_terminal import app, keypad_device
from taprail_terminal.config import load_config
from taprail_terminal.console.commands import COMMANDS
from taprail_terminal.console.frames import Line
from taprail_terminal.hardware import hardware_from
from taprail_terminal.identity import Identity
from taprail_terminal.key_rotation import next_key_file
from taprail_terminal.keypad import Command, Key
from tests.support.console_client import ConsoleClient, store_roster
from tests.support.played_gateway import PlayedGateway

LIMIT_S = 60.0
PIN = "904711630258"
URL_PASSWORD, NEXT_PASSWORD, WIFI_PASSWORD = "url-geheim", "next-geheim", "wifi-geheim"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ0aWxsIn0.c2lnbmF0dXJlLW9mLWl0"
PAIRING_CODE = "K7QF-4MX9-FT2W"
TAG = Ntag21x(bytes.fromhex("04A1B2C3D4E5F6"))
SUN = Ntag424(bytes.fromhex("04C0FFEE123456"), bytes(range(16)), bytes(range(16, 32)))
TECHNICIAN = SigningKey.generate()

TOML = """\
# Wi-Fi: password {wifi}; token of the hotspot: {token}
[terminal]
id = "t1"
merchant_id = "cafe"
currency = "USDC"
decimals = 6
state_dir = "state"
gateway_url = "{url}"
gateway_public_key = "{key}"
mode = "fixed"
fixed_amount = "2.50"

[reader]
port = "{port}"

[lights]
driver = "none"

[display]
driver = "none"

[keypad]
device = "keypad"

[log]
level = "debug"
"""


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that is logged, as it leaves the program."""
    before, handlers = structlog.get_config(), logging.getLogger().handlers[:]
    stream = io.StringIO()
    configure_logs(json=True, level="debug", stream=stream)
    yield stream
    structlog.configure(**before)
    logging.getLogger().handlers[:] = handlers


@dataclass
class Shop:
    """A terminal in this process, its gateway, its reader, and a technician at its console."""

    gateway: PlayedGateway
    reader: Pn532Simulator
    folder: Path
    keys: asyncio.Queue[Key] = field(default_factory=asyncio.Queue)
    told: list[str] = field(default_factory=list)
    client: ConsoleClient = field(init=False)

    @property
    def config_file(self) -> Path:
        return self.folder / "terminal.toml"

    def write_config(self) -> None:
        url = self.gateway.url.replace("://", f"://till:{URL_PASSWORD}@")
        self.config_file.write_text(
            TOML.format(
                wifi=WIFI_PASSWORD,
                token=TOKEN,
                url=url,
                key=public_key_text(self.gateway.key.verify_key),
                port=self.reader.path,
            )
        )

    async def read_keys(self, _device: Path, press: Callable[[Key], None]) -> None:
        """The keypad itself is an edge that cannot be had here."""
        while True:
            press(await self.keys.get())

    async def until(self, phase: str) -> None:
        async with asyncio.timeout(LIMIT_S):
            while (await self.client.ask("status"))["data"]["phase"] != phase:
                pass  # each answer is awaited

    async def sell_to(self, card: Card) -> None:
        await self.until("ready")
        self.reader.put(card)
        await self.until("pin")
        for key in [*PIN, Command.ENTER]:
            self.keys.put_nowait(key)
        await self.until("approved")
        self.reader.lift()

    async def ask(self, command: str, *args: str) -> None:
        self._note(await self.client.ask(command, *args))

    async def give(self, command: str, *args: str) -> None:
        self._note(await self.client.give(TECHNICIAN, command, *args))

    async def type(self, text: str) -> None:
        """As a person does; the answer of `version` shows where theirs has ended."""
        await self.client.say(f"{text}\r\nversion\r\n".encode())
        while True:
            item = await self.client.hear()
            assert isinstance(item, Line)
            if item.text.startswith("kernel:"):
                return

    def _note(self, body: dict[str, Any]) -> None:
        self.told.append(json.dumps(body))
        archive = body.get("data", {}).get("archive")
        if archive is not None:
            self.told += _contents(archive)

    def secrets(self) -> dict[str, list[str]]:
        """What nobody may see, each in the forms in which it might slip out."""
        config = load_config(self.config_file)
        keys = {
            "device key": config.key_file.read_text(),
            "next device key": next_key_file(config.key_file).read_text(),
            "technician's key": bytes(TECHNICIAN).hex(),
            "gateway's key": bytes(self.gateway.key).hex(),
        }
        raw = {name: bytes.fromhex(text) for name, text in keys.items()}
        raw |= {"uid of a tag": TAG.uid, "uid of a card": SUN.uid}
        (sun,) = [
            [proof["piccData"], proof["mac"]]
            for proof in (json.loads(body)["proof"] for body in self.gateway.bodies)
            if proof["profile"] == "sun"
        ]
        return {name: _forms(value) for name, value in raw.items()} | {
            "a card's proof": sun,
            "PIN": [PIN],
            "passwords": [URL_PASSWORD, NEXT_PASSWORD, WIFI_PASSWORD],
            "token": [TOKEN],
            "pairing code": [PAIRING_CODE, PAIRING_CODE[5:]],
        }


def _forms(value: bytes) -> list[str]:
    text = value.hex()
    coded = base64.b64encode(value).decode().rstrip("=")
    return [text, text.upper(), value.hex(":"), value.hex(":").upper(), value.hex(" "), coded]


def _contents(archive: str) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(archive))) as opened:
        files = [opened.extractfile(member) for member in opened.getmembers()]
        return [file.read().decode() for file in files if file is not None]


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    monkeypatch.setattr(keypad_device, "check", lambda: None)
    async with PlayedGateway().serving() as gateway:
        gateway.facts["pinAboveUnits"] = 1  # every sale here asks for one
        with Pn532Simulator() as reader:
            made = Shop(gateway, reader, tmp_path)
            monkeypatch.setattr(keypad_device, "read_keys", made.read_keys)
            made.write_config()
            yield made


async def run_of(shop: Shop) -> None:
    """Sales, every command, as frames and as typed, and at last a change that ends the agent."""
    config = load_config(shop.config_file)
    Identity.create(config.terminal.id, config.key_file)
    now_ms = SystemClock().now_ms()
    store_roster(config.terminal.state_dir, shop.gateway.key, "t1", TECHNICIAN, now_ms)
    running = asyncio.create_task(app.run(config, hardware_from(config), SERVICE_MANAGER.ready))
    try:
        shop.client = await ConsoleClient.open_patiently(config.terminal.state_dir / "console.sock")
        await shop.ask("clock")  # it knows its gateway from here on
        await shop.sell_to(TAG)
        await shop.sell_to(SUN)
        await _ask_all(shop)
        await _change_all(shop)
        await asyncio.wait({running}, timeout=LIMIT_S)
        assert isinstance(running.exception(), app.RestartWantedError)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError, app.RestartWantedError):
            await running


async def _ask_all(shop: Shop) -> None:
    request = json.loads(shop.gateway.bodies[0])["requestId"]
    words = {"queue show": [request], "reader watch": ["1"], "net test": ["2"], "log tail": ["200"]}
    for name, command in COMMANDS.items():
        if not command.changes(()):
            await shop.ask(name, *words.get(name, []))
    for text in ("status", "last", f"queue show {request}", "config get", "log tail 200", "what?"):
        await shop.type(text)


async def _change_all(shop: Shop) -> None:
    text = shop.config_file.read_text()
    await shop.ask("mode", "safe")  # by nobody
    for words in (
        ["log level", "debug"],
        ["queue retry"],
        ["mode", "safe"],
        ["mode", "field"],
        ["reader reset"],
        ["key rotate"],
        ["pair", PAIRING_CODE],
        ["factory-reset"],
        ["config import", text.replace('"t1"', '"t2"')],
        ["config import", text + f'# {NEXT_PASSWORD}\nwifi = "{NEXT_PASSWORD}"\n'],
    ):
        if words != ["mode", "field"]:
            await shop.until("ready")
        await shop.give(*words)
    await shop.ask("bundle")
    url = shop.gateway.url.replace("://", f"://till:{NEXT_PASSWORD}@")
    await shop.give("config set", "terminal.gateway_url", url)
    await shop.ask("changes")
    await shop.ask("config diff")


async def test_nothing_secret_of_a_run_is_in_an_answer_a_log_or_a_bundle(
    shop: Shop, log: io.StringIO
) -> None:
    await run_of(shop)
    everything = "\n".join([*shop.told, shop.client.heard.decode(errors="replace"), log.getvalue()])
    tag, sun = (json.loads(body) for body in shop.gateway.bodies)
    assert tag["proof"]["uid"].lower() == TAG.uid.hex()  # it was there to slip out, and so was
    assert tag["pin"] != sun["pin"]  # the PIN, sealed for each
    assert json.loads(shop.gateway.bodies[0])["requestId"] in everything
    assert "config import" in everything  # what was done is told
    for name, forms in shop.secrets().items():
        for form in forms:
            assert form not in everything, name

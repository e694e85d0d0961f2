"""The power goes in the middle of what a technician has asked for, before any of its file
operations: what is left is a terminal that starts, as it was or as it was to become."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from taprail_common.fleet_wire import KEY_PATH
from taprail_common.pairing import PairAnswer
from taprail_common.signing import Domain, fingerprint, gateway_id, public_key_text
from taprail_terminal import key_rotation
from taprail_terminal.config import load_config
from taprail_terminal.console import reset, trial
from taprail_terminal.console.config_edit import with_value
from taprail_terminal.console.unpaired import configured
from taprail_terminal.identity import Identity
from taprail_terminal.key_rotation import make_next_key, next_key_file
from taprail_terminal.outbox import Outbox
from taprail_terminal.paired import keep
from tests.unit.terminal.test_console_changes import NOW_MS, cut_everywhere

GATEWAY = SigningKey.generate()
NAMES = (
    *("device.json", "technicians.json", "gateway.json", "tls_pins.json", "device.key.next"),
    *("fleet.json", "offline.json"),
)
ANSWER = PairAnswer(
    terminal_id="till-9",
    merchant_id="cafe",
    currency="USDC",
    decimals=6,
    gateway_id=gateway_id(GATEWAY.verify_key),
    gateway_public_key=public_key_text(GATEWAY.verify_key),
    fingerprint="1f2e-3d4c-5b6a-7988",
    gateway_fingerprint=fingerprint(GATEWAY.verify_key),
)


class Device:
    """A terminal that knows who it is by its pairing alone."""

    def __init__(self, folder: Path) -> None:
        self.file, self.state = folder / "terminal.toml", folder / "state"
        self.file.write_text('[terminal]\nstate_dir = "state"\ngateway_url = "http://x"\n')
        self.state.mkdir()
        self.key_file = self.state / "device.key"
        Identity.create("till-9", self.key_file)
        self._outbox = _outbox_without_sales(self.state / "outbox.db")
        self.furnish()
        self.config = load_config(self.file)

    def furnish(self) -> None:
        """What a terminal gathers; written as a test writes, so that no cut meets it."""
        (self.state / "outbox.db").write_bytes(self._outbox)
        for name in NAMES:
            (self.state / name).write_text("{}")
        (self.state / "paired.json").write_text(ANSWER.model_dump_json(by_alias=True))

    def starts(self) -> bool:
        """What each start does before anything is open; whether it is anybody's terminal."""
        trial.at_start(self.file)
        config, is_paired = configured(self.file, {})
        if reset.at_start(config, NOW_MS):
            config, is_paired = configured(self.file, {})
        Identity.load(config.terminal.id, config.key_file)
        return is_paired


def _outbox_without_sales(path: Path) -> bytes:
    async def make() -> None:
        outbox = Outbox(path)
        await outbox.open(NOW_MS)
        await outbox.close()

    asyncio.run(make())
    return path.read_bytes()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_a_reset_forgets_whose_terminal_it_was_or_nothing(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {device.key_file.read_bytes()}
    seen = set()

    def work() -> None:
        reset.ask(device.config)
        device.starts()

    def check() -> None:
        is_paired = device.starts()
        left = {path.name for path in device.state.iterdir()}
        gone = {*NAMES, "outbox.db", "paired.json"}
        assert left & gone == (gone if is_paired else set())
        assert (device.key_file.read_bytes() in keys) is is_paired
        assert "factory-reset" not in left
        seen.add(is_paired)
        keys.add(device.key_file.read_bytes())
        device.furnish()

    assert cut_everywhere(monkeypatch, work, check) > 20
    assert seen == {True, False}


def test_a_damaged_outbox_may_hold_payments_so_nothing_is_forgotten(device: Device) -> None:
    outbox = device.state / "outbox.db"
    outbox.write_bytes(b"not a database, and not empty either" * 100)
    before = device.key_file.read_bytes()
    reset.ask(device.config)
    assert device.starts()
    assert device.key_file.read_bytes() == before
    assert outbox.exists()
    assert not (device.state / "factory-reset").exists()


def test_a_trial_that_is_kept_or_undone_may_be_cut_off(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = device.file.read_bytes()
    new = with_value(old.decode(), "reader.port", "/dev/x").encode()

    def kept() -> None:
        device.file.write_bytes(old)
        trial.begin(device.file, new, like=device.config)
        trial.at_start(device.file)
        trial.came_up(device.file)

    def undone() -> None:
        device.file.write_bytes(old)
        trial.begin(device.file, new, like=device.config)
        trial.at_start(device.file)
        trial.undo(device.file)

    def check() -> None:
        assert device.starts()
        device.starts()  # had the cut left a trial, it would be over by now
        assert device.file.read_bytes() in (old, new)
        assert not trial.is_on(device.file)

    for work, end in ((kept, new), (undone, old)):
        assert cut_everywhere(monkeypatch, work, check) > 20
        assert device.file.read_bytes() == end


class Gateway:
    """Of the link only what a change of keys uses; it has to be told before the key is used."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def tell(self, path: str, body: bytes, domain: Domain) -> bytes:
        assert (path, domain) == (KEY_PATH, Domain.NEXT_KEY)
        self.told.append(json.loads(body)["publicKey"])
        return b"{}"


def test_a_rotation_ends_with_a_key_that_the_gateway_was_told_of(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway()
    next_file = next_key_file(device.key_file)
    next_file.unlink()
    own = device.key_file.read_bytes()

    def rotate() -> None:
        identity = Identity.load("till-9", device.key_file)
        make_next_key(device.key_file)
        asyncio.run(
            key_rotation.change_over(gateway, identity, device.key_file, NOW_MS)  # type: ignore[arg-type]
        )

    def check() -> None:
        assert device.starts()
        key = Identity.load("till-9", device.key_file)
        in_use = device.key_file.read_bytes()
        assert in_use == own or key.public_key in gateway.told

    assert cut_everywhere(monkeypatch, rotate, check) > 5
    assert device.key_file.read_bytes() != own
    assert not next_file.exists()


def test_a_pairing_that_is_cut_off_is_kept_whole_or_not_at_all(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ANSWER.model_copy(update={"terminal_id": "till-10"})
    seen = set()

    def check() -> None:
        assert device.starts()
        seen.add(load_config(device.file).terminal.id)

    assert cut_everywhere(monkeypatch, lambda: keep(device.state, other), check) > 3
    assert seen == {"till-9", "till-10"}

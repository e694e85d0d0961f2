"""Settings pushed to a terminal: a real gateway, real files, each start as the agent does it."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from nacl.signing import SigningKey

from taprail_common.clock import SystemClock
from taprail_common.errors import InputError, LinkError, SignatureError
from taprail_common.signing import Domain, public_key_text, sign
from taprail_common.terminal_settings import CHANGEABLE, CONFIG_PATH, PushedConfig
from taprail_common.wire import SIGNATURE_HEADER
from taprail_gateway.ledger import fleet
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.fleet import Health
from taprail_terminal import fleet_config
from taprail_terminal.config import load_config
from taprail_terminal.console import trial
from taprail_terminal.console.config_edit import with_value, without_value
from taprail_terminal.console.settings import flat
from taprail_terminal.fleet_config import NOT_UP, OUT_OF_REACH, REACH_LIMIT_S, PushedSettings
from taprail_terminal.fleet_state import FLEET_FILE, Outcome
from taprail_terminal.gateway_link import Expected, GatewayLink
from taprail_terminal.identity import Identity
from tests.support.gateway_fixtures import MERCHANT, TERMINAL, TestGateway, running_gateway

NOWHERE = "http://127.0.0.1:9"

_TOML = """
[terminal]
id = "{terminal}"
merchant_id = "{merchant}"
currency = "TUSD"
decimals = 6
state_dir = "state"
gateway_url = "{url}"
gateway_public_key = "{key}"
mode = "fixed"
fixed_amount = "2.50"
"""


class PowerCut(BaseException):
    """The power went; nothing after it is executed."""


class Ahead(SystemClock):
    """The machine's clock, and how much longer it lasts."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


class Device:
    """A terminal without reader and process: what is pushed to it, over its starts."""

    link: GatewayLink
    pushed: PushedSettings

    def __init__(self, folder: Path, gateway: TestGateway) -> None:
        self.gateway, self.clock = gateway, Ahead()
        self.file, self.state = folder / "terminal.toml", folder / "state"
        key = public_key_text(gateway.public_key)
        names = {"terminal": TERMINAL, "merchant": MERCHANT, "key": key, "url": gateway.url}
        self.file.write_text(_TOML.format(**names))
        Identity.create(TERMINAL, self.state / "device.key")
        (self.state / "device.key").write_text(bytes(gateway.terminal_key).hex())
        self.is_quiet, self.restarts = True, 0

    @asynccontextmanager
    async def running(self, *, comes_up: bool = True) -> AsyncIterator[PushedSettings]:
        """One life of the agent: up to its first greeting, unless it does not get so far."""
        trial.at_start(self.file)
        config = load_config(self.file)
        self.link = GatewayLink(
            Expected(config.terminal.gateway_url, config.gateway_key, MERCHANT, "TUSD", 6),
            Identity.load(TERMINAL, config.key_file),
            self.gateway.clock,
        )
        await self.link.open()
        self.pushed = PushedSettings(
            config,
            self.link,
            self.clock,
            is_quiet=lambda: self.is_quiet,
            restart=self._restarted,
        )
        try:
            if comes_up:
                await self.link.greet()
                trial.came_up(self.file)
                await self.pushed.settle()
                await self.pushed.tell()
            yield self.pushed
        finally:
            await self.link.close()

    def _restarted(self) -> None:
        self.restarts += 1

    def want(self, settings: dict[str, Any]) -> int:
        by = By("cli:olga", self.gateway.now_ms())
        work = partial(fleet.want, terminal_id=TERMINAL, changes=settings, by=by)
        return self.gateway.ledger.write_now(work).version

    @property
    def health(self) -> Health:
        read = partial(fleet.health_of, terminal_ids=[TERMINAL])
        return self.gateway.ledger.read_now(read)[TERMINAL]

    @property
    def told(self) -> tuple[int, str | None, str | None, int]:
        """What the gateway knows of it: version, outcome, reason, and what is applied."""
        said = self.health.reported
        assert said is not None
        return said.version, said.outcome, said.reason, said.applied_version


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Device]:
    async with running_gateway(tmp_path) as gateway:
        yield Device(tmp_path, gateway)


async def test_what_is_wanted_is_tried_kept_and_reported_once(device: Device) -> None:
    async with device.running() as pushed:
        assert device.told[:2] == (0, None)
        wanted = device.want({"terminal.mode": "till", "terminal.fixed_amount": None})
        device.is_quiet = False  # a card lies there
        await pushed.heed(wanted)
        assert not trial.is_on(device.file)
        device.is_quiet = True
        await pushed.heed(wanted)
        assert (device.restarts, pushed.is_trying) == (1, True)
        await pushed.heed(wanted)
        await pushed.tell()
        assert device.told[:2] == (0, None)  # nobody knows yet
    async with device.running() as pushed:
        assert device.told == (1, "applied", None, 1)
        reported = device.health.reported
        assert reported is not None
        assert reported.settings["terminal.mode"] == "till"
        assert load_config(device.file).fixed_units is None
        await pushed.heed(wanted)
        assert device.restarts == 1
    # A terminal that has forgotten takes it again: it holds already, and nothing is restarted.
    (device.state / FLEET_FILE).write_text("{")
    async with device.running() as pushed:
        await pushed.heed(wanted)
        assert (pushed.state.outcome, device.restarts) == (Outcome.APPLIED, 1)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"display.driver": "paper"}, "display.driver"),
        ({"terminal.mode": "till"}, "fixed_amount"),
        ({"reader.reset_pin": 99}, "reader.reset_pin"),
        ({"terminal.id": "till-9"}, "may not be changed from afar"),
        ({"reader.prot": "/dev/x"}, "may not be changed from afar"),
    ],
)
async def test_what_does_not_hold_is_refused_with_the_reason(
    device: Device, settings: dict[str, Any], reason: str
) -> None:
    before = device.file.read_bytes()
    async with device.running() as pushed:
        await pushed.heed(device.want(settings))
        await pushed.tell()
        version, outcome, told, applied = device.told
        assert (version, outcome, applied, device.restarts) == (1, "refused", 0, 0)
        assert reason in str(told)
    assert device.file.read_bytes() == before


async def test_one_that_does_not_come_up_is_undone_and_not_tried_again(device: Device) -> None:
    before = device.file.read_bytes()
    async with device.running() as pushed:
        wanted = device.want({"reader.port": "/dev/nothing"})
        await pushed.heed(wanted)
    async with device.running(comes_up=False):
        assert load_config(device.file).reader.port == "/dev/nothing"
    async with device.running() as pushed:
        assert device.file.read_bytes() == before
        assert device.told == (1, "refused", NOT_UP, 0)
        await pushed.heed(wanted)
        assert device.restarts == 1
        await pushed.heed(device.want({"reader.port": "/dev/other"}))
        assert device.restarts == 2


async def test_one_that_loses_the_gateway_is_undone(device: Device) -> None:
    async with device.running() as pushed:
        await pushed.heed(device.want({"terminal.gateway_url": NOWHERE}))
    async with device.running(comes_up=False) as pushed:
        await pushed.settle()
        assert pushed.is_trying
        device.clock.ahead_s = REACH_LIMIT_S + 1
        await pushed.settle()
        assert device.restarts == 2
    async with device.running():
        assert load_config(device.file).terminal.gateway_url == device.gateway.url
        assert device.told == (1, "refused", OUT_OF_REACH, 0)


async def _until_the_power_goes(device: Device, wanted: int) -> None:
    async with device.running() as pushed:
        await pushed.heed(wanted)
    async with device.running(comes_up=False) as pushed:
        device.clock.ahead_s = REACH_LIMIT_S + 1
        await pushed.settle()


@pytest.mark.parametrize("point", ["config.placed", "config.undone"])
async def test_wherever_the_power_goes_it_ends_known(
    device: Device, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(passed: str) -> None:
        if passed == point:
            raise PowerCut

    lost = point == "config.undone"
    settings = {"terminal.gateway_url": NOWHERE} if lost else {"reader.port": "/dev/x"}
    wanted = device.want(settings)
    with monkeypatch.context() as patch:
        patch.setattr(fleet_config, "crash", crash)
        with pytest.raises(PowerCut):
            await _until_the_power_goes(device, wanted)
    async with device.running() as pushed:
        await pushed.heed(wanted)
        await pushed.tell()
    assert device.told == ((1, "refused", NOT_UP, 0) if lost else (1, "applied", None, 1))


Forge = Callable[[TestGateway], tuple[bytes, SigningKey, Domain]]


def _config(gateway: TestGateway, **changes: Any) -> bytes:
    given = {
        "terminal_id": TERMINAL,
        "version": 1,
        "settings": {"reader.port": "/dev/x"},
        "set_at": gateway.now_ms(),
    }
    return PushedConfig.model_validate({**given, **changes}).to_json()


@pytest.mark.parametrize(
    ("forge", "error"),
    [
        (lambda g: (_config(g, terminal_id="till-9"), g.services.key, Domain.CONFIG), LinkError),
        (lambda g: (_config(g, version=2), g.services.key, Domain.CONFIG), LinkError),
        (lambda g: (_config(g), SigningKey.generate(), Domain.CONFIG), SignatureError),
        (lambda g: (_config(g), g.services.key, Domain.ANSWER), SignatureError),
        (lambda g: (b'{"version": 1}', g.services.key, Domain.CONFIG), InputError),
    ],
    ids=["another terminal's", "another version", "a stranger's", "another purpose", "torn"],
)
async def test_nothing_but_its_own_configuration_is_taken(
    device: Device, forge: Forge, error: type[Exception]
) -> None:
    body, key, domain = forge(device.gateway)
    headers = {SIGNATURE_HEADER: sign(key, domain, body)}

    async def between(_request: web.Request) -> web.Response:
        return web.Response(body=body, headers=headers)

    app = web.Application()
    app.router.add_get(CONFIG_PATH, between)
    runner = web.AppRunner(app)
    await runner.setup()
    before = device.file.read_bytes()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with device.running() as pushed:
            await device.link.close()
            device.link._exchange._url = "http://{}:{}".format(*runner.addresses[0][:2])
            await device.link.open()
            with pytest.raises(error):
                await pushed.heed(1)
            assert pushed.state.seen == 0
    finally:
        await runner.cleanup()
    assert device.file.read_bytes() == before


def test_every_setting_that_can_be_pushed_is_one_of_the_terminals(tmp_path: Path) -> None:
    file = tmp_path / "terminal.toml"
    key = public_key_text(SigningKey.generate().verify_key)
    names = {"terminal": TERMINAL, "merchant": MERCHANT, "key": key, "url": NOWHERE}
    file.write_text(_TOML.format(**names))
    known = flat(load_config(file))
    assert set(CHANGEABLE) <= known.keys()
    own = {"id", "merchant_id", "currency", "decimals", "state_dir", "key_file"}
    own.add("gateway_public_key")
    assert not {f"terminal.{name}" for name in own} & set(CHANGEABLE)


def test_values_are_taken_out_and_the_rest_stays_as_it_was() -> None:
    text = '# mine\n[a]\nx = 1 # one\ny = "z"\n\n[b]\nl = [1,\n 2]\n'
    assert without_value(text, "a.x") == text.replace("x = 1 # one\n", "")
    assert without_value(text, "a.q") == without_value(text, "c.q") == text
    with pytest.raises(InputError, match="cannot be edited"):
        without_value(text, "b.l")
    back = with_value(without_value(text, "a.x"), "a.x", "1")
    assert tomllib.loads(back) == tomllib.loads(text)

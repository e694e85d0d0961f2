"""Ten things that break at a terminal: the self-test names each, and nothing else, and what to do.

Each is broken for real: a chip that hangs, a server with another certificate, a disk without room.
All other parts are well, so that a row that is red beside the right one shows.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from taprail_common.client.pins import PinnedCertificates
from taprail_common.clock import Clock, SystemClock
from taprail_common.errors import OperatorError
from taprail_common.signing import public_key_text
from taprail_gateway.tls import make_certificate, server_context
from taprail_hwsim.pads import Pn532Pad
from taprail_hwsim.panel import Ssd1306Panel
from taprail_terminal.config import load_config
from taprail_terminal.console.machine import MachineFiles
from taprail_terminal.console.net_test import Target
from taprail_terminal.console.selftest import (
    CHECK_NAMES,
    SELFTEST_TIMEOUT_S,
    Check,
    Probes,
    run_selftest,
)
from taprail_terminal.feedback import feedback
from taprail_terminal.feedback.drivers import Signals, oled_display
from taprail_terminal.feedback.feedback import Feedback
from taprail_terminal.gateway_link import Expected, GatewayLink
from taprail_terminal.hardware import hardware_from
from taprail_terminal.identity import Identity
from taprail_terminal.outbox import Outbox, OutboxRow
from taprail_terminal.probes import GatewayView, OutboxView, ReaderView
from taprail_terminal.readers.polling import Lost
from tests.support.console_probes import healthy_probes
from tests.support.gateway_fixtures import MERCHANT, TERMINAL, SteppingClock, running_gateway
from tests.support.played_gateway import PlayedGateway
from tests.support.reader_fixtures import opened
from tests.support.selftest_child import selftest_within

HOUR_MS = 3_600_000
TOML = """
[terminal]
id = "t1"
merchant_id = "cafe"
currency = "USDC"
decimals = 6
state_dir = "state"
gateway_url = "http://localhost:9"
gateway_public_key = "{key}"

[reader]
port = "/dev/no-such-reader"

[lights]
driver = "none"

[display]
i2c_port = 250
"""


@pytest.fixture
def probes(tmp_path: Path) -> Probes:
    """A terminal that is well, on a machine that measures nothing."""
    machine = MachineFiles(tmp_path / "throttled", tmp_path / "temp", tmp_path / "synchronized")
    return replace(healthy_probes(tmp_path), machine=machine)


async def broken_rows(probes: Probes) -> dict[str, Check]:
    """What the self-test finds wrong, each with what to do."""
    async with asyncio.timeout(SELFTEST_TIMEOUT_S):
        checks = await run_selftest(probes)
    return _broken({check.name: check for check in checks})


def _broken(checks: dict[str, Check]) -> dict[str, Check]:
    assert tuple(checks) == CHECK_NAMES
    found = {name: check for name, check in checks.items() if not check.ok}
    assert all(check.what_to_do for check in found.values())
    return found


@asynccontextmanager
async def link_to(
    url: str, key: SigningKey, *, clock: Clock | None = None, who: Identity | None = None
) -> AsyncIterator[GatewayView]:
    """A real link to whoever answers there, from a terminal that knows this gateway's key."""
    clock = clock or SystemClock()
    who = who or Identity("t1", SigningKey.generate())
    merchant, currency = (MERCHANT, "TUSD") if who.terminal_id == TERMINAL else ("cafe", "USDC")
    link = GatewayLink(Expected(url, key.verify_key, merchant, currency, 6), who, clock)
    await link.open()
    try:
        yield GatewayView(link)
    finally:
        await link.close()


async def test_1_reader_away(probes: Probes, pn532: Pn532Pad) -> None:
    async with opened(pn532) as bench:
        pn532.unplug()
        await bench.until(Lost)
        found = await broken_rows(replace(probes, reader=ReaderView(bench.reader)))
    assert list(found) == ["reader"]
    assert found["reader"].detail == f"no card reader at {pn532.port}"
    assert found["reader"].what_to_do.startswith("plug it in")


async def test_2_chip_hung(probes: Probes, pn532: Pn532Pad) -> None:
    async with opened(pn532) as bench:
        pn532.hang()
        await bench.until(Lost)
        found = await broken_rows(replace(probes, reader=ReaderView(bench.reader)))
    assert list(found) == ["reader"]
    assert "chip does not answer" in found["reader"].detail
    assert "reader reset, or take its power away" in found["reader"].what_to_do


class StuckBus(Ssd1306Panel):
    """A display whose bus, once stuck, lets no transfer end; or refuses each."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.error: OSError | None = None

    def data(self, data: Any) -> None:
        if self.error is not None:
            raise self.error
        self.free.wait()
        super().data(data)


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (None, "does not come back from its driver"),
        (OSError(121, "Remote I/O error"), "Remote I/O"),
    ],
)
async def test_3_display_bus_stuck(
    probes: Probes, monkeypatch: pytest.MonkeyPatch, error: OSError | None, detail: str
) -> None:
    monkeypatch.setattr(feedback, "_TEST_TIMEOUT_S", 0.3)
    bus = StuckBus()
    front = Feedback(Signals(None, None), oled_display(lambda: bus))
    bus.free.clear()
    bus.error = error
    try:
        found = await broken_rows(replace(probes, feedback=front))
    finally:
        bus.free.set()
        front.close()
    assert list(found) == ["display"]
    assert detail in found["display"].detail
    assert "wires" in found["display"].what_to_do


async def test_4_wrong_gateway_key(probes: Probes) -> None:
    async with (
        PlayedGateway().serving() as gateway,
        link_to(gateway.url, SigningKey.generate()) as link,
    ):
        found = await broken_rows(replace(probes, gateway=link, target=Target.of(gateway.url)))
    assert list(found) == ["gateway", "clock"]
    assert "not by the expected key" in found["gateway"].detail
    assert "gateway_public_key" in found["gateway"].what_to_do
    assert found["clock"].detail.startswith("not known")  # its reference is not believed


@pytest.mark.parametrize(("ahead_ms", "side"), [(HOUR_MS, "ahead of"), (-HOUR_MS, "behind")])
async def test_5_clock_off(probes: Probes, tmp_path: Path, ahead_ms: int, side: str) -> None:
    clock = SteppingClock()
    clock.ahead_ms = ahead_ms
    async with running_gateway(tmp_path) as gateway:
        who = Identity(TERMINAL, gateway.terminal_key)
        key = gateway.services.key
        async with link_to(gateway.url, key, clock=clock, who=who) as link:
            found = await broken_rows(replace(probes, gateway=link))
    assert list(found) == ["gateway", "clock"]
    assert re.search(rf"this clock is 3[56]\d\d s {side}", found["gateway"].detail)
    assert abs(int(found["clock"].detail.split()[0]) + ahead_ms) < 60_000
    assert "timedatectl" in found["clock"].what_to_do


async def test_5_a_terminal_that_the_gateway_does_not_know_is_no_wrong_clock(
    probes: Probes, tmp_path: Path
) -> None:
    async with running_gateway(tmp_path) as gateway:
        who = Identity(TERMINAL, SigningKey.generate())
        async with link_to(gateway.url, gateway.services.key, who=who) as link:
            found = await broken_rows(replace(probes, gateway=link))
    assert "registered there with this key" in found["gateway"].what_to_do
    assert found["clock"].detail.startswith("not known")


def test_6_disk_full(tmp_path: Path) -> None:
    fill = f"mount -t tmpfs -o size=64k none {tmp_path}; cat /dev/zero >{tmp_path}/f 2>&- || true"
    found = _broken(selftest_within(fill, tmp_path, "http://localhost:9"))
    assert list(found) == ["disk"]
    assert found["disk"].detail == "full (no space left on device)"
    assert found["disk"].what_to_do.startswith(f"make room on the disk of {tmp_path}")


def test_6_disk_that_has_turned_read_only(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o ro none {tmp_path}"
    found = _broken(selftest_within(mount, tmp_path, "http://localhost:9"))
    assert list(found) == ["disk"]
    assert found["disk"].detail == "read-only file system"
    assert "replace the card" in found["disk"].what_to_do


def test_7_dns_broken(tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")  # nobody listens
    prepare = f"ip link set lo up; mount --bind {resolver} /etc/resolv.conf"
    found = _broken(selftest_within(prepare, tmp_path, "https://gateway.example"))
    found.pop("network", None)  # whether a line is up is the matter of where this runs
    assert list(found) == ["dns", "tls"]
    assert found["dns"].detail.startswith("gateway.example has no address")
    assert "DNS server" in found["dns"].what_to_do
    assert found["tls"].detail == "not tried: gateway.example has no address"


@asynccontextmanager
async def tls_server(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """A server with a certificate of its own: its address, and the certificate's digest."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    pin = make_certificate(cert, key, "gateway", datetime.now(UTC))
    server = await asyncio.start_server(
        lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=server_context(cert, key)
    )
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", pin


async def test_8_tls_wrong(probes: Probes, tmp_path: Path) -> None:
    ours = PinnedCertificates(("ab" * 32,))
    async with tls_server(tmp_path) as (url, pin):
        found = await broken_rows(replace(probes, target=Target.of(url, lambda: ours)))
        assert list(found) == ["tls"]
        assert found["tls"].detail == f"a certificate that is not the gateway's ({pin[:16]})"
        assert "who answers there" in found["tls"].what_to_do
        # Without pins it is checked as a browser would, and nobody has signed this one.
        unpinned = await broken_rows(replace(probes, target=Target.of(url)))
        assert "certificate is not good" in unpinned["tls"].detail
        ours.pins = (pin,)
        assert not await broken_rows(replace(probes, target=Target.of(url, lambda: ours)))


async def test_8_no_tls_at_all_and_nobody_there(probes: Probes) -> None:
    async with PlayedGateway().serving() as gateway:
        plain = Target.of(gateway.url.replace("http:", "https:"))
        found = await broken_rows(replace(probes, target=plain))
    assert "handshake failed" in found["tls"].detail or "hangs up" in found["tls"].detail
    away = await broken_rows(replace(probes, target=plain))
    assert away["tls"].detail == "connection refused"
    assert "is the gateway running" in away["tls"].what_to_do


async def test_9_queue_stuck(probes: Probes, tmp_path: Path) -> None:
    clock, outbox = SystemClock(), Outbox(tmp_path / "outbox.db")
    await outbox.open(clock.now_ms())
    stored_at_ms = clock.now_ms() - HOUR_MS
    await outbox.store(OutboxRow("req_1", 100, "USDC", b"{}", "sig", stored_at_ms))
    try:
        found = await broken_rows(replace(probes, outbox=OutboxView(outbox, clock)))
    finally:
        await outbox.close()
    assert list(found) == ["queue"]
    assert re.match(r"1 unresolved, the oldest for 36\d\d s", found["queue"].detail)
    assert "bring the gateway back in reach" in found["queue"].what_to_do


@pytest.mark.parametrize(
    ("flags", "detail"),
    [("50005", "under-voltage now"), ("50000", "under-voltage since the last start")],
)
async def test_10_under_voltage(probes: Probes, flags: str, detail: str) -> None:
    probes.machine.throttled.write_text(f"{flags}\n")
    found = await broken_rows(probes)
    assert list(found) == ["power"]
    assert found["power"].detail == detail
    assert "official power supply" in found["power"].what_to_do


async def test_what_a_machine_says_of_itself_may_be_nonsense(probes: Probes) -> None:
    probes.machine.throttled.write_text("who knows\n")
    probes.machine.temperature.write_text("-\n")
    assert not await broken_rows(probes)


async def test_parts_of_the_front_that_are_dead_at_the_start_are_named_in_safe_mode(
    probes: Probes, tmp_path: Path
) -> None:
    file = tmp_path / "terminal.toml"
    file.write_text(TOML.format(key=public_key_text(SigningKey.generate().verify_key)))
    config = load_config(file)
    with pytest.raises(OperatorError, match="no card reader"):
        hardware_from(config)
    hardware = hardware_from(config, needs_all=False)
    front = Feedback(hardware.signals(), hardware.display())
    try:
        found = await broken_rows(replace(probes, feedback=front))
    finally:
        front.close()
    assert list(found) == ["display"]
    assert found["display"].detail.startswith("display: I2C device not found")
    assert "wires" in found["display"].what_to_do

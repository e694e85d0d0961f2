"""The self-test: every part of a terminal, each ok or with what to do.

Answers for looking at all parts at once, each within its own time, and for never raising: a part
that cannot be asked is a check that failed. What it needs of the terminal it names as protocols,
so that it can be pointed at anything that has these parts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from taprail_common.errors import TapRailError
from taprail_common.wire import CLOCK_SKEW_MS
from taprail_terminal.console import net_test
from taprail_terminal.console.aside import aside
from taprail_terminal.console.disk import look_at_disk
from taprail_terminal.console.machine import (
    MachineFiles,
    look_at_buttons,
    look_at_cards,
    look_at_power,
    look_at_temperature,
)
from taprail_terminal.feedback.parts import PartHealth
from taprail_terminal.feedback.scene import Scene
from taprail_terminal.gateway_link import ClockSkewError

_LOCAL_TIMEOUT_S: Final = 5.0
_GATEWAY_TIMEOUT_S: Final = 10.0
_TLS_TIMEOUT_S: Final = _GATEWAY_TIMEOUT_S + 2 * net_test.STAGE_LIMIT_S
SELFTEST_TIMEOUT_S: Final = 25.0
"""All checks run side by side; a technician has an answer within 30 s."""

# A tap with a clock further off is refused; at a third of that somebody should look.
CLOCK_WARNING_MS: Final = CLOCK_SKEW_MS // 3

# A sale that nobody has answered for longer than this is not a slow network any more.
_UNRESOLVED_WARNING_MS: Final = 5 * 60 * 1000


class ReaderProbe(Protocol):
    """The card reader's supervisor."""

    def health(self) -> PartHealth:
        """How the reader is now."""
        ...


class FeedbackProbe(Protocol):
    """Lights, display and buzzer."""

    async def test_lights(self) -> PartHealth: ...
    async def test_display(self) -> PartHealth: ...
    async def test_buzzer(self) -> PartHealth: ...

    def health(self) -> Mapping[str, PartHealth]:
        """Each part as it was when last driven."""
        ...

    def now(self) -> tuple[Scene, int] | None:
        """What lights and display were last told to show, and for how many ms."""
        ...


@dataclass(frozen=True, slots=True)
class GatewayHello:
    """What the gateway answered, its signature verified."""

    gateway_id: str
    terminal_status: str
    merchant_name: str
    clock_offset_ms: int
    """The gateway's clock minus ours, half of the round trip taken off."""
    round_trip_ms: int


class GatewayProbe(Protocol):
    """The link to the gateway."""

    async def hello(self) -> GatewayHello:
        """Ask who is there; raises TapRailError when there is no verified answer."""
        ...


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """What the outbox holds of sales that nobody has answered yet."""

    unresolved: int
    oldest_age_ms: int | None


class OutboxProbe(Protocol):
    """The store of requests."""

    async def check(self) -> OutboxStats:
        """Prove that it can be written and count; raises TapRailError when it cannot."""
        ...

    async def stats(self) -> OutboxStats:
        """Count; no sale waits for the disk because of that."""
        ...


class IdentityProbe(Protocol):
    """The terminal's own key."""

    def fingerprint(self) -> str:
        """The public key's fingerprint; raises TapRailError when the key cannot be used."""
        ...


@dataclass(frozen=True, slots=True)
class LastTap:
    """What became of the last card that was put on the reader, without anything of the card."""

    at_ms: int
    outcome: str
    reason: str
    stages_ms: Mapping[str, int]
    """How long each stage took, in their order."""


class SaleProbe(Protocol):
    """The sale in progress and the ones before."""

    def phase(self) -> str:
        """What the terminal shows now."""
        ...

    async def last_tap(self) -> LastTap | None:
        """The last tap; None when there was none yet."""
        ...

    def outcomes(self) -> Sequence[str]:
        """What the taps of this run came to, oldest first."""
        ...


_FILES: Final = MachineFiles()


@dataclass(frozen=True, slots=True)
class Probes:
    """Everything that the console looks at."""

    terminal_id: str
    sale: SaleProbe
    reader: ReaderProbe
    feedback: FeedbackProbe
    gateway: GatewayProbe
    outbox: OutboxProbe
    identity: IdentityProbe
    state_dir: Path
    target: net_test.Target
    keypad: Path | None = None
    machine: MachineFiles = _FILES


@dataclass(frozen=True, slots=True)
class Check:
    """One part, looked at: ok or what to do, and how long the look took."""

    name: str
    ok: bool
    detail: str
    what_to_do: str
    ms: int

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ok": self.ok,
            "detail": self.detail,
            "whatToDo": self.what_to_do,
            "ms": self.ms,
        }


Look = Callable[[], Awaitable[PartHealth]]


async def run_selftest(probes: Probes) -> tuple[Check, ...]:
    """Look at every part at once; gives the checks in the order of `CHECK_NAMES`. Never raises."""
    hello = asyncio.ensure_future(probes.gateway.hello())
    try:
        looks = _looks(probes, hello)
        return tuple(await asyncio.gather(*(_check(*look) for look in looks)))
    finally:
        hello.cancel()
        await asyncio.gather(hello, return_exceptions=True)


CHECK_NAMES: Final = (
    "reader",
    "card",
    "lights",
    "display",
    "buzzer",
    "buttons",
    "network",
    "dns",
    "tls",
    "gateway",
    "clock",
    "key",
    "queue",
    "disk",
    "power",
    "temperature",
)

_WIRES: Final = "check its wires, then restart the terminal"
_NETWORK: Final = "check the network cable or Wi-Fi, and [terminal] gateway_url"
_KEY: Final = "restore the key file from its backup, or pair the terminal anew"
_CARD: Final = "check the SD card; keep the state directory, it holds sales"
_REFERENCE: Final = "it is compared with the gateway's: put that right first"


def _looks(
    probes: Probes, hello: asyncio.Future[GatewayHello]
) -> tuple[tuple[str, Look, float, str], ...]:
    local, remote = _LOCAL_TIMEOUT_S, _GATEWAY_TIMEOUT_S

    async def gateway() -> PartHealth:
        return _judge_gateway(await asyncio.shield(hello))

    async def clock() -> PartHealth:
        return await _look_at_clock(hello)

    async def tls() -> PartHealth:
        # A greeting may tell of the certificate that holds now.
        await asyncio.wait({hello}, timeout=_GATEWAY_TIMEOUT_S)
        return await net_test.tls(probes.target)

    return (
        *_looks_at_parts(probes),
        ("network", partial(net_test.network, probes.target), local, _NETWORK),
        ("dns", partial(net_test.dns, probes.target), local, _NETWORK),
        ("tls", tls, _TLS_TIMEOUT_S, _NETWORK),
        ("gateway", gateway, remote, _NETWORK),
        ("clock", clock, remote, _REFERENCE),
        *_looks_at_machine(probes),
    )


def _looks_at_parts(probes: Probes) -> tuple[tuple[str, Look, float, str], ...]:
    async def reader() -> PartHealth:
        return probes.reader.health()

    async def card() -> PartHealth:
        return look_at_cards(probes.sale.outcomes())

    async def buttons() -> PartHealth:
        return await aside("buttons", partial(look_at_buttons, probes.keypad))

    limit_s = _LOCAL_TIMEOUT_S
    return (
        ("reader", reader, limit_s, _WIRES),
        ("card", card, limit_s, _WIRES),
        ("lights", probes.feedback.test_lights, limit_s, _WIRES),
        ("display", probes.feedback.test_display, limit_s, _WIRES),
        ("buzzer", probes.feedback.test_buzzer, limit_s, _WIRES),
        ("buttons", buttons, limit_s, _WIRES),
    )


def _looks_at_machine(probes: Probes) -> tuple[tuple[str, Look, float, str], ...]:
    machine = probes.machine

    async def key() -> PartHealth:
        return _good("key", await aside("key", probes.identity.fingerprint))

    async def queue() -> PartHealth:
        return _judge_queue(await probes.outbox.check())

    async def disk() -> PartHealth:
        return await aside("disk", partial(look_at_disk, probes.state_dir))

    async def power() -> PartHealth:
        return await aside("power", partial(look_at_power, machine.throttled))

    async def temperature() -> PartHealth:
        return await aside("temperature", partial(look_at_temperature, machine.temperature))

    limit_s = _LOCAL_TIMEOUT_S
    return (
        ("key", key, limit_s, _KEY),
        ("queue", queue, limit_s, _CARD),
        ("disk", disk, limit_s, "check the SD card"),
        ("power", power, limit_s, "check the power supply"),
        ("temperature", temperature, limit_s, "check the machine"),
    )


async def _check(name: str, look: Look, timeout_s: float, what_to_do: str) -> Check:
    started_s = time.monotonic()
    health = await _look(name, look, timeout_s, what_to_do)
    ms = round((time.monotonic() - started_s) * 1000)
    return Check(name, health.ok, health.detail, "" if health.ok else health.fix, ms)


async def _look(name: str, look: Look, timeout_s: float, what_to_do: str) -> PartHealth:
    try:
        async with asyncio.timeout(timeout_s):
            return await look()
    except TimeoutError:
        return PartHealth(name, ok=False, detail=f"no answer in {timeout_s:g} s", fix=what_to_do)
    except TapRailError as exc:
        return PartHealth(name, ok=False, detail=exc.message, fix=exc.fix or what_to_do)
    except OSError as exc:
        detail = exc.strerror or type(exc).__name__
        return PartHealth(name, ok=False, detail=detail, fix=what_to_do)
    except Exception as exc:  # noqa: BLE001 - a bug in one check must not hide the other checks
        return PartHealth(name, ok=False, detail=f"bug: {type(exc).__name__}", fix="report it")


def _judge_gateway(hello: GatewayHello) -> PartHealth:
    detail = f"{hello.gateway_id}, {hello.merchant_name}, {hello.round_trip_ms} ms"
    if hello.terminal_status == "active":
        return _good("gateway", detail)
    fix = "ask the operator to activate this terminal"
    return PartHealth("gateway", ok=False, detail=f"terminal is {hello.terminal_status}", fix=fix)


async def _look_at_clock(hello: asyncio.Future[GatewayHello]) -> PartHealth:
    try:
        offset_ms = (await asyncio.shield(hello)).clock_offset_ms
    except ClockSkewError as exc:
        offset_ms = exc.offset_ms
    except TapRailError:  # told in its own row
        detail = "not known: the gateway has not told the time"
        return PartHealth("clock", ok=False, detail=detail, fix=_REFERENCE)
    return _judge_clock(offset_ms)


def _judge_clock(offset_ms: int) -> PartHealth:
    detail = f"{offset_ms:+d} ms from the gateway's"
    if abs(offset_ms) <= CLOCK_WARNING_MS:
        return _good("clock", detail)
    fix = "set the time: timedatectl set-ntp true"
    return PartHealth("clock", ok=False, detail=detail, fix=fix)


def _judge_queue(stats: OutboxStats) -> PartHealth:
    if not stats.unresolved:
        return _good("queue", "writable, nothing unresolved")
    age_ms = stats.oldest_age_ms or 0
    detail = f"{stats.unresolved} unresolved, the oldest for {age_ms / 1000:.0f} s"
    if age_ms <= _UNRESOLVED_WARNING_MS:
        return _good("queue", detail)
    fix = "bring the gateway back in reach; until then nobody knows whether these were paid"
    return PartHealth("queue", ok=False, detail=detail, fix=fix)


def _good(name: str, detail: str) -> PartHealth:
    return PartHealth(name, ok=True, detail=detail)

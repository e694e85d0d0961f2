"""Commands that only look: status, self-test, reader, last taps, key, clock, log, network.

Answers for reading the terminal's parts into answers. No answer holds a key, a UID or a token, and
none of these changes anything.
"""

from __future__ import annotations

import asyncio
import json
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from taprail_common.clock import rfc3339
from taprail_common.errors import InputError, TapRailError
from taprail_common.operator_words import what_to_do
from taprail_common.signing import fingerprint, gateway_id
from taprail_terminal.console import exposure, net_test
from taprail_terminal.console.answers import (
    EXIT_NOT_OK,
    EXIT_OK,
    CommandResult,
    facts,
    judged,
    table,
)
from taprail_terminal.console.desk import Desk
from taprail_terminal.console.selftest import CLOCK_WARNING_MS, LastTap, run_selftest
from taprail_terminal.feedback.parts import PartHealth

Args = Sequence[str]

WATCH_S: Final = 10
MAX_WATCH_S: Final = 30
_DEFAULT_LINES: Final = 20
_MAX_LINES: Final = 200
_MAX_LOG_BYTES: Final = 28_000
"""As JSON; twice that, as text and as data, within `frames.MAX_JSON_BYTES`."""
_READER_EVENTS: Final = frozenset({"reader", "field", "try_again", "card_refused", "card_removed"})


async def show_version(desk: Desk, _args: Args) -> CommandResult:
    """Which software on which machine."""
    return facts(
        {
            "terminalId": desk.probes.terminal_id,
            "taprail": version("taprail"),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "kernel": platform.release(),
        }
    )


async def status(desk: Desk, _args: Args) -> CommandResult:
    """What is known without touching anything: no light blinks, no packet is sent."""
    probes = desk.probes
    parts = [probes.reader.health(), *probes.feedback.health().values()]
    stats = await probes.outbox.stats()
    known = {
        "terminalId": probes.terminal_id,
        "phase": probes.sale.phase(),
        "unresolved": stats.unresolved,
        **exposure.brief(desk),
    }
    return judged([row(part) for part in parts], known)


async def selftest(desk: Desk, _args: Args) -> CommandResult:
    """Every part is tried."""
    return judged([check.to_json() for check in await run_selftest(desk.probes)], {})


async def last(desk: Desk, _args: Args) -> CommandResult:
    """The last tap of this run, or the last that was kept on the disk; with its trace."""
    tap = await desk.probes.sale.last_tap()
    if tap is None:
        tap = await _last_kept(desk)
    if tap is None:
        return CommandResult(EXIT_OK, "no tap yet", {"tap": None})
    why = what_to_do(tap.reason) or ""
    data = {
        "at": rfc3339(tap.at_ms),
        "outcome": tap.outcome,
        "reason": tap.reason,
        "stagesMs": dict(tap.stages_ms),
        "whatToDo": why,
    }
    stages = ", ".join(f"{name} {ms} ms" for name, ms in tap.stages_ms.items())
    reason = f": {tap.reason}" if tap.reason else ""
    text = f"{rfc3339(tap.at_ms)} {tap.outcome}{reason}" + (f" ({stages})" if stages else "")
    return CommandResult(EXIT_OK, text + (f" -> {why}" if why else ""), {"tap": data})


async def _last_kept(desk: Desk) -> LastTap | None:
    traces = await desk.taps.traces()
    if not traces:
        return None
    trace = traces[-1]
    return LastTap(trace["atMs"], trace["outcome"], trace["reason"], trace["stagesMs"])


async def reader_info(desk: Desk, _args: Args) -> CommandResult:
    """Which reader it is and how it does."""
    health = desk.probes.reader.health()
    known = {
        "driver": desk.config.reader.driver,
        "port": desk.config.reader.port,
        "ok": health.ok,
        "detail": health.detail,
        "whatToDo": health.fix,
    }
    return facts(known, ok=health.ok)


async def reader_scan(desk: Desk, _args: Args) -> CommandResult:
    """The serial ports of this machine, and which of them the terminal uses."""
    rows = await asyncio.to_thread(_ports, desk)
    is_there = any(row["usedFor"] == "reader" for row in rows)
    text = table(rows, "no serial port here")
    is_ok = is_there or desk.config.reader.driver != "pn532"
    return CommandResult(EXIT_OK if is_ok else EXIT_NOT_OK, text, {"ports": rows})


def _ports(desk: Desk) -> list[dict[str, Any]]:
    from serial.tools import list_ports

    named = {desk.config.reader.port: "reader"}
    if desk.config.console.port is not None:
        named[desk.config.console.port] = "console"
    found = {item.device: item.description or "" for item in list_ports.comports()}
    for port in named:
        if Path(port).exists():
            found.setdefault(port, "")
    return [
        {"port": port, "usedFor": named.get(port, ""), "what": what}
        for port, what in sorted(found.items())
    ]


async def reader_watch(desk: Desk, args: Args) -> CommandResult:
    """What the reader says for some seconds: cards that come and go, troubles."""
    seconds = number(args, 0, "seconds", WATCH_S, MAX_WATCH_S)
    heard: list[dict[str, Any]] = []
    with desk.timeline.watch() as next_event, suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                event = await next_event()
                if event["event"] in _READER_EVENTS:
                    heard.append({"at": rfc3339(event["wall_ms"]), **_told(event)})
    text = table(heard, f"nothing came to the reader in {seconds} s")
    return CommandResult(EXIT_OK, text, {"seconds": seconds, "events": heard})


def _told(event: dict[str, Any]) -> dict[str, Any]:
    return {"event": event["event"], "detail": str(event.get("reason") or event.get("code") or "")}


async def key_fingerprint(desk: Desk, _args: Args) -> CommandResult:
    """What two people compare: this terminal's key and the gateway's."""
    own = await asyncio.to_thread(desk.probes.identity.fingerprint)
    return facts(
        {
            "terminalId": desk.probes.terminal_id,
            "fingerprint": own,
            "gatewayFingerprint": fingerprint(desk.config.gateway_key),
            "gatewayId": gateway_id(desk.config.gateway_key),
        }
    )


async def clock(desk: Desk, _args: Args) -> CommandResult:
    """The terminal's time, held against the gateway's."""
    known: dict[str, Any] = {
        "time": rfc3339(desk.clock.now_ms()),
        "timeZone": time.tzname[0],
        "synchronized": desk.probes.machine.time_synchronized.exists(),
    }
    try:
        hello = await desk.probes.gateway.hello()
    except TapRailError as exc:
        return facts({**known, "gatewayOffsetMs": None, "gateway": str(exc)}, ok=False)
    offset_ms = hello.clock_offset_ms
    known["gatewayOffsetMs"] = offset_ms
    if abs(offset_ms) <= CLOCK_WARNING_MS:
        return facts(known)
    return facts({**known, "whatToDo": "set the time: timedatectl set-ntp true"}, ok=False)


async def net(desk: Desk, args: Args) -> CommandResult:
    """Each stage of the way to the gateway, then round trips."""
    rounds = number(args, 0, "rounds", net_test.DEFAULT_ROUNDS, net_test.MAX_ROUNDS)
    target = desk.probes.target
    looks = (net_test.network, net_test.dns, net_test.connect, net_test.tls)
    rows = []
    for look in looks:
        rows.append(row(await look(target)))
        if not rows[-1]["ok"] and look is not net_test.network:
            return judged(rows, {"host": target.host, "port": target.port})

    async def ask() -> int:
        return (await desk.probes.gateway.hello()).round_trip_ms

    try:
        measured = net_test.percentiles(await net_test.round_trips_ms(ask, rounds))
    except TapRailError as exc:
        rows.append(row(PartHealth("gateway", ok=False, detail=exc.message, fix=exc.fix)))
        return judged(rows, {"host": target.host, "port": target.port})
    return judged(rows, {"host": target.host, "port": target.port, **measured})


async def log_tail(desk: Desk, args: Args) -> CommandResult:
    """The log's last lines; no secret is ever in them."""
    lines = _newest(desk.log.last(number(args, 0, "lines", _DEFAULT_LINES, _MAX_LINES)))
    return CommandResult(EXIT_OK, "\n".join(lines) or "nothing was logged yet", {"lines": lines})


async def log_level(desk: Desk, _args: Args) -> CommandResult:
    """From which level on is logged."""
    return facts({"level": desk.log.level})


def _newest(lines: Sequence[str]) -> list[str]:
    """As many of the last lines as an answer holds, as text and as data."""
    kept: list[str] = []
    left_bytes = _MAX_LOG_BYTES
    for line in reversed(lines):
        left_bytes -= len(json.dumps(line))
        if left_bytes < 0:
            break
        kept.insert(0, line)
    return kept


def number(args: Args, at: int, name: str, default: int, limit: int) -> int:
    """A number among a command's words; raises InputError."""
    if len(args) <= at:
        return default
    if not (args[at].isascii() and args[at].isdigit()) or not 0 < int(args[at][:9]) <= limit:
        raise InputError(name, f"must be a number from 1 to {limit}")
    return int(args[at])


def row(part: PartHealth) -> dict[str, Any]:
    """A part as it is answered."""
    return {"name": part.name, "ok": part.ok, "detail": part.detail, "whatToDo": part.fix}

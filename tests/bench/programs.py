"""What the programs cost when nothing happens: start, memory, idle CPU, a command's time.

The terminal runs with simulated pins and display, as in the demo; its drivers and its reader's
serial line are the real ones. A start lasts until the reader is open and tills are answered.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from taprail_hwsim.process import Program
from taprail_hwsim.stack import Stack, StackOptions
from tests.bench.scenario import Bench, BenchError, CpuMeter, Results, rss_mb

_STARTS: Final = 3
_IDLE_S: Final = 5.0
_CALM_S: Final = 1.0


async def measure(bench: Bench) -> Results:
    """`terminal.*`, `gateway.ready_s` and `admin.command_s`."""
    async with Stack(StackOptions(bench.sub("stack"))) as stack:
        bench.say("starts of the gateway")
        gateway_s = await _ready_s(stack.gateway, stack.start_gateway)
        bench.say("starts of the terminal")
        terminal_s = await _ready_s(stack.terminal, stack.start_terminal)
        bench.say("a command of the operator's")
        command_s = [await _command_s(stack.gateway_config) for _ in range(_STARTS)]
        bench.say("the terminal, armed and idle")
        await stack.tap("alice", "1.00")
        await stack.arm("1.00")
        await asyncio.sleep(_CALM_S)
        meter = CpuMeter(stack.terminal.pid)
        await asyncio.sleep(_IDLE_S)
        return {
            "terminal.ready_s": terminal_s,
            "terminal.rss_mb": rss_mb(stack.terminal.pid),
            "terminal.idle_percent": meter.percent,
            "gateway.ready_s": gateway_s,
            "gateway.rss_mb": rss_mb(stack.gateway.pid),
            "admin.command_s": statistics.median(command_s),
        }


async def _ready_s(program: Program, start: Callable[[], Awaitable[None]]) -> float:
    times = []
    for _ in range(_STARTS):
        await program.stop()
        began_s = time.monotonic()
        await start()
        times.append(time.monotonic() - began_s)
    return statistics.median(times)


async def _command_s(config: Path) -> float:
    taprail = Path(sys.executable).parent / "taprail"
    began_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(str(taprail), "admin", "--config", str(config), "card", "list", "--json"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    if await process.wait() != 0:
        raise BenchError("`taprail admin card list` failed")
    return time.monotonic() - began_s
